"""The table of operations as an application: who may, and which path leads where."""

import asyncio
from collections.abc import Mapping
from urllib.parse import urlsplit

from starlette.routing import Route, Router

from freehold.core.action import CHANGING
from freehold.core.acts import Acting, Via, acting_as
from freehold.core.audit import stream_of
from freehold.core.binding import Principal
from freehold.core.errors import Code, UserError
from freehold.secure.network import address
from freehold.serve import admission
from freehold.serve.door import Door
from freehold.serve.gateway import Gateway
from freehold.serve.operations import (
    OPEN,
    OpenHandler,
    Operation,
    Proven,
    open_handlers,
    operations,
)
from freehold.serve.refusals import UNKNOWN
from freehold.serve.wire import Receive, Scope, Send


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
            for (method, path), handler in zip(OPEN, open_handlers(gateway), strict=True)
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
