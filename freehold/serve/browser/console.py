"""`/console`: where people log in with a browser, and see what they may.

Pages are whole when they are sent: nothing in them runs, nothing is fetched from elsewhere,
and their policy says so to the browser.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from datetime import UTC, datetime
from functools import cached_property
from importlib import resources
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl

from freehold.core.action import Action
from freehold.core.acts import Acting, Via, acting_as
from freehold.core.binding import ROLES, Principal
from freehold.core.errors import Code, UserError
from freehold.core.session import Session, SessionKind
from freehold.serve import admission, errors
from freehold.serve.browser.cookies import Cookies, check_proof
from freehold.serve.browser.login import ATTEMPT_S, Login
from freehold.serve.gateway import Gateway
from freehold.serve.people import Granted
from freehold.serve.wire import Header, Receive, Scope, Send, read_body

if TYPE_CHECKING:
    from jinja2 import Environment

_MAX_FORM_BYTES, _MAX_FIELDS, _MAX_QUERY = 4096, 20, 16_384
_HTML, _CSS = b"text/html; charset=utf-8", b"text/css; charset=utf-8"
_GUARDS: tuple[Header, ...] = (
    (
        b"content-security-policy",
        b"default-src 'none'; style-src 'self'; form-action 'self'; base-uri 'none'; "
        b"frame-ancestors 'none'",
    ),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    # Not `no-referrer`: browsers then keep from us that our own page sent a form.
    (b"referrer-policy", b"same-origin"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cache-control", b"no-store"),
)
_FOLDER = resources.files("freehold.serve.browser") / "pages"
_Page = Callable[[Scope, Receive, Send], Awaitable[None]]


class Console:
    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._style = (_FOLDER / "style.css").read_bytes()

    @cached_property
    def _pages(self) -> "Environment":
        """Made when somebody looks: most gateways show pages to nobody."""
        from jinja2 import Environment, FunctionLoader, StrictUndefined

        def text_of(name: str) -> str:
            return (_FOLDER / name).read_text("utf-8")

        return Environment(
            autoescape=True, undefined=StrictUndefined, loader=FunctionLoader(text_of)
        )

    async def home(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._in_words(self._home, scope, receive, send)

    async def login(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._in_words(self._login, scope, receive, send)

    async def callback(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._in_words(self._callback, scope, receive, send)

    async def logout(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._in_words(self._logout, scope, receive, send)

    async def end_session(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._in_words(self._end_session, scope, receive, send)

    async def style(self, scope: Scope, receive: Receive, send: Send) -> None:
        await _send(send, 200, _CSS, self._style)

    async def _in_words(self, page: _Page, scope: Scope, receive: Receive, send: Send) -> None:
        """What people did wrong is told to people."""
        try:
            await page(scope, receive, send)
        except UserError as error:
            gone = []
            if error.code is Code.INVALID_SESSION and self._gateway.cookies is not None:
                gone = [self._gateway.cookies.no_session()]
            status = errors.status_of(error)
            await self._show(send, status, "trouble.html", gone, message=error.message)

    async def _home(self, scope: Scope, receive: Receive, send: Send) -> None:
        cookies = self._gateway.cookies
        secret = None if cookies is None else cookies.session_of(scope)
        if cookies is None or secret is None:
            await self._welcome(send)
            return
        try:
            session = await admission.session_of(self._gateway, scope, secret, SessionKind.BROWSER)
            shown = await self._shown(scope, session)
        except UserError as error:
            if error.code is not Code.INVALID_SESSION:
                raise
            await self._welcome(send, [cookies.no_session()])
            return
        proof = self._gateway.sessions.proof(secret)
        await self._show(send, 200, "console.html", csrf=proof, **shown)

    async def _welcome(self, send: Send, headers: Iterable[Header] = ()) -> None:
        await self._show(send, 200, "welcome.html", headers, providers=self._providers())

    async def _login(self, scope: Scope, receive: Receive, send: Send) -> None:
        login, cookies = self._able()
        name = _query(scope).get("provider")
        if name is None:
            if len(self._providers()) != 1:
                await _go(send, "/console")
                return
            (name,) = self._providers()
        begun = await login.begin(name)
        await _go(send, begun.url, [cookies.login(begun.cookie, ATTEMPT_S)])

    async def _callback(self, scope: Scope, receive: Receive, send: Send) -> None:
        login, cookies = self._able()
        attempt, before = cookies.login_of(scope), cookies.session_of(scope)
        try:
            session, secret = await login.finish(_query(scope), attempt, before)
        except UserError as error:
            status, forget = errors.status_of(error), [cookies.no_login()]
            await self._show(send, status, "trouble.html", forget, message=error.message)
            return
        if before is not None:
            await self._gateway.access.refresh()
        lasts_s = (session.expires_at_us - session.created_at_us) // 1_000_000
        await _go(send, "/console", [cookies.session(secret.reveal(), lasts_s), cookies.no_login()])

    async def _logout(self, scope: Scope, receive: Receive, send: Send) -> None:
        _, cookies = self._able()
        secret, _ = await self._own(scope, receive)
        await asyncio.to_thread(
            self._gateway.sessions.end, secret, SessionKind.BROWSER, "POST /console/logout"
        )
        await self._gateway.access.refresh()
        await _go(send, "/console", [cookies.no_session()])

    async def _end_session(self, scope: Scope, receive: Receive, send: Send) -> None:
        gateway = self._gateway
        secret, form = await self._own(scope, receive)
        mine = await admission.session_of(gateway, scope, secret, SessionKind.BROWSER)
        operation = "POST /console/sessions/end"
        with acting_as(Acting(mine.person_id, Via.API, mine.tenant_id, operation=operation)):
            await asyncio.to_thread(
                gateway.sessions.revoke,
                mine.tenant_id,
                form.get("session", ""),
                mine.person_id,
                mine.person_id,
            )
        await gateway.access.refresh()
        await _go(send, "/console")

    async def _own(self, scope: Scope, receive: Receive) -> tuple[str, dict[str, str]]:
        """What the browser shows, and the form that our own page sent."""
        _, cookies = self._able()
        cookies.check_same_origin(scope)
        raw = await read_body(scope, receive, _MAX_FORM_BYTES, self._gateway.room)
        self._gateway.room.give_back(len(raw))
        form = _fields(raw.decode("latin-1"))
        secret = cookies.session_of(scope) or ""
        check_proof(form.get("csrf"), self._gateway.sessions.proof(secret))
        return secret, form

    async def _shown(self, scope: Scope, session: Session) -> dict[str, Any]:
        gateway = self._gateway
        people, tenant = gateway.people, gateway.tenants.find(session.tenant_id)
        rights = [] if people is None else people.rights_of(session)
        provider = None if people is None else people.called(session.issuer)
        found = await asyncio.to_thread(
            gateway.store.sessions, session.tenant_id, gateway.clock.wall_us(), session.person_id
        )
        return {
            "name": session.name or session.person_id,
            "person": session.person_id,
            "tenant": tenant.name if tenant else "",
            "provider": session.issuer if provider is None else provider[1].called,
            "environments": await asyncio.to_thread(self._environments, scope, session, rights),
            "sessions": [_shown_session(each, session) for each in found],
        }

    def _environments(
        self, scope: Scope, session: Session, rights: Sequence[Granted]
    ) -> list[dict[str, Any]]:
        gateway, found = self._gateway, []
        address = admission.peer_of(gateway, scope)
        for each in rights:
            if each.environment not in gateway.keyring.environments:
                continue
            who = Principal(
                session.person_id, session.tenant_id, each.environment, each.scopes, None,
                groups=session.groups,
            )  # fmt: skip
            routes = gateway.directory.routes(session.tenant_id, each.environment)
            models = [
                alias
                for alias, route in routes.items()
                if gateway.policies.decide(who, Action.INFER, route, address).is_allowed
            ]
            roles = sorted(ROLES[scope].value for scope in each.scopes)
            found.append({"name": each.environment.value, "roles": roles, "models": sorted(models)})
        return found

    def _able(self) -> tuple[Login, Cookies]:
        login, cookies = self._gateway.login, self._gateway.cookies
        if login is None or cookies is None:
            raise UserError(
                Code.NOT_FOUND,
                "Nobody logs in here with a browser: set `server.public_url`, and `client_id` of "
                "an identity provider.",
            )
        return login, cookies

    def _providers(self) -> list[str]:
        people = self._gateway.people
        if people is None or self._gateway.cookies is None:
            return []
        return [each.called for each in people.providers if each.client_id is not None]

    async def _show(
        self, send: Send, status: int, page: str, headers: Iterable[Header] = (), **words: Any
    ) -> None:
        text = self._pages.get_template(page).render(**words)
        await _send(send, status, _HTML, text.encode(), headers)


def _shown_session(session: Session, own: Session) -> dict[str, Any]:
    return {
        "id": session.id,
        "kind": session.kind.value,
        "is_this": session.id == own.id,
        "created": _minute(session.created_at_us),
        "used": _minute(session.last_used_at_us),
        "ends": _minute(session.expires_at_us),
    }


def _minute(at_us: int) -> str:
    return datetime.fromtimestamp(at_us / 1e6, UTC).strftime("%Y-%m-%d %H:%M")


def _query(scope: Scope) -> dict[str, str]:
    text = scope["query_string"].decode("latin-1")
    if len(text) > _MAX_QUERY:
        raise UserError(Code.INVALID_VALUE, "The query is too long: begin again at /console.")
    return _fields(text)


def _fields(text: str) -> dict[str, str]:
    """Raises `UserError` where one is there twice: which would count?"""
    try:
        pairs = parse_qsl(text, keep_blank_values=True, max_num_fields=_MAX_FIELDS)
    except ValueError:
        pairs = []
    found = dict(pairs)
    if len(found) < len(pairs):
        raise UserError(Code.INVALID_VALUE, "A field is sent twice: begin again at /console.")
    return found


async def _go(send: Send, where: str, headers: Iterable[Header] = ()) -> None:
    await _send(send, 303, _HTML, b"", [(b"location", where.encode()), *headers])


async def _send(
    send: Send, status: int, kind: bytes, content: bytes, headers: Iterable[Header] = ()
) -> None:
    length = b"%d" % len(content)
    own = [(b"content-type", kind), (b"content-length", length), *_GUARDS, *headers]
    await send({"type": "http.response.start", "status": status, "headers": own})
    await send({"type": "http.response.body", "body": content})
