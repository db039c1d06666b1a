"""The one choke point: who asks, for what, and the Binding that answers both."""

import asyncio
import re

from freehold.core.action import Action
from freehold.core.binding import Binding, Isolation, Principal, Priority, Route
from freehold.core.errors import Code, Fault, UserError
from freehold.core.session import Session, SessionKind
from freehold.deploy.pool import Pool
from freehold.secure.sessions import PREFIX, invalid_session
from freehold.serve import connection
from freehold.serve.browser.cookies import check_proof
from freehold.serve.gateway import Gateway
from freehold.serve.people import looks_like_token
from freehold.serve.policies import model_not_found, refused
from freehold.serve.protocol.bodies import Body
from freehold.serve.request.sharing import chosen
from freehold.serve.wire import Scope, header

_LABEL = re.compile(r"[A-Za-z0-9._:-]{1,128}\Z")
_IDEMPOTENCY_KEY = re.compile(r"[\x21-\x7e]{1,255}\Z")


def credential(gateway: Gateway, scope: Scope) -> str:
    """The caller's key from `Authorization: Bearer`, or from `x-api-key` and
    `api-key`, which other SDKs send, or the session in a browser's cookie. Raises
    `MISSING_API_KEY`."""
    bearer = header(scope, b"authorization")
    if bearer is not None:
        scheme, _, key = bearer.partition(" ")
        if scheme.lower() == "bearer" and key.strip():
            return key.strip()
        raise UserError(Code.INVALID_API_KEY, "The Authorization header must be `Bearer <key>`.")
    key = header(scope, b"x-api-key") or header(scope, b"api-key") or ""
    if key:
        return key
    session = None if gateway.cookies is None else gateway.cookies.session_of(scope)
    if session is not None:
        scope["freehold.by_cookie"] = True
        return session
    raise UserError(
        Code.MISSING_API_KEY,
        "No API key was sent: add the header `Authorization: Bearer <key>`.",
    )


async def authenticate(gateway: Gateway, scope: Scope, key: str) -> Principal:
    """Known keys are answered from memory; others ask the store, off the loop."""
    peer, certificate = peer_of(gateway, scope), certificate_of(scope)
    if gateway.people is not None and looks_like_token(key):
        wanted = header(scope, b"x-freehold-environment")
        return await gateway.people.principal(key, wanted, gateway.keyring.epoch)
    if key.startswith(PREFIX):
        return await _logged_in(gateway, scope, key)
    principal = gateway.keyring.cached(key, peer, certificate)
    if principal is None:
        principal = await asyncio.to_thread(gateway.keyring.authenticate, key, peer, certificate)
    return principal


async def _logged_in(gateway: Gateway, scope: Scope, secret: str) -> Principal:
    """Somebody with a session. A browser sends its cookie along whoever makes it ask, so
    what changes something must show that it is our own page which does."""
    kind, epoch = SessionKind.COMMAND, gateway.keyring.epoch
    if gateway.cookies is not None and scope.get("freehold.by_cookie"):
        kind = SessionKind.BROWSER
        if scope["method"] not in ("GET", "HEAD"):
            gateway.cookies.check_same_origin(scope)
            check_proof(header(scope, b"x-freehold-csrf"), gateway.sessions.proof(secret))
    session = await session_of(gateway, scope, secret, kind)
    if gateway.people is None:
        raise invalid_session()
    wanted = header(scope, b"x-freehold-environment")
    return gateway.people.of_session(session, wanted, epoch)


async def session_of(gateway: Gateway, scope: Scope, secret: str, kind: SessionKind) -> Session:
    """From memory or from the store. Raises what `Sessions.find` raises."""
    found = gateway.sessions.cached(secret, kind)
    if found is None:
        found = await asyncio.to_thread(
            gateway.sessions.find, secret, kind, peer_of(gateway, scope)
        )
    return found


async def still(gateway: Gateway, scope: Scope, principal: Principal, key: str) -> Principal:
    """The same, after a body was waited for: much may have changed meanwhile."""
    if principal.epoch == gateway.keyring.epoch:
        return principal
    return await authenticate(gateway, scope, key)


def peer_of(gateway: Gateway, scope: Scope) -> str:
    """The address that a request is from. Headers say nothing about it, unless they come
    from a proxy that the settings trust."""
    client = scope.get("client")
    peer: str = client[0] if client else ""
    if gateway.proxies is None:
        return peer
    said = [value for name, value in scope["headers"] if name == b"x-forwarded-for"]
    forwarded = b",".join(said).decode("latin-1")
    return gateway.proxies.client(peer, forwarded, certificate_of(scope))


def certificate_of(scope: Scope) -> frozenset[str]:
    """The names of the client, as its certificate proved them to this connection."""
    found = connection.of(scope)
    return frozenset() if found is None else found.certificate


def bind(
    gateway: Gateway, principal: Principal, scope: Scope, endpoint: str, body: Body
) -> Binding:
    """Resolves everything about a request, once. Raises `MODEL_NOT_FOUND` alike for
    an alias that is not there and for one that belongs to somebody else."""
    routes = gateway.directory.routes(principal.tenant_id, principal.environment)
    route = routes.get(body.model)
    if route is None:
        raise model_not_found(body.model)
    conversation = _label(scope, b"x-freehold-conversation")
    if route.candidate is not None:
        label = conversation or header(scope, b"x-freehold-user")
        is_served = _is_served(gateway, route.candidate.route)
        route = chosen(route, principal, label, body, is_served=is_served)
    pool = gateway.pools.get(route.pool)
    isolation = _isolation(route, pool)
    if pool is not None and pool.own is not None and pool.own.tenant_id != principal.tenant_id:
        raise Fault(f"{route.id} leads into the pool of another tenant")
    permitted = _authorize(gateway, principal, route, scope["freehold.address"])
    return Binding(
        request_id=scope["freehold.request_id"],
        principal=principal,
        route=route,
        isolation=isolation,
        cache_salt=_salt(gateway, principal, route) if pool and pool.capabilities.salted else "",
        price=gateway.prices.of(route),
        priority=_priority(scope, principal),
        endpoint=endpoint,
        stream=body.stream,
        conversation_id=conversation,
        client_request_id=None,
        address=scope["freehold.address"],
        policies=permitted,
    )


def _is_served(gateway: Gateway, route: Route) -> bool:
    pool, digest = gateway.pools.get(route.pool), route.adapter_digest
    if pool is None:
        return False
    if digest is None:
        return True
    owner = (route.tenant_id, route.environment)
    return pool.adapters is not None and pool.adapters.why_not(owner, digest) is None


def _authorize(
    gateway: Gateway, principal: Principal, route: Route, address: str
) -> tuple[str, ...]:
    """On the route that was found: which policies permit it. What is not the principal's own
    looks like what is not there; what it may not do is said."""
    decision = gateway.policies.decide(principal, Action.INFER, route, address)
    if decision.is_allowed:
        return decision.because
    if decision.is_not_theirs:
        raise model_not_found(route.alias)
    raise refused(Action.INFER, decision)


def idempotency_key(scope: Scope) -> str | None:
    key = header(scope, b"idempotency-key")
    if key is not None and not _IDEMPOTENCY_KEY.match(key):
        raise UserError(
            Code.INVALID_VALUE,
            "Idempotency-Key must be 1 to 255 visible ASCII characters.",
            param="Idempotency-Key",
        )
    return key


def _isolation(route: Route, pool: Pool | None) -> Isolation:
    """Engines that cannot salt their cache keep nothing between requests."""
    if route.engine == "remote":
        return Isolation.REMOTE
    if pool is not None and pool.own is not None:
        return Isolation.WEIGHTS if pool.own.has_own_weights else Isolation.DEDICATED
    if pool is not None and pool.capabilities.salted:
        return Isolation.SALTED
    return Isolation.NOCACHE


def _salt(gateway: Gateway, principal: Principal, route: Route) -> str:
    """Nobody else's prefixes are found under it, nor those of another adapter."""
    return gateway.keyring.salt(
        principal.tenant_id, principal.environment, route.adapter_digest or ""
    )


def _priority(scope: Scope, principal: Principal) -> Priority:
    text = header(scope, b"x-freehold-priority")
    try:
        asked = Priority.INTERACTIVE if text is None else Priority(text)
        return Priority.BATCH if principal.is_stepped_down else asked
    except ValueError:
        raise UserError(
            Code.INVALID_VALUE,
            "x-freehold-priority must be `interactive` or `batch`.",
            param="x-freehold-priority",
        ) from None


def _label(scope: Scope, name: bytes) -> str | None:
    text = header(scope, name)
    if text is not None and not _LABEL.match(text):
        raise UserError(
            Code.INVALID_VALUE,
            f"{name.decode()} must be 1 to 128 letters, digits or `. _ : -`.",
            param=name.decode(),
        )
    return text
