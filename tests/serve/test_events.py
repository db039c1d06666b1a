"""What happens is told: to those whose it is, and to webhooks until they take it."""

import asyncio
import contextlib
import datetime
import hmac
import ipaddress
import os
import signal
import sqlite3
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import pytest
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from pydantic import ValidationError

from freehold.config.schema import EventSettings, LimitSettings
from freehold.core.binding import Environment, Scope
from freehold.core.event import Happening, Kind
from freehold.secure.keys import KeyRequest
from freehold.serve.events import events as serve_events
from freehold.serve.events import webhooks
from tests.harness import Running, running

_SECRET = "a secret that the receiver knows"


@dataclass
class Receiver:
    """A service that takes events over TLS, or refuses them."""

    url: str
    settings: dict[str, Any]
    status: int = 200
    taken: list[tuple[dict[str, str], bytes]] = field(default_factory=list)
    asked: int = 0

    async def take(self, request: web.Request) -> web.Response:
        self.asked += 1
        if self.status == 200:
            headers = {name.lower(): value for name, value in request.headers.items()}
            self.taken.append((headers, await request.read()))
        elsewhere = {"location": f"{self.url}/elsewhere"}
        return web.Response(status=self.status, headers=elsewhere)


@contextlib.asynccontextmanager
async def receiving(folder: Path) -> AsyncIterator[Receiver]:
    certificate, context = _tls(folder)
    (folder / "secret").write_text(f"{_SECRET}\n")
    receiver = Receiver("", {})
    app = web.Application()
    app.router.add_post("/{path:.*}", receiver.take)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context)
    await site.start()
    port = runner.addresses[0][1]
    receiver.url = f"https://127.0.0.1:{port}/hook"
    receiver.settings = {
        "webhooks": [
            {
                "url": receiver.url,
                "secret_file": str(folder / "secret"),
                "ca_file": str(certificate),
            }
        ]
    }
    yield receiver
    await runner.cleanup()


def _tls(folder: Path) -> tuple[Path, ssl.SSLContext]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "receiver")])
    now = datetime.datetime.now(datetime.UTC)
    address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([address]), False)
        .sign(key, hashes.SHA256())
    )
    both = folder / "tls.pem"
    both.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        + made.public_bytes(serialization.Encoding.PEM)
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(both)
    certificate = folder / "ca.pem"
    certificate.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    return certificate, context


async def _until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.01)


async def _listed(client: httpx2.AsyncClient, **query: Any) -> list[dict[str, Any]]:
    answer = await client.get("/admin/v1/events", params=query)
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()["data"]
    return found


async def test_an_engine_that_dies_is_told_and_that_it_is_back(tmp_path: Path) -> None:
    async with receiving(tmp_path) as receiver, running(
        tmp_path / "home", events=receiver.settings
    ) as world:  # fmt: skip
        await world.replica.ensure_ready(20)
        world.gateway.notices.look()
        assert world.replica.pid is not None
        os.kill(world.replica.pid, signal.SIGKILL)
        await _until(lambda: bool(receiver.taken))
        headers, body = receiver.taken[0]
        signed = f"{headers['x-freehold-timestamp']}.".encode() + body
        expected = "v1=" + hmac.digest(_SECRET.encode(), signed, "sha256").hex()
        assert headers["x-freehold-signature"] == expected
        assert b'"kind":"engine_down"' in body
        await world.replica.ensure_ready(20)
        world.gateway.notices.look()
        async with world.http() as client:
            everything = await _listed(client, all="true")
            assert [each["kind"] for each in everything] == ["engine_down", "engine_up"]
            assert everything[0]["id"] == headers["x-freehold-event"]
            assert everything[0]["severity"] == "critical"
            loud = await _listed(client, all="true", severity="warning")
            assert loud == everything[:1]
            assert await _listed(client, all="true", after=everything[0]["id"]) == everything[1:]
            assert await _listed(client, all="true", since_us=2**62) == []
            assert await _listed(client) == [], "it belongs to no tenant"
        assert len(receiver.taken) == 1, "who wants warnings is not told that all is well"


async def test_a_webhook_is_told_until_it_takes_it_also_after_a_restart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webhooks, "_FIRST_S", 0.01)
    async with receiving(tmp_path) as receiver:
        for status in (500, 302):  # nowhere else is it sent to
            receiver.status, receiver.asked = status, 0
            async with running(tmp_path / "home", events=receiver.settings) as world:
                world.gateway.events.tell(Happening(Kind.BACKUP_FAILED, "It failed.", str(status)))
                await _until(lambda: receiver.asked >= 2)
        receiver.status = 200
        async with running(tmp_path / "home", events=receiver.settings) as world:
            await _until(lambda: len(receiver.taken) >= 2)
            await world.gateway.events.flush()
            due = world.gateway.store.due_deliveries(2**62, 10)
            assert len(receiver.taken) == 2
            await _until(lambda: not world.gateway.store.due_deliveries(2**62, 10) or not due)
        async with running(tmp_path / "home") as world:
            assert world.gateway.store.due_deliveries(2**62, 10) == []


async def test_while_the_database_takes_nothing_webhooks_are_told_once_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serve_events, "_RETRY_S", 0.05)
    async with receiving(tmp_path) as receiver, running(
        tmp_path / "home", events=receiver.settings
    ) as world:  # fmt: skip
        path = world.home.database
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            world.gateway.events.tell(Happening(Kind.USAGE_NOT_WRITTEN, "The disk refuses."))
            await _until(lambda: bool(receiver.taken))
            other.execute("ROLLBACK")
        async with world.http() as client, asyncio.timeout(20):
            while not await _listed(client, all="true"):
                await asyncio.sleep(0.05)
        assert world.gateway.store.due_deliveries(2**62, 10) == []
        assert len(receiver.taken) == 1


async def test_a_tenant_is_shown_its_own_events_and_no_others(tmp_path: Path) -> None:
    async with running(tmp_path / "home") as world:
        world.gateway.store.add_tenant("ten_b", "b", 1)
        await world.gateway.access.refresh()
        for tenant_id, environment in (
            (world.tenant_id, "dev"), (world.tenant_id, "prod"), ("ten_b", "dev"), (None, None),
        ):  # fmt: skip
            world.gateway.events.tell(
                Happening(
                    Kind.KEY_DEPARTED, "x", f"{tenant_id}/{environment}", tenant_id, environment
                )
            )
        async with world.http() as client:
            assert len(await _listed(client, all="true")) == 4
            assert len(await _listed(client, tenant="b")) == 1
            client.headers["authorization"] = f"Bearer {world.mint(Scope.ADMIN)}"
            (mine,) = await _listed(client)
            assert mine["subject"] == f"{world.tenant_id}/dev"
            refused = await client.get("/admin/v1/events", params={"all": "true"})
            assert refused.status_code == 403
            assert (await client.get("/admin/v1/events?tenant=b")).status_code == 404
            client.headers["authorization"] = f"Bearer {_of(world, 'ten_b')}"
            (theirs,) = await _listed(client)
            assert theirs["subject"] == "ten_b/dev"


def _of(world: Running, tenant_id: str) -> str:
    wanted = KeyRequest(tenant_id, Environment.DEV, "x", frozenset({Scope.ADMIN}))
    _, key = world.gateway.keyring.mint(wanted)
    assert key is not None
    return key.reveal()


async def test_guessing_is_told_once_with_the_key_that_is_guessed_at(tmp_path: Path) -> None:
    limits = {"wrong_keys_a_minute": 2}
    async with (
        running(tmp_path / "home", limits=LimitSettings.model_validate(limits)) as world,
        world.http() as client,
    ):
        wrong = f"fh_dev_{'0' * 26}_x"
        for _ in range(6):
            headers = {"authorization": f"Bearer {wrong}"}
            answer = await client.get("/v1/models", headers=headers)
        assert answer.status_code == 429
        found = world.gateway.store.every_event
        await world.gateway.events.flush()
        (told,) = [each for each in found(10) if each.what.kind is Kind.KEYS_GUESSED]
        assert told.what.subject == f"key_{'0' * 26}"
        assert "127.0.0.1" not in repr(told)


async def test_old_events_are_forgotten(tmp_path: Path) -> None:
    async with running(tmp_path / "home") as world:
        world.gateway.events.tell(Happening(Kind.ENGINE_UP, "x"))
        await world.gateway.events.flush()
        (event,) = world.gateway.store.every_event(10)
        world.gateway.store.forget_events(event.at_us, [])
        assert len(world.gateway.store.every_event(10)) == 1
        world.gateway.store.forget_events(event.at_us + 1, [])
        assert world.gateway.store.every_event(10) == []


@pytest.mark.parametrize(
    "url", ["http://example.com", "https://", "https://a:b@example.com", "file:///x", "https://x#y"]
)
def test_events_go_nowhere_but_over_tls(url: str) -> None:
    with pytest.raises(ValidationError, match="https"):
        EventSettings.model_validate({"webhooks": [{"url": url, "secret_file": "x"}]})
