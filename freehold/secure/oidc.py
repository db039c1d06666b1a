"""Tokens of an OpenID provider, checked without asking it each time.

A token counts when one of the provider's own keys signed it with an algorithm that the
settings name, for this audience, now. What a token said is remembered under the SHA-256 of
all of it, together with its end, which is checked at each use.
"""

import asyncio
import base64
import hashlib
import ssl
from collections import OrderedDict
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import jwt
import orjson

from freehold.core.clock import Clock
from freehold.core.errors import Code, UserError
from freehold.secure.oauth import is_safe

if TYPE_CHECKING:
    import aiohttp

# Signatures with a public key only: with an HMAC whoever can check a token can make one.
ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "EdDSA")
LEEWAY_S = 60
_MAX_TOKEN_CHARACTERS, _MAX_DOCUMENT_BYTES, _MAX_KEYS = 16_384, 1_000_000, 100
_ID_TYPES = frozenset({None, "jwt"})
_TYPES = _ID_TYPES | {"at+jwt", "application/at+jwt"}  # RFC 9068
_FETCH_S = 10.0
_REFRESH_S = 60.0  # between two fetches for a key that is not known
_MAX_AGE_S = 24 * 3600.0  # keys of a provider that cannot be reached count so long
_REMEMBERED = 10_000


@dataclass(frozen=True, slots=True)
class Trusted:
    """A provider as the settings name it: whose tokens, for whom, signed how. `clients` are
    those that its ID tokens may be for."""

    issuer: str
    audiences: tuple[str, ...]
    algorithms: tuple[str, ...] = ("RS256", "ES256")
    groups_claim: str = "groups"
    tenant_claim: str | None = None
    clients: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Claims:
    """What a token says of its bearer. `subject` is unique within `issuer` only; `tenant` is
    what the provider calls the tenant, if it serves several."""

    issuer: str
    subject: str
    groups: frozenset[str]
    email: str | None
    expires_at_us: int
    issued_at_us: int = 0
    tenant: str | None = None
    name: str | None = None


@dataclass(frozen=True, slots=True)
class About:
    """What a provider says of itself: where it is asked for what, all at https addresses."""

    authorization: str | None
    token: str | None
    device: str | None
    takes_secret_in_body: bool  # and in no header


@dataclass(frozen=True, slots=True)
class Login:
    """What an ID token must fit: the client that asked for it, and what it was asked with.
    The access token is the one that came along."""

    client: str
    nonce: str | None = None
    access_token: str | None = None


@dataclass(frozen=True, slots=True)
class _Keys:
    by_id: Mapping[str | None, jwt.PyJWK]
    about: About
    fetched_at_s: float


class Provider:
    """Used on the event loop. Nothing is fetched before the first token comes."""

    def __init__(self, trusted: Trusted, clock: Clock, trust: ssl.SSLContext | None = None) -> None:
        """Raises `UserError(CONFIG_INVALID)` for an issuer that is no https URL, and for an
        algorithm that is not in `ALGORITHMS`."""
        _check(trusted)
        self.trusted = trusted
        self._clock = clock
        self._trust = trust or ssl.create_default_context()
        self._keys: _Keys | None = None
        self._tried_at_s: float | None = None
        self._fetching = asyncio.Lock()
        self._known: OrderedDict[bytes, Claims] = OrderedDict()

    async def claims(self, token: str) -> Claims:
        """Raises `UserError`: `INVALID_TOKEN`, `EXPIRED_TOKEN`, or `PROVIDER_UNREACHABLE`
        while its keys cannot be fetched and none that count are known."""
        name = hashlib.sha256(token.encode()).digest()
        found = self._known.get(name)
        if found is None:
            found = self._said(await self._read(token, self.trusted.audiences, _TYPES))
            self._known[name] = found
            if len(self._known) > _REMEMBERED:
                self._known.popitem(last=False)
        if found.expires_at_us + LEEWAY_S * 1_000_000 <= self._clock.wall_us():
            self._known.pop(name, None)
            raise _expired()
        return found

    async def identity(self, token: str, login: Login) -> Claims:
        """What an ID token says, of a login that this installation asked for. Raises as
        `claims` does, `INVALID_TOKEN` also for another login's."""
        if login.client not in self.trusted.clients:
            raise _invalid("it is for somebody else")
        content = await self._read(token, (login.client,), _ID_TYPES)
        for_ = content.get("azp", login.client if _is_alone(content["aud"]) else None)
        if for_ != login.client:  # OpenID Connect Core 1.0, section 3.1.3.7
            raise _invalid("it is for somebody else")
        if login.nonce is not None and content.get("nonce") != login.nonce:
            raise _invalid("it belongs to another login")
        if login.access_token is not None and "at_hash" in content:
            whole = hashlib.new(_hash_of(token), login.access_token.encode()).digest()
            half = base64.urlsafe_b64encode(whole[: len(whole) // 2]).rstrip(b"=").decode()
            if content["at_hash"] != half:
                raise _invalid("it does not belong to the access token that came with it")
        return self._said(content)

    def http(self) -> "aiohttp.ClientSession":
        """For one exchange with it."""
        import aiohttp

        return aiohttp.ClientSession(
            timeout=aiohttp.ClientTimeout(total=_FETCH_S),
            cookie_jar=aiohttp.DummyCookieJar(),
            connector=aiohttp.TCPConnector(ssl=self._trust),
        )

    async def about(self) -> About:
        """Raises `UserError(PROVIDER_UNREACHABLE)` like `claims`."""
        keys, now = self._keys, self._clock.monotonic_s()
        if keys is None or now - keys.fetched_at_s > _MAX_AGE_S:
            keys = await self._fetched()
        if keys is None:
            raise self._unreachable()
        return keys.about

    async def _read(
        self, token: str, audiences: Sequence[str], types: Collection[str | None]
    ) -> Mapping[str, Any]:
        if len(token) > _MAX_TOKEN_CHARACTERS:
            raise _invalid("it is too long")
        try:
            header = jwt.get_unverified_header(token)
        except jwt.PyJWTError:
            raise _invalid("it is not a signed JWT") from None
        _check_header(header, self.trusted.algorithms, types)
        key = await self._key(header.get("kid"))
        if key.algorithm_name != header["alg"]:
            raise _invalid("its key is for another algorithm")
        return self._content(token, key, audiences)

    def _content(self, token: str, key: jwt.PyJWK, audiences: Sequence[str]) -> Mapping[str, Any]:
        now_s = self._clock.wall_us() / 1_000_000
        try:
            content: Mapping[str, Any] = jwt.decode(
                token,
                key,
                algorithms=list(self.trusted.algorithms),
                audience=list(audiences),
                issuer=self.trusted.issuer,
                # The times are held against our own clock below.
                options={
                    "require": ["exp", "iat", "iss", "aud", "sub"],
                    "verify_exp": False,
                    "verify_iat": False,
                    "verify_nbf": False,
                },
            )
        except jwt.PyJWTError as error:
            raise _invalid(_reason(error)) from None
        expires = _time(content, "exp")
        if expires + LEEWAY_S <= now_s:
            raise _expired()
        if max(_time(content, "iat"), _time(content, "nbf", missing=0)) > now_s + LEEWAY_S:
            raise _invalid("it is not valid yet: compare the clocks of provider and gateway")
        subject = content["sub"]
        if not subject or len(subject) > 255:  # OpenID Connect Core 1.0, section 2
            raise _invalid("its subject is empty or too long")
        return content

    def _said(self, content: Mapping[str, Any]) -> Claims:
        """Of a token that is believed."""
        tenant = self.trusted.tenant_claim
        return Claims(
            self.trusted.issuer,
            content["sub"],
            _groups(content.get(self.trusted.groups_claim)),
            _text(content.get("email")),
            int(content["exp"] * 1_000_000),
            int(content["iat"] * 1_000_000),
            None if tenant is None else _text(content.get(tenant)),
            _text(content.get("name")) or _text(content.get("preferred_username")),
        )

    async def _key(self, id: str | None) -> jwt.PyJWK:
        """Without a name it is the only one there is: OpenID Connect Core 1.0, section 10.1."""
        now = self._clock.monotonic_s()
        keys = self._keys
        if keys is None or now - keys.fetched_at_s > _MAX_AGE_S or not _holds(keys, id, now):
            keys = await self._fetched()
        if keys is None or now - keys.fetched_at_s > _MAX_AGE_S:
            raise self._unreachable()
        found = keys.by_id.get(id)
        if found is None and id is None and len(keys.by_id) == 1:
            (found,) = keys.by_id.values()
        if found is None:
            raise _invalid("its key is not among the provider's")
        return found

    def _unreachable(self) -> UserError:
        return UserError(
            Code.PROVIDER_UNREACHABLE,
            f"The keys of {self.trusted.issuer} cannot be fetched, so its tokens cannot be "
            "checked: try again, or use an API key.",
            retry_after_s=int(_REFRESH_S),
        )

    async def _fetched(self) -> _Keys | None:
        """New keys, at most once a minute however many tokens name keys that are not there."""
        import aiohttp

        async with self._fetching:
            now = self._clock.monotonic_s()
            if self._tried_at_s is not None and now - self._tried_at_s < _REFRESH_S:
                return self._keys
            self._tried_at_s = now
            try:
                self._keys = _Keys(*await _found_at(self.trusted, self.http), now)
            except (aiohttp.ClientError, TimeoutError, ValueError, jwt.PyJWTError):
                return self._keys
            return self._keys


def _holds(keys: _Keys, id: str | None, now_s: float) -> bool:
    """Whether it need not ask again. That the only key is another now, no name tells."""
    if id is not None or id in keys.by_id:
        return id in keys.by_id
    return len(keys.by_id) == 1 and now_s - keys.fetched_at_s < _REFRESH_S


async def _found_at(
    trusted: Trusted, client: "Callable[[], aiohttp.ClientSession]"
) -> tuple[Mapping[str | None, jwt.PyJWK], About]:
    async with client() as http:
        address = trusted.issuer.rstrip("/") + "/.well-known/openid-configuration"
        about = await document(http.get(address, allow_redirects=False))
        if about.get("issuer") != trusted.issuer:
            raise ValueError("the provider calls itself otherwise")
        keys_at = about.get("jwks_uri")
        if not isinstance(keys_at, str) or not is_safe(keys_at):
            raise ValueError("the provider's keys are at no https address")
        found = (await document(http.get(keys_at, allow_redirects=False))).get("keys")
    return _usable(found), _about(about)


def _usable(found: Any) -> Mapping[str | None, jwt.PyJWK]:
    if not isinstance(found, list):
        raise ValueError("the provider has no list of keys")
    made: dict[str | None, jwt.PyJWK] = {}
    for each in found[:_MAX_KEYS]:
        if not isinstance(each, dict) or each.get("use", "sig") != "sig":
            continue
        if each.get("kty") == "oct":  # a shared secret signs for whoever knows it
            continue
        try:
            made[each.get("kid")] = jwt.PyJWK(each)
        except jwt.PyJWTError:
            continue  # of a kind that is not known here: its tokens are refused
    return made


def _about(found: Mapping[str, Any]) -> About:
    def safe(name: str) -> str | None:
        address = found.get(name)
        return address if isinstance(address, str) and is_safe(address) else None

    # Without a list it is `client_secret_basic` alone: OpenID Connect Discovery 1.0, section 3.
    methods = found.get("token_endpoint_auth_methods_supported")
    is_list = isinstance(methods, list) and "client_secret_post" in methods
    return About(
        safe("authorization_endpoint"),
        safe("token_endpoint"),
        safe("device_authorization_endpoint"),
        is_list and "client_secret_basic" not in (methods or ()),
    )


async def document(
    asking: "AbstractAsyncContextManager[aiohttp.ClientResponse]",
    statuses: Collection[int] = (200,),
) -> dict[str, Any]:
    """A bounded answer in JSON. Raises `ValueError` for anything else."""
    async with asking as response:
        if response.status not in statuses:
            raise ValueError("the provider answers with something else")
        text = bytearray()
        async for chunk in response.content.iter_chunked(65_536):
            text += chunk
            if len(text) > _MAX_DOCUMENT_BYTES:
                raise ValueError("the provider's answer does not end")
        found = orjson.loads(text)
    if not isinstance(found, dict):
        raise ValueError("the provider's answer is no object")
    return found


def _check(trusted: Trusted) -> None:
    if not is_safe(trusted.issuer):
        raise UserError(
            Code.CONFIG_INVALID,
            f"The issuer {trusted.issuer[:100]!r} must be an https URL: tokens of a provider "
            "that is asked without TLS prove nothing.",
        )
    unknown = [each for each in trusted.algorithms if each not in ALGORITHMS]
    is_for_nobody = not trusted.audiences and not trusted.clients
    if unknown or not trusted.algorithms or is_for_nobody:
        raise UserError(
            Code.CONFIG_INVALID,
            f"The provider {trusted.issuer} needs an audience, and algorithms out of "
            f"{', '.join(ALGORITHMS)}.",
        )


def _check_header(
    header: Mapping[str, Any], algorithms: Sequence[str], types: Collection[str | None]
) -> None:
    if header.get("alg") not in algorithms:
        raise _invalid("it is signed with an algorithm that is not allowed")
    kind = header.get("typ")
    if (kind.lower() if isinstance(kind, str) else kind) not in types:
        raise _invalid("it is a token of another kind")
    if "crit" in header:
        raise _invalid("it demands an extension that is not known here")


def _time(content: Mapping[str, Any], name: str, missing: float | None = None) -> float:
    value = content.get(name, missing)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 2**40:
        raise _invalid(f"its {name} is no time")
    return value


def _groups(found: Any) -> frozenset[str]:
    if isinstance(found, str):
        return frozenset({found})
    if not isinstance(found, list):
        return frozenset()
    return frozenset(each for each in found if isinstance(each, str))


def _text(found: Any) -> str | None:
    return found if isinstance(found, str) and 0 < len(found) <= 255 else None


def _is_alone(audience: Any) -> bool:
    return isinstance(audience, str) or len(audience) == 1


def _hash_of(token: str) -> str:
    """The hash of a token's own signature, which `at_hash` is made with."""
    number = jwt.get_unverified_header(token)["alg"][2:]
    return f"sha{number}" if number.isdigit() else "sha512"  # EdDSA


def _reason(error: jwt.PyJWTError) -> str:
    if isinstance(error, jwt.InvalidAudienceError):
        return "it is for somebody else"
    if isinstance(error, jwt.InvalidIssuerError):
        return "it is from another issuer"
    if isinstance(error, jwt.MissingRequiredClaimError):
        return f"it does not say {error.claim!r}"
    if isinstance(error, jwt.InvalidSignatureError):
        return "its signature is wrong"
    return "it is not a sound JWT"


def no_provider() -> UserError:
    return _invalid("nobody here trusts its issuer")


def _invalid(why: str) -> UserError:
    return UserError(Code.INVALID_TOKEN, f"This token is not accepted: {why}.")


def _expired() -> UserError:
    return UserError(Code.EXPIRED_TOKEN, "This token has expired: get a new one and try again.")
