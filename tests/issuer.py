"""An OpenID provider on this machine, for tests: discovery, keys, tokens, and logins that
begin in a browser or with a device. It holds clients to PKCE and takes each code once."""

import base64
import contextlib
import hashlib
import json
import secrets
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

import jwt
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

RSA, RSA_NEW, RSA_FOREIGN = (rsa.generate_private_key(65537, 2048) for _ in range(3))
EC = ec.generate_private_key(ec.SECP256R1())
ED = ed25519.Ed25519PrivateKey.generate()
AUDIENCE = "freehold"


@dataclass
class Issuer:
    """What it says can be changed, and it can be down."""

    url: str = ""
    keys: dict[str, Any] = field(default_factory=lambda: {"rsa": RSA, "ec": EC, "ed": ED})
    more: list[dict[str, Any]] = field(default_factory=list)
    about: dict[str, Any] = field(default_factory=dict)
    asked: int = 0
    is_down: bool = False
    who: dict[str, Any] = field(default_factory=dict)  # what the next ID tokens say besides
    client_secret: str | None = None
    redirects: set[str] = field(default_factory=set)  # empty: any
    codes: dict[str, dict[str, str]] = field(default_factory=dict)
    devices: dict[str, str] = field(default_factory=dict)  # pending, slow_down, ready, denied
    polled_at_s: list[float] = field(default_factory=list)
    refresh_tokens: set[str] = field(default_factory=set)

    async def _discovery(self, request: web.Request) -> web.Response:
        if self.is_down:
            raise web.HTTPServiceUnavailable
        said = {
            "issuer": self.url,
            "jwks_uri": f"{self.url}/keys",
            "authorization_endpoint": f"{self.url}/authorize",
            "token_endpoint": f"{self.url}/token",
            "device_authorization_endpoint": f"{self.url}/device",
            **self.about,
        }
        return web.json_response({name: value for name, value in said.items() if value is not ...})

    async def _keys(self, request: web.Request) -> web.Response:
        self.asked += 1
        return web.json_response({"keys": [*map(public, self.keys.items()), *self.more]})

    async def _authorize(self, request: web.Request) -> web.Response:
        """Whoever comes is `who`, without being asked."""
        asked = dict(request.query)
        if self.redirects and asked["redirect_uri"] not in self.redirects:
            return web.json_response({"error": "redirect_uri"}, status=400)
        if asked["code_challenge_method"] != "S256" or asked["response_type"] != "code":
            return web.json_response({"error": "invalid_request"}, status=400)
        code = secrets.token_urlsafe(16)
        self.codes[code] = asked
        back = urlencode({"code": code, "state": asked["state"]})
        raise web.HTTPFound(f"{asked['redirect_uri']}?{back}")

    async def _token(self, request: web.Request) -> web.Response:
        form = {name: str(value) for name, value in (await request.post()).items()}
        client = self._client(request, form)
        if client is None:
            return web.json_response({"error": "invalid_client"}, status=401)
        if form["grant_type"] == "authorization_code":
            asked = self.codes.pop(form["code"], None)
            digest = hashlib.sha256(form.get("code_verifier", "").encode()).digest()
            shown = base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
            if (
                asked is None
                or asked["redirect_uri"] != form["redirect_uri"]
                or asked["client_id"] != client
                or asked["code_challenge"] != shown
            ):
                return web.json_response({"error": "invalid_grant"}, status=400)
            return self._answer(client, nonce=asked["nonce"])
        if form["grant_type"] == "refresh_token":
            if form["refresh_token"] not in self.refresh_tokens:
                return web.json_response({"error": "invalid_grant"}, status=400)
            self.refresh_tokens.remove(form["refresh_token"])
            return self._answer(client)
        return self._device_token(client, form["device_code"])

    def _device_token(self, client: str, code: str) -> web.Response:
        self.polled_at_s.append(time.monotonic())
        state = self.devices.get(code, "expired")
        if state == "ready":
            del self.devices[code]
            return self._answer(client)
        if state == "slow_down":
            self.devices[code] = "ready"
        error = {
            "pending": "authorization_pending",
            "slow_down": "slow_down",
            "denied": "access_denied",
        }.get(state, "expired_token")
        return web.json_response({"error": error}, status=400)

    def _client(self, request: web.Request, form: dict[str, str]) -> str | None:
        basic = request.headers.get("authorization", "")
        if not basic:
            return form.get("client_id") if self.client_secret is None else None
        name, _, secret = base64.b64decode(basic.removeprefix("Basic ")).decode().partition(":")
        return name if secret == self.client_secret else None

    def _answer(self, client: str, **more: Any) -> web.Response:
        access = secrets.token_urlsafe(16)
        half = base64.urlsafe_b64encode(hashlib.sha256(access.encode()).digest()[:16])
        said = {
            "aud": client,
            "at_hash": half.rstrip(b"=").decode(),
            "jti": secrets.token_hex(8),
            **more,
            **self.who,
        }
        fresh = secrets.token_urlsafe(16)
        self.refresh_tokens.add(fresh)
        return web.json_response(
            {
                "id_token": token(self, **said),
                "access_token": access,
                "refresh_token": fresh,
                "token_type": "Bearer",
            }
        )

    async def _device(self, request: web.Request) -> web.Response:
        code = secrets.token_urlsafe(16)
        self.devices[code] = "pending"
        return web.json_response(
            {
                "device_code": code,
                "user_code": "WDJB-MJHT",
                "verification_uri": f"{self.url}/activate",
                "expires_in": 60,
                "interval": 1,
            }
        )

    async def _activate(self, request: web.Request) -> web.Response:
        """Who has the code says yes, and the first poll after that comes too soon."""
        self.devices = dict.fromkeys(self.devices, "slow_down")
        return web.Response(text="Done.")

    def app(self) -> web.Application:
        app = web.Application()
        app.router.add_get("/authorize", self._authorize)
        app.router.add_post("/token", self._token)
        app.router.add_post("/device", self._device)
        app.router.add_get("/activate", self._activate)
        app.router.add_get("/.well-known/openid-configuration", self._discovery)
        app.router.add_get("/keys", self._keys)
        return app


def public(named: tuple[str, Any]) -> dict[str, Any]:
    name, key = named
    kind, algorithm = {
        rsa.RSAPrivateKey: (jwt.algorithms.RSAAlgorithm, "RS256"),
        ec.EllipticCurvePrivateKey: (jwt.algorithms.ECAlgorithm, "ES256"),
        ed25519.Ed25519PrivateKey: (jwt.algorithms.OKPAlgorithm, "EdDSA"),
    }[next(base for base in (rsa.RSAPrivateKey, ec.EllipticCurvePrivateKey,
                             ed25519.Ed25519PrivateKey) if isinstance(key, base))]  # fmt: skip
    made: dict[str, Any] = json.loads(kind.to_jwk(key.public_key()))
    return {**made, "kid": name, "use": "sig", "alg": algorithm}


@contextlib.asynccontextmanager
async def serving() -> AsyncIterator[Issuer]:
    issuer = Issuer()
    runner = web.AppRunner(issuer.app())
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    issuer.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield issuer
    finally:
        await runner.cleanup()


def content(issuer: Issuer, now_s: float, **changes: Any) -> dict[str, Any]:
    """A sound token's; `...` leaves something out."""
    whole = {
        "iss": issuer.url, "sub": "ada", "aud": AUDIENCE, "iat": int(now_s),
        "exp": int(now_s) + 300, "groups": ["ml", "all"], "email": "ada@example.org", **changes,
    }  # fmt: skip
    return {name: value for name, value in whole.items() if value is not ...}


def token(
    issuer: Issuer, now_s: float | None = None, key: Any = RSA, algorithm: str = "RS256",
    headers: dict[str, Any] | None = None, **changes: Any,
) -> str:  # fmt: skip
    merged = {"kid": "rsa", **(headers or {})}
    given = {name: value for name, value in merged.items() if value is not None}
    said = content(issuer, time.time() if now_s is None else now_s, **changes)
    return jwt.encode(said, key, algorithm, headers=given)
