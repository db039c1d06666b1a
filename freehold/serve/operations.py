"""The table of operations: each, what it does in the words of policies, its handler.

Closed unless listed: a path that is not in `operations` does not exist, and every path
but `OPEN` needs a key that the policies permit the action which stands beside it.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from freehold.core.action import Action
from freehold.core.binding import Principal
from freehold.serve.admin.adapters import AdaptersAdmin
from freehold.serve.admin.audit import AuditAdmin
from freehold.serve.admin.backups import BackupsAdmin
from freehold.serve.admin.content import ContentAdmin
from freehold.serve.admin.datasets import DatasetAdmin
from freehold.serve.admin.decisions import DecisionsAdmin
from freehold.serve.admin.evaluations import EvaluationsAdmin
from freehold.serve.admin.events import EventsAdmin
from freehold.serve.admin.gates import GatesAdmin
from freehold.serve.admin.jobs import JobsAdmin
from freehold.serve.admin.keys import KeysAdmin
from freehold.serve.admin.limits import LimitsAdmin
from freehold.serve.admin.lineage import LineageAdmin
from freehold.serve.admin.login import LoginAdmin
from freehold.serve.admin.models import ModelsAdmin
from freehold.serve.admin.policies import PoliciesAdmin
from freehold.serve.admin.prices import PricesAdmin
from freehold.serve.admin.promotions import PromotionsAdmin
from freehold.serve.admin.requests import RequestsAdmin
from freehold.serve.admin.roles import RolesAdmin
from freehold.serve.admin.routes import RoutesAdmin
from freehold.serve.admin.sessions import SessionsAdmin
from freehold.serve.admin.signing_keys import SigningKeysAdmin
from freehold.serve.admin.status import StatusAdmin
from freehold.serve.admin.subjects import SubjectsAdmin
from freehold.serve.admin.tenants import TenantsAdmin
from freehold.serve.admin.usage import UsageAdmin
from freehold.serve.admin.whoami import WhoAmIAdmin
from freehold.serve.browser.console import Console
from freehold.serve.feedback import FeedbackTaker
from freehold.serve.gateway import Gateway
from freehold.serve.health import Health
from freehold.serve.models import Models
from freehold.serve.openapi.served import Document
from freehold.serve.request.inference import Inference
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
    models, document = Models(gateway), Document()
    tenants, keys = TenantsAdmin(gateway), KeysAdmin(gateway)
    adapters, signing = AdaptersAdmin(gateway), SigningKeysAdmin(gateway)
    datasets, lineage = DatasetAdmin(gateway), LineageAdmin(gateway)
    routes, promotions = RoutesAdmin(gateway), PromotionsAdmin(gateway)
    sessions, roles = SessionsAdmin(gateway), RolesAdmin(gateway)
    policies, limits = PoliciesAdmin(gateway), LimitsAdmin(gateway)
    content, backups = ContentAdmin(gateway), BackupsAdmin(gateway)
    decisions, jobs = DecisionsAdmin(gateway), JobsAdmin(gateway)
    evaluations, gates = EvaluationsAdmin(gateway), GatesAdmin(gateway)
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
        Operation("GET", "/admin/v1/status", Action.READ_STATUS, StatusAdmin(gateway).get),
        Operation("GET", "/admin/v1/tenants", Action.READ_TENANTS, tenants.listing),
        Operation("POST", "/admin/v1/tenants", Action.CHANGE_TENANTS, tenants.create),
        Operation("GET", "/admin/v1/tenants/{tenant}", Action.READ_TENANTS, tenants.get),
        Operation("PATCH", "/admin/v1/tenants/{tenant}", Action.CHANGE_TENANTS, tenants.change),
        Operation("DELETE", "/admin/v1/tenants/{tenant}", Action.CHANGE_TENANTS, tenants.remove),
        Operation("GET", "/admin/v1/models", Action.READ_MODELS, ModelsAdmin(gateway).listing),
        Operation("GET", "/admin/v1/keys", Action.READ_KEYS, keys.listing),
        Operation("POST", "/admin/v1/keys", Action.CHANGE_KEYS, keys.create),
        Operation("PATCH", "/admin/v1/keys/{key_id}", Action.CHANGE_KEYS, keys.change),
        Operation("DELETE", "/admin/v1/keys/{key_id}", Action.CHANGE_KEYS, keys.revoke),
        Operation("POST", "/admin/v1/keys/{key_id}/rotate", Action.CHANGE_KEYS, keys.rotate),
        Operation("POST", "/admin/v1/keys/{key_id}/confirm", Action.CHANGE_KEYS, keys.confirm),
        Operation("GET", "/admin/v1/adapters", Action.READ_ADAPTERS, adapters.listing),
        Operation("POST", "/admin/v1/adapters", Action.CHANGE_ADAPTERS, adapters.add),
        Operation("GET", "/admin/v1/adapters/{adapter}", Action.READ_ADAPTERS, adapters.get),
        Operation(
            "DELETE", "/admin/v1/adapters/{adapter}", Action.CHANGE_ADAPTERS, adapters.remove
        ),
        Operation(
            "GET",
            "/admin/v1/adapters/{adapter}/signatures",
            Action.READ_ADAPTERS,
            adapters.verify,
        ),
        Operation(
            "POST",
            "/admin/v1/adapters/{adapter}/signatures",
            Action.CHANGE_ADAPTERS,
            adapters.sign,
        ),
        Operation("GET", "/admin/v1/signing-keys", Action.READ_MODELS, signing.listing),
        Operation("POST", "/admin/v1/signing-keys", Action.ROTATE_SIGNING_KEY, signing.rotate),
        Operation(
            "POST",
            "/admin/v1/signing-keys/{key}/revoke",
            Action.REVOKE_SIGNING_KEY,
            signing.revoke,
        ),
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
        Operation("GET", "/admin/v1/routes", Action.READ_ROUTES, routes.listing),
        Operation("POST", "/admin/v1/routes", Action.CHANGE_ROUTES, routes.put),
        Operation("GET", "/admin/v1/routes/{alias:path}", Action.READ_ROUTES, routes.get),
        Operation("DELETE", "/admin/v1/routes/{alias:path}", Action.CHANGE_ROUTES, routes.remove),
        Operation("GET", "/admin/v1/whoami", None, WhoAmIAdmin(gateway).get),
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
        Operation("GET", "/admin/v1/usage", Action.READ_USAGE, UsageAdmin(gateway).listing),
        Operation("GET", "/admin/v1/audit", Action.READ_AUDIT, AuditAdmin(gateway).listing),
        Operation(
            "GET",
            "/admin/v1/audit/content/{request}",
            Action.READ_CONTENT,
            content.get,
        ),
        Operation(
            "DELETE",
            "/admin/v1/audit/content/{request}",
            Action.REMOVE_CONTENT,
            content.remove,
        ),
        Operation("GET", "/admin/v1/requests", Action.READ_USAGE, RequestsAdmin(gateway).listing),
        Operation("GET", "/admin/v1/events", Action.READ_EVENTS, EventsAdmin(gateway).listing),
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
        Operation("DELETE", "/admin/v1/jobs/{job}", Action.CHANGE_JOBS, jobs.remove),
        Operation("GET", "/admin/v1/jobs/{job}/log", Action.READ_JOBS, jobs.log),
        Operation("POST", "/admin/v1/jobs/{job}/cancel", Action.CHANGE_JOBS, jobs.cancel),
        Operation("POST", "/admin/v1/jobs/{job}/resume", Action.CHANGE_JOBS, jobs.resume),
        Operation("GET", "/admin/v1/promotions", Action.READ_ROUTES, promotions.listing),
        Operation("POST", "/admin/v1/promotions", Action.PROMOTE, promotions.promote),
        Operation("POST", "/admin/v1/promotions/export", Action.READ_ADAPTERS, promotions.export),
        Operation("GET", "/admin/v1/promotions/{promotion}", Action.READ_ROUTES, promotions.get),
        Operation("POST", "/admin/v1/rollbacks", Action.PROMOTE, promotions.roll_back),
        Operation("POST", "/admin/v1/evaluations", Action.CHANGE_JOBS, evaluations.start),
        Operation("GET", "/admin/v1/evaluations/{job}", Action.READ_JOBS, evaluations.get),
        Operation("GET", "/admin/v1/gates", Action.READ_JOBS, gates.listing),
        Operation("GET", "/admin/v1/gates/{gate}", Action.READ_JOBS, gates.get),
    ]


def open_handlers(gateway: Gateway) -> list[OpenHandler]:
    """In the order of `OPEN`."""
    health, console = Health(gateway), Console(gateway)
    return [
        health.alive,
        health.ready,
        health.metrics,
        LoginAdmin(gateway).clients,
        console.home,
        console.login,
        console.callback,
        console.logout,
        console.end_session,
        console.style,
    ]
