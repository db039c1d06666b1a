"""The routes and their order: each operation, what it does in the words of policies, its
handler.

Closed unless listed: a path that is not in `operations` does not exist, and every path
but `OPEN` needs a key that the policies permit the action which stands beside it.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from starlette.routing import Route, Router

from freehold.core.action import CHANGING, Action
from freehold.core.acts import Acting, Via, acting_as
from freehold.core.audit import stream_of
from freehold.core.binding import Principal
from freehold.core.errors import Code, UserError
from freehold.secure.network import address
from freehold.serve import admission
from freehold.serve.admin import Admin
from freehold.serve.admin_backups import BackupsAdmin
from freehold.serve.admin_content import ContentAdmin
from freehold.serve.admin_datasets import DatasetAdmin
from freehold.serve.admin_decisions import DecisionsAdmin
from freehold.serve.admin_evaluations import EvaluationsAdmin
from freehold.serve.admin_events import EventsAdmin
from freehold.serve.admin_jobs import JobsAdmin
from freehold.serve.admin_keys import KeysAdmin
from freehold.serve.admin_limits import LimitsAdmin
from freehold.serve.admin_lineage import LineageAdmin
from freehold.serve.admin_policies import PoliciesAdmin
from freehold.serve.admin_prices import PricesAdmin
from freehold.serve.admin_promotions import PromotionsAdmin
from freehold.serve.admin_roles import RolesAdmin
from freehold.serve.admin_routing import RoutingAdmin
from freehold.serve.admin_sessions import SessionsAdmin
from freehold.serve.admin_subjects import SubjectsAdmin
from freehold.serve.admin_tenants import TenantsAdmin
from freehold.serve.console import Console
from freehold.serve.document import Document
from freehold.serve.door import Door
from freehold.serve.feedback import FeedbackTaker
from freehold.serve.gateway import Gateway
from freehold.serve.health import Health
from freehold.serve.inference import Inference
from freehold.serve.models import Models
from freehold.serve.refusals import UNKNOWN
from freehold.serve.wire import Receive, Scope, Send

Handler = Callable[[Scope, Receive, Send, Principal, str], Awaitable[None]]
ProvenHandler = Callable[[Scope, Receive, Send, str], Awaitable[None]]
OpenHandler = Callable[[Scope, Receive, Send], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Operation:
    """`action` is None for what everybody may who is let in."""

    method: str
    path: str
    action: Action | None
    handler: Handler


@dataclass(frozen=True, slots=True)
class Proven:
    """What is sent as a key is proved in the handler: a token that is to become a session, a
    session that is to end."""

    method: str
    path: str
    handler: ProvenHandler
    action: Action | None = None


# The only ones that answer without a key. What people see in a browser knows them by its
# cookie, and lets nobody change anything with that alone.
OPEN = (
    ("GET", "/healthz"),
    ("GET", "/readyz"),
    ("GET", "/metrics"),
    ("GET", "/admin/v1/login"),
    ("GET", "/console"),
    ("GET", "/console/login"),
    ("GET", "/console/callback"),
    ("POST", "/console/logout"),
    ("POST", "/console/sessions/end"),
    ("GET", "/console/style.css"),
)


def operations(gateway: Gateway) -> list[Operation | Proven]:
    models, admin, routing = Models(gateway), Admin(gateway), RoutingAdmin(gateway)
    tenants, keys = TenantsAdmin(gateway), KeysAdmin(gateway)
    policies, limits = PoliciesAdmin(gateway), LimitsAdmin(gateway)
    sessions, roles = SessionsAdmin(gateway), RolesAdmin(gateway)
    events, backups = EventsAdmin(gateway), BackupsAdmin(gateway)
    promotions = PromotionsAdmin(gateway)
    decisions, jobs = DecisionsAdmin(gateway), JobsAdmin(gateway)
    datasets, lineage = DatasetAdmin(gateway), LineageAdmin(gateway)
    evaluations = EvaluationsAdmin(gateway)
    document = Document()
    infer, see = Action.INFER, Action.LIST_MODELS
    return [
        Operation("POST", "/v1/chat/completions", infer, Inference(gateway, "chat/completions")),
        Operation("POST", "/v1/completions", infer, Inference(gateway, "completions")),
        Operation("POST", "/v1/embeddings", infer, Inference(gateway, "embeddings")),
        Operation("POST", "/v1/responses", infer, Inference(gateway, "responses")),
        Operation("POST", "/v1/feedback", Action.FEEDBACK, FeedbackTaker(gateway)),
        Operation("GET", "/v1/models", see, models.listing),
        Operation("GET", "/v1/models/{alias:path}", see, models.one),
        Operation("GET", "/openapi.json", see, document.serve),
        Operation("GET", "/admin/v1/status", Action.READ_STATUS, admin.status),
        Operation("GET", "/admin/v1/tenants", Action.READ_TENANTS, tenants.listing),
        Operation("POST", "/admin/v1/tenants", Action.CHANGE_TENANTS, tenants.create),
        Operation("GET", "/admin/v1/tenants/{tenant}", Action.READ_TENANTS, tenants.get),
        Operation("PATCH", "/admin/v1/tenants/{tenant}", Action.CHANGE_TENANTS, tenants.change),
        Operation("DELETE", "/admin/v1/tenants/{tenant}", Action.CHANGE_TENANTS, tenants.remove),
        Operation("GET", "/admin/v1/models", Action.READ_MODELS, admin.list_models),
        Operation("GET", "/admin/v1/keys", Action.READ_KEYS, keys.listing),
        Operation("POST", "/admin/v1/keys", Action.CHANGE_KEYS, keys.create),
        Operation("PATCH", "/admin/v1/keys/{key_id}", Action.CHANGE_KEYS, keys.change),
        Operation("DELETE", "/admin/v1/keys/{key_id}", Action.CHANGE_KEYS, keys.revoke),
        Operation("POST", "/admin/v1/keys/{key_id}/rotate", Action.CHANGE_KEYS, keys.rotate),
        Operation("POST", "/admin/v1/keys/{key_id}/confirm", Action.CHANGE_KEYS, keys.confirm),
        Operation("GET", "/admin/v1/adapters", Action.READ_ADAPTERS, routing.list_adapters),
        Operation("POST", "/admin/v1/adapters", Action.CHANGE_ADAPTERS, routing.add_adapter),
        Operation("GET", "/admin/v1/adapters/{adapter}", Action.READ_ADAPTERS, routing.get_adapter),
        Operation(
            "DELETE", "/admin/v1/adapters/{adapter}", Action.CHANGE_ADAPTERS, routing.remove_adapter
        ),
        Operation(
            "GET",
            "/admin/v1/adapters/{adapter}/signatures",
            Action.READ_ADAPTERS,
            routing.verify_adapter,
        ),
        Operation(
            "POST",
            "/admin/v1/adapters/{adapter}/signatures",
            Action.CHANGE_ADAPTERS,
            routing.sign_adapter,
        ),
        Operation("GET", "/admin/v1/signing-keys", Action.READ_MODELS, routing.list_keys),
        Operation("POST", "/admin/v1/signing-keys", Action.ROTATE_SIGNING_KEY, routing.rotate_key),
        Operation("GET", "/admin/v1/lineage", Action.READ_ADAPTERS, lineage.get),
        Operation("GET", "/admin/v1/lineage/bom", Action.READ_ADAPTERS, lineage.bom),
        Operation("GET", "/admin/v1/datasets", Action.READ_DATASETS, datasets.listing),
        Operation("POST", "/admin/v1/datasets", Action.CHANGE_DATASETS, datasets.add),
        Operation(
            "POST",
            "/admin/v1/datasets/from-feedback",
            Action.CHANGE_DATASETS,
            datasets.from_feedback,
        ),
        Operation("GET", "/admin/v1/datasets/{dataset}", Action.READ_DATASETS, datasets.get),
        Operation(
            "DELETE", "/admin/v1/datasets/{dataset}", Action.CHANGE_DATASETS, datasets.remove
        ),
        Operation("GET", "/admin/v1/routes", Action.READ_ROUTES, routing.list_routes),
        Operation("POST", "/admin/v1/routes", Action.CHANGE_ROUTES, routing.set_route),
        Operation("GET", "/admin/v1/routes/{alias:path}", Action.READ_ROUTES, routing.get_route),
        Operation(
            "DELETE", "/admin/v1/routes/{alias:path}", Action.CHANGE_ROUTES, routing.remove_route
        ),
        Operation("GET", "/admin/v1/whoami", None, sessions.whoami),
        Operation("GET", "/admin/v1/sessions", Action.READ_SESSIONS, sessions.listing),
        Proven("POST", "/admin/v1/sessions", sessions.open),
        Operation("DELETE", "/admin/v1/sessions", Action.CHANGE_SESSIONS, sessions.cut_off),
        Proven("DELETE", "/admin/v1/sessions/current", sessions.close),
        Operation(
            "DELETE", "/admin/v1/sessions/{session_id}", Action.CHANGE_SESSIONS, sessions.revoke
        ),
        Operation("GET", "/admin/v1/roles", Action.READ_ROLES, roles.listing),
        Operation("POST", "/admin/v1/roles", Action.CHANGE_ROLES, roles.grant),
        Operation("DELETE", "/admin/v1/roles", Action.CHANGE_ROLES, roles.revoke),
        Operation("GET", "/admin/v1/policies", Action.READ_POLICIES, policies.listing),
        Operation("POST", "/admin/v1/policies", Action.CHANGE_POLICIES, policies.put),
        Operation("POST", "/admin/v1/policies/explain", Action.READ_POLICIES, policies.explain),
        Operation("DELETE", "/admin/v1/policies/{name}", Action.CHANGE_POLICIES, policies.remove),
        Operation("GET", "/admin/v1/limits", Action.READ_LIMITS, limits.listing),
        Operation("POST", "/admin/v1/limits", Action.CHANGE_LIMITS, limits.put),
        Operation("DELETE", "/admin/v1/limits/{limit_id}", Action.CHANGE_LIMITS, limits.remove),
        Operation("GET", "/admin/v1/prices", Action.READ_MODELS, PricesAdmin(gateway).listing),
        Operation(
            "DELETE",
            "/admin/v1/subjects/{subject:path}",
            Action.FORGET_SUBJECTS,
            SubjectsAdmin(gateway).forget,
        ),
        Operation("GET", "/admin/v1/usage", Action.READ_USAGE, admin.usage),
        Operation("GET", "/admin/v1/audit", Action.READ_AUDIT, admin.audit),
        Operation(
            "GET",
            "/admin/v1/audit/content/{request}",
            Action.READ_CONTENT,
            ContentAdmin(gateway).get,
        ),
        Operation(
            "DELETE",
            "/admin/v1/audit/content/{request}",
            Action.REMOVE_CONTENT,
            ContentAdmin(gateway).remove,
        ),
        Operation("GET", "/admin/v1/requests", Action.READ_USAGE, admin.records),
        Operation("GET", "/admin/v1/events", Action.READ_EVENTS, events.listing),
        Operation("GET", "/admin/v1/backups", Action.READ_BACKUPS, backups.listing),
        Operation("POST", "/admin/v1/backups", Action.MAKE_BACKUPS, backups.make),
        Operation("POST", "/admin/v1/fit", Action.READ_DECISIONS, decisions.fit),
        Operation("POST", "/admin/v1/decide", Action.READ_DECISIONS, decisions.decide),
        Operation("GET", "/admin/v1/decisions", Action.READ_DECISIONS, decisions.listing),
        Operation("POST", "/admin/v1/decisions", Action.CHANGE_DECISIONS, decisions.record),
        Operation("GET", "/admin/v1/decisions/{decision}", Action.READ_DECISIONS, decisions.get),
        Operation(
            "GET",
            "/admin/v1/decisions/{decision}/deployment",
            Action.READ_DECISIONS,
            decisions.deployment,
        ),
        Operation(
            "POST",
            "/admin/v1/decisions/{decision}/check",
            Action.READ_DECISIONS,
            decisions.check,
        ),
        Operation("GET", "/admin/v1/jobs", Action.READ_JOBS, jobs.listing),
        Operation("POST", "/admin/v1/jobs", Action.CHANGE_JOBS, jobs.start),
        Operation("POST", "/admin/v1/jobs/estimate", Action.READ_JOBS, jobs.estimate),
        Operation("GET", "/admin/v1/jobs/{job}", Action.READ_JOBS, jobs.get),
        Operation("GET", "/admin/v1/jobs/{job}/log", Action.READ_JOBS, jobs.log),
        Operation("POST", "/admin/v1/jobs/{job}/cancel", Action.CHANGE_JOBS, jobs.cancel),
        Operation("POST", "/admin/v1/jobs/{job}/resume", Action.CHANGE_JOBS, jobs.resume),
        Operation("GET", "/admin/v1/promotions", Action.READ_ROUTES, promotions.listing),
        Operation("POST", "/admin/v1/promotions", Action.PROMOTE, promotions.promote),
        Operation("GET", "/admin/v1/promotions/{promotion}", Action.READ_ROUTES, promotions.get),
        Operation("POST", "/admin/v1/rollbacks", Action.PROMOTE, promotions.roll_back),
        Operation("POST", "/admin/v1/evaluations", Action.CHANGE_JOBS, evaluations.start),
        Operation("GET", "/admin/v1/evaluations/{job}", Action.READ_JOBS, evaluations.get),
        Operation("GET", "/admin/v1/gates", Action.READ_JOBS, evaluations.gates),
        Operation("GET", "/admin/v1/gates/{gate}", Action.READ_JOBS, evaluations.gate),
    ]


class _Guarded:
    """Authenticates and authorizes on the matched route, never on a path text. Whoever
    changes something does it as `Acting`, without which the store changes nothing for them;
    that they were refused is recorded too."""

    def __init__(self, gateway: Gateway, operation: Operation | Proven) -> None:
        self._gateway = gateway
        self._operation = operation
        self._name = f"{operation.method} {operation.path}"
        is_change = operation.action in CHANGING
        self._is_administrative = operation.path.startswith("/admin/") or is_change

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        operation = self._operation
        key = ""
        try:
            key = admission.credential(self._gateway, scope)
            if isinstance(operation, Proven):
                await operation.handler(scope, receive, send, key)
                return
            principal = await admission.authenticate(self._gateway, scope, key)
        except UserError as error:
            self._gateway.metrics.refused.labels(error.code.value).inc()
            self._gateway.events.refused(error, key)
            if error.code in UNKNOWN:
                self._gateway.refusals.count(error.code)
            raise
        action = operation.action
        address = admission.peer_of(self._gateway, scope)
        scope["freehold.action"], scope["freehold.address"] = action, address
        try:
            if not self._is_administrative:
                await self._handle(operation, scope, receive, send, principal, key)
            else:
                await self._administer(operation, scope, receive, send, principal, key)
        except UserError as error:
            self._gateway.metrics.refused.labels(error.code.value).inc()
            raise

    async def _handle(
        self,
        operation: Operation,
        scope: Scope,
        receive: Receive,
        send: Send,
        principal: Principal,
        key: str,
    ) -> None:
        if operation.action is not None:
            address = scope["freehold.address"]
            self._gateway.policies.require_somewhere(principal, operation.action, address)
        await operation.handler(scope, receive, send, principal, key)

    async def _administer(
        self,
        operation: Operation,
        scope: Scope,
        receive: Receive,
        send: Send,
        principal: Principal,
        key: str,
    ) -> None:
        action = operation.action
        who = Acting(
            principal=principal.id,
            via=Via.API,
            tenant_id=principal.tenant_id,
            action="" if action is None else action.value,
            operation=self._name,
            request_id=scope["freehold.request_id"],
            personal={**dict(principal.known), **_from(scope["freehold.address"])},
        )
        try:
            with acting_as(who):
                await self._handle(operation, scope, receive, send, principal, key)
        except UserError as error:
            is_refused = action in CHANGING or error.code is Code.FORBIDDEN
            if is_refused and self._gateway.refusals.is_recorded(principal.id, error.code):
                stream = stream_of(principal.tenant_id, principal.environment)
                await asyncio.to_thread(self._gateway.store.refused, who, stream, error.code.value)
            raise


def _from(address: str) -> dict[str, str]:
    return {"address": address} if address else {}


class _Path:
    """The operations of one path, so that a wrong method is told all the right ones."""

    def __init__(self, gateway: Gateway, found: list[Operation | Proven]) -> None:
        self._by_method = {operation.method: _Guarded(gateway, operation) for operation in found}
        self.methods = tuple(self._by_method)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        method = "GET" if scope["method"] == "HEAD" else scope["method"]
        await self._by_method[method](scope, receive, send)


class _Table:
    """Leads to a path that is known as it stands by looking it up: the router goes through
    its patterns one by one. Everything else is the router's."""

    def __init__(self, paths: Mapping[str, _Path], router: Router) -> None:
        self._router = router
        self._known = {
            (method, path): found for path, found in paths.items() if "{" not in path
            for method in found.methods
        }  # fmt: skip

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        found = None
        if scope["type"] == "http":
            found = self._known.get((scope["method"], scope["path"]))
        await (found or self._router)(scope, receive, send)


class _Open:
    def __init__(self, handler: OpenHandler) -> None:
        self._handler = handler

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._handler(scope, receive, send)


def build(gateway: Gateway) -> Door:
    """The ASGI application of one gateway."""
    paths: dict[str, list[Operation | Proven]] = {}
    for operation in operations(gateway):
        paths.setdefault(operation.path, []).append(operation)
    known = {path: _Path(gateway, found) for path, found in paths.items()}
    routes = [
        *(Route(path, found, methods=found.methods) for path, found in known.items()),
        *(
            Route(path, _Open(handler), methods=[method])
            for (method, path), handler in zip(OPEN, _open_handlers(gateway), strict=True)
        ),
    ]
    router = Router(routes, redirect_slashes=False)
    server = gateway.settings.server
    public = [urlsplit(server.public_url).netloc.rsplit(":", 1)[0]] if server.public_url else []
    return Door(_Table(known, router), {*server.allowed_hosts, *_own_name(server.host), *public})


def _own_name(host: str) -> tuple[str, ...]:
    """What the settings say to listen on is meant to be called, unless it stands for all
    addresses, under which a page of another site can call a browser's own machine."""
    bound = address(host)
    if bound is not None and bound.is_unspecified:
        return ()
    return (f"[{host}]" if ":" in host else host,)


def _open_handlers(gateway: Gateway) -> list[OpenHandler]:
    """In the order of `OPEN`."""
    health, console = Health(gateway), Console(gateway)
    return [
        health.alive,
        health.ready,
        health.metrics,
        SessionsAdmin(gateway).clients,
        console.home,
        console.login,
        console.callback,
        console.logout,
        console.end_session,
        console.style,
    ]
