"""An OpenID provider on this machine, for tests: discovery, keys, tokens."""

import contextlib
import json
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

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

    async def _discovery(self, request: web.Request) -> web.Response:
        if self.is_down:
            raise web.HTTPServiceUnavailable
        return web.json_response({"issuer": self.url, "jwks_uri": f"{self.url}/keys", **self.about})

    async def _keys(self, request: web.Request) -> web.Response:
        self.asked += 1
        return web.json_response({"keys": [*map(public, self.keys.items()), *self.more]})

    def app(self) -> web.Application:
        app = web.Application()
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
