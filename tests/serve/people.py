"""People who log in to a whole gateway: with a browser that keeps cookies, or by a command."""

import contextlib
import re
import secrets
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx2
import pytest
import pytest_asyncio

from freehold.core.session import Session, SessionKind
from tests.harness import Running, running
from tests.issuer import AUDIENCE, Issuer, serving, token

CLIENT = "console"
COOKIE = "freehold-session"


@dataclass
class Person:
    """A browser, which follows redirects one by one."""

    http: httpx2.AsyncClient
    issuer: Issuer

    async def go(self, path: str) -> httpx2.Response:
        """To the end of the redirects, at the provider and back."""
        response = await self.http.get(path)
        for _ in range(6):
            if not response.has_redirect_location:
                break
            response = await self.http.get(response.headers["location"])
        return response

    async def log_in(self, **who: Any) -> httpx2.Response:
        self.issuer.who = who
        return await self.go("/console/login")

    async def send(self, path: str, *, origin: str | None = None, **form: str) -> httpx2.Response:
        """A form, as a page of this site sends it."""
        headers = {"origin": origin or str(self.http.base_url).rstrip("/")}
        return await self.http.post(path, data=form, headers=headers)

    @property
    def cookie(self) -> str | None:
        return self.http.cookies.get(COOKIE)


def proof(page: httpx2.Response) -> str:
    """What a page's own forms carry."""
    found = re.search(r'name="csrf" value="([0-9a-f]{64})"', page.text)
    assert found, page.text
    return found[1]


@contextlib.asynccontextmanager
async def browsing(world: Running, issuer: Issuer) -> AsyncIterator[Person]:
    async with httpx2.AsyncClient(base_url=world.url, timeout=30) as http:
        yield Person(http, issuer)


@contextlib.asynccontextmanager
async def people(
    folder: Path, *, provider: Any = (), issuer: Issuer | None = None, **more: Any
) -> AsyncIterator[tuple[Running, Issuer]]:
    """Of the group `ml` who may use models in dev and prod, and of `boss` who administers."""
    async with contextlib.AsyncExitStack() as stack:
        if issuer is None:
            issuer = await stack.enter_async_context(serving())
        given = {
            "name": "corp",
            "issuer": issuer.url,
            "audiences": [AUDIENCE],
            "client_id": CLIENT,
            "access": [
                {"group": "ml", "roles": ["user"], "environments": ["dev", "prod"]},
                {"group": "boss", "roles": ["user", "admin"]},
            ],
            **dict(provider),
        }
        options = {"public": True, **more}
        world = await stack.enter_async_context(
            running(folder, identity_providers=[given], **options)
        )
        await world.replica.ensure_ready(20)
        yield world, issuer


async def command_session(world: Running, issuer: Issuer, **who: Any) -> dict[str, Any]:
    """What a command gets for an ID token of its login."""
    shown = token(issuer, aud=CLIENT, jti=secrets.token_hex(8), **who)
    async with httpx2.AsyncClient(base_url=world.url) as http:
        answer = await http.post("/admin/v1/sessions", headers=bearer(shown))
    assert answer.status_code == 201, answer.text
    made: dict[str, Any] = answer.json()
    return made


Place = tuple[Running, Issuer]


def place_of(**options: Any) -> Any:
    """A gateway and a provider that the tests of a module share, as a fixture."""

    @pytest_asyncio.fixture(scope="module", loop_scope="module", name="place")
    async def _place(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Place]:
        async with people(tmp_path_factory.mktemp("place"), **options) as found:
            yield found

    return _place


def session(tenant_id: str, **more: Any) -> Session:
    """As a login of Ada's with a command left it."""
    made = Session(
        id="ses_01", tenant_id=tenant_id, person_id="per_" + "b" * 26,
        kind=SessionKind.COMMAND, issuer="https://login.example", subject="ada",
        groups=frozenset({"ml"}), tenant_value=None, name="ada@example.org", issued_at_us=1,
        token_expires_at_us=2**50, created_at_us=2, last_used_at_us=2, expires_at_us=2**51,
    )  # fmt: skip
    return replace(made, **more)


def bearer(secret: str) -> dict[str, str]:
    return {"authorization": f"Bearer {secret}"}
