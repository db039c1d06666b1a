"""Logging in: from a browser to the provider and back, and from a provider's token to a
session of ours.

Nothing is kept here between the two halves of a login. What belongs to it (state, nonce and
verifier) follows from a random value that only the browser's cookie has, and from the pepper;
so that any process can end what another began, and no other browser can.
"""

import asyncio
import hmac
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from freehold.config.schema import ProviderSettings
from freehold.core.acts import Acting, Via, acting_as
from freehold.core.errors import Code, UserError
from freehold.core.secret import Secret
from freehold.core.session import Session, SessionKind
from freehold.secure import oidc
from freehold.secure.keys import Keyring
from freehold.secure.oauth import Attempt, Client, authorization_url, exchange
from freehold.secure.oidc import Login as Asked
from freehold.secure.oidc import Provider, document
from freehold.secure.sessions import Newcomer, Sessions
from freehold.serve.people import People, known

CALLBACK = "/console/callback"
ATTEMPT_S = 600
_OPERATIONS = {
    SessionKind.BROWSER: f"GET {CALLBACK}",
    SessionKind.COMMAND: "POST /admin/v1/sessions",
}
_RANDOM_BYTES = 32
_MAX_CODE = 4096


@dataclass(frozen=True, slots=True)
class Begun:
    """Where the browser goes, and what it remembers meanwhile."""

    url: str
    cookie: str


class Login:
    """`origin` is where browsers find this gateway; None: only commands log in."""

    def __init__(
        self, people: People, sessions: Sessions, keyring: Keyring, origin: str | None
    ) -> None:
        """Raises `UserError(CONFIG_INVALID)` for a client secret that cannot be read."""
        self._people = people
        self._sessions = sessions
        self._keyring = keyring
        self._clock = keyring.clock
        self._origin = origin
        self._secrets = {
            each.issuer: _secret_in(each.client_secret_file)
            for each in people.providers
            if each.client_secret_file is not None
        }

    async def begin(self, name: str) -> Begun:
        """Raises `UserError`: `NOT_FOUND`, `PROVIDER_UNREACHABLE`."""
        provider, settings = self._browser_provider(name)
        about = await provider.about()
        if about.authorization is None:
            raise _failed("the provider does not say where people log in")
        random = secrets.token_urlsafe(_RANDOM_BYTES)
        ends_s = self._clock.wall_us() // 1_000_000 + ATTEMPT_S
        cookie = f"{settings.called}~{ends_s}~{random}"
        cookie = f"{cookie}~{self._keyring.keyed('login', cookie)}"
        client = self._client(settings, about.takes_secret_in_body)
        attempt = self._attempt(random)
        return Begun(
            authorization_url(about.authorization, client, settings.scopes, attempt), cookie
        )

    async def finish(
        self, query: Mapping[str, str], cookie: str | None, replaces: str | None
    ) -> tuple[Session, Secret]:
        """What the browser came back with, for a session; the one that it had ends. Raises
        `UserError`: `LOGIN_FAILED`, and what `Provider.identity` and `People.whose` raise."""
        name, random = self._opened(cookie)
        attempt = self._attempt(random)
        if not hmac.compare_digest(query.get("state", "").encode(), attempt.state.encode()):
            raise _failed("it was begun elsewhere")
        provider, settings = self._browser_provider(name)
        if query.get("iss", settings.issuer) != settings.issuer:  # RFC 9207
            raise _failed("another provider answers than was asked")
        if "error" in query:
            raise _failed(f"the provider says {query['error'][:100]!r}")
        code = query.get("code", "")
        if not 0 < len(code) <= _MAX_CODE:
            raise _failed("the provider sent no code")
        return await self._exchanged(provider, settings, code, attempt, replaces)

    async def exchange(self, token: str) -> tuple[Session, Secret]:
        """An ID token that a command got, for a session of its own, once. Raises what
        `Provider.identity` and `People.whose` raise, and `CONFLICT`."""
        provider, settings = self._people.by_token(token)
        client = settings.command_client
        if client is None:
            raise oidc.no_provider()
        claims = await provider.identity(token, Asked(client))
        return await self._open(settings, claims, SessionKind.COMMAND, token, None)

    async def _exchanged(
        self,
        provider: Provider,
        settings: ProviderSettings,
        code: str,
        attempt: Attempt,
        replaces: str | None,
    ) -> tuple[Session, Secret]:
        import aiohttp  # 6 MB, and only who logs in needs it

        about = await provider.about()
        if about.token is None or settings.client_id is None:
            raise _failed("the provider does not say where codes are exchanged")
        client = self._client(settings, about.takes_secret_in_body)
        form, headers = client.signed(exchange(code, attempt))
        try:
            async with provider.http() as http:
                asking = http.post(about.token, data=form, headers=headers, allow_redirects=False)
                answer = await document(asking, (200, 400, 401))
        except (aiohttp.ClientError, TimeoutError, ValueError):
            raise _failed("the provider did not take the code") from None
        if "error" in answer:
            raise _failed(f"the provider did not take the code ({str(answer['error'])[:60]!r})")
        token, access = answer.get("id_token"), answer.get("access_token")
        if not isinstance(token, str):
            raise _failed("the provider sent no ID token: its scopes must have openid")
        asked = Asked(
            settings.client_id, attempt.nonce, access if isinstance(access, str) else None
        )
        claims = await provider.identity(token, asked)
        return await self._open(settings, claims, SessionKind.BROWSER, token, replaces)

    async def _open(
        self,
        settings: ProviderSettings,
        claims: oidc.Claims,
        kind: SessionKind,
        token: str,
        replaces: str | None,
    ) -> tuple[Session, Secret]:
        tenant_id, person_id = self._people.whose(settings, claims)
        who = Newcomer(claims, tenant_id, person_id, kind)
        acting = Acting(
            person_id,
            Via.API,
            tenant_id,
            operation=_OPERATIONS[kind],
            personal=dict(known(claims.issuer, claims.subject, claims.email)),
        )
        with acting_as(acting):
            return await asyncio.to_thread(self._sessions.open, who, token, replaces)

    def _browser_provider(self, name: str) -> tuple[Provider, ProviderSettings]:
        found = self._people.called(name)
        if found is None or found[1].client_id is None or self._origin is None:
            raise UserError(
                Code.NOT_FOUND, f"Nobody logs in here with {name[:60]!r}: see /console."
            )
        return found

    def _client(self, settings: ProviderSettings, secret_in_body: bool) -> Client:
        secret = self._secrets.get(settings.issuer)
        return Client(settings.client_id or "", secret, secret_in_body)

    def _attempt(self, random: str) -> Attempt:
        keyed = self._keyring.keyed
        return Attempt(
            keyed("login state", random),
            keyed("login nonce", random),
            keyed("login verifier", random),
            f"{self._origin}{CALLBACK}",
        )

    def _opened(self, cookie: str | None) -> tuple[str, str]:
        """The provider's name and the random value, if they are ours and recent."""
        signed, _, proof = (cookie or "").rpartition("~")
        if not hmac.compare_digest(proof.encode(), self._keyring.keyed("login", signed).encode()):
            raise _failed("this browser did not begin it, or began another since")
        name, ends_s, random = signed.split("~")
        if int(ends_s) < self._clock.wall_us() // 1_000_000:
            raise _failed("it took too long")
        return name, random


def _secret_in(file: str) -> Secret:
    try:
        secret = Path(file).expanduser().read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError):
        secret = ""
    if not secret:
        raise UserError(
            Code.CONFIG_INVALID,
            f"identity_providers: no client secret can be read from {file}: put it there, "
            "readable by this user.",
        )
    return Secret(secret)


def _failed(why: str) -> UserError:
    return UserError(Code.LOGIN_FAILED, f"This login did not work: {why}. Begin it again.")
