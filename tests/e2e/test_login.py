"""Logging in at a real OpenID provider that knows nothing of us, over HTTP and with a real
browser. It does not hold clients to PKCE, and has neither devices nor clients without a
secret: `tests/issuer.py` does and has."""

import asyncio
import contextlib
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx2
import pytest

from tests.browser import browser
from tests.harness import Running
from tests.serve.people import COOKIE, people, proof

_START_S = 30


@contextlib.asynccontextmanager
async def _provider(*options: str) -> AsyncIterator[str]:
    """As a process of its own. It has two people."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    people = (
        '{"sub": "ada", "email": "ada@example.org", "groups": ["ml"]}',
        '{"sub": "eve", "email": "eve@example.org", "groups": ["sales"]}',
    )
    words = [word for each in people for word in ("--user-claims", each)]
    process = subprocess.Popen(  # noqa: ASYNC220
        [sys.executable, "-m", "oidc_provider_mock", "--port", str(port), *words, *options],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    url = f"http://localhost:{port}"
    try:
        async with asyncio.timeout(_START_S), httpx2.AsyncClient() as http:
            while True:
                with contextlib.suppress(httpx2.HTTPError):
                    await http.get(f"{url}/.well-known/openid-configuration")
                    break
                await asyncio.sleep(0.1)
        yield url
    finally:
        process.kill()
        process.wait()


@contextlib.asynccontextmanager
async def _world(folder: Path) -> AsyncIterator[Running]:
    secret = folder / "secret"  # this provider knows no client without one
    secret.write_text("anything")
    async with _provider("--require-nonce") as url:
        there: Any = SimpleNamespace(url=url)
        given = {"client_secret_file": str(secret)}
        async with people(folder / "home", issuer=there, provider=given) as (world, _):
            yield world


async def test_a_real_provider_lets_people_in_with_what_their_groups_may(tmp_path: Path) -> None:
    async with (
        _world(tmp_path) as world,
        httpx2.AsyncClient(base_url=world.url, timeout=30) as http,
    ):
        for who, models, said in (("ada", True, "user"), ("eve", False, "None of your groups")):
            asked = await http.get("/console/login")
            answered = await http.post(asked.headers["location"], data={"sub": who})
            back = await http.get(answered.headers["location"])
            assert back.headers["location"] == "/console", back.text
            page = await http.get("/console")
            assert f"{who}@example.org" in page.text
            assert said in page.text
            assert ("fake-model" in page.text) is models
            listed = await http.get("/v1/models")
            assert listed.is_success is models
        origin = {"origin": world.url}
        await http.post("/console/logout", data={"csrf": proof(page)}, headers=origin)
        assert http.cookies.get(COOKIE) is None
        denied = await http.get("/console/login")
        answered = await http.post(denied.headers["location"], data={"action": "deny"})
        refused = await http.get(answered.headers["location"])
        assert refused.status_code == 400
        assert "Begin it again" in refused.text  # it does not even send the state back


@pytest.mark.slow
async def test_a_browser_takes_somebody_there_and_back(tmp_path: Path) -> None:
    """What only a browser does: cookies, redirects to another site and back, the policy of the
    page, forms and their origin."""
    async with _world(tmp_path) as world, browser(tmp_path / "profile") as page:
        await page.sized(390, 844)
        await page.go(f"{world.url}/console")
        await page.click("a.button")
        assert "Authorize Client" in await page.text()
        await page.click("button[value=ada]")
        text = await page.text()
        for shown in ("ada@example.org", "fake-model", "this one"):
            assert shown in text
        wide = "document.documentElement.scrollWidth > document.documentElement.clientWidth"
        assert not await page.value(wide), "nothing sticks out on a phone"
        assert await page.value("document.cookie") == "", "no script reads the session"
        assert await page.value("document.scripts.length") == 0
        ours = [url for url in page.fetched if url.startswith(world.url)]
        assert {url.split("?")[0].removeprefix(world.url) for url in ours} <= {
            "/console", "/console/login", "/console/callback", "/console/style.css",
        }  # fmt: skip
        assert not [said for said in page.complaints if world.url in said]
        await page.click("form[action='/console/sessions/end'] button")
        assert "With corp" in await page.text()
        await page.click("a.button")
        await page.click("button[value=ada]")
        await page.click("form[action='/console/logout'] button")
        assert "With corp" in await page.text()
        found = world.gateway.store.sessions(world.tenant_id, world.gateway.clock.wall_us())
        assert found == []
