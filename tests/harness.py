"""A whole gateway for tests: real HTTP, real ledger, a fake engine in a real process."""

import asyncio
import contextlib
import hashlib
import socket
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import httpx2
import uvicorn

from freehold.catalog.store import ModelStore
from freehold.cli.at_rest import opening
from freehold.cli.wiring.gateway import build_gateway
from freehold.cli.wiring.pools import adapters_of, build_pools, signatures
from freehold.cli.wiring.routes import managed_routes
from freehold.config.home import Home
from freehold.config.schema import LimitSettings, Settings, UpstreamSettings
from freehold.core.binding import Environment, Scope
from freehold.core.model import Licence, ModelCard, ModelFile, Task
from freehold.deploy.pool import Pool
from freehold.deploy.replica import Replica
from freehold.engines.base import Engine, LocalModel
from freehold.engines.fake import Fake
from freehold.secure.keys import KeyRequest
from freehold.serve import app, connection
from freehold.serve.gateway import Gateway
from freehold.store.backend import Backend
from freehold.store.ledger import recover
from freehold.store.sql import SqlStore
from tests import databases

DIGEST = "sha256:" + "ab" * 32


def card(name: str = "fake-model", task: Task = Task.CHAT, context: int = 4096) -> ModelCard:
    return ModelCard(
        name=name,
        digest=DIGEST,
        task=task,
        format="gguf",
        architecture="llama",
        parameters=1,
        quantization="Q4_0",
        context_length=context,
        embedding_length=8,
        licence=Licence("Apache-2.0", True),
        source="file:/none",
        files=(ModelFile("m.gguf", DIGEST, 1),),
        added_at_us=0,
    )


@dataclass
class Running:
    gateway: Gateway
    replica: Replica
    url: str
    key: str
    tenant_id: str
    home: Home
    replicas: dict[str, Replica] = field(default_factory=dict)  # of every local model

    def http(self, **options: Any) -> httpx2.AsyncClient:
        headers = {"authorization": f"Bearer {self.key}"}
        return httpx2.AsyncClient(
            base_url=self.url, headers=headers, timeout=30, verify=False, **options
        )

    async def chat(self, prompt: str, **fields: Any) -> httpx2.Response:
        async with self.http() as client:
            return await client.post("/v1/chat/completions", json=asked(prompt, **fields))

    async def seen(self) -> dict[str, Any]:
        """What the engine saw: hashes of prompts, what was cut off, what still runs."""
        return await self.replica.client.get_json("seen")  # type: ignore[attr-defined]

    def records(self) -> list[dict[str, Any]]:
        self.gateway.ledger.flush()
        return list(self.gateway.store.records(self.tenant_id, 1000))

    async def settled(self, count: int) -> list[dict[str, Any]]:
        """Waits until so many requests are settled, and checks that none is twice."""
        async with asyncio.timeout(15):
            while True:
                rows = self.records()
                if len(rows) >= count and all(row["settled_at_us"] for row in rows):
                    assert len({row["id"] for row in rows}) == len(rows) == count
                    return rows
                await asyncio.sleep(0.02)

    def mint(self, *scopes: Scope, **fields: Any) -> str:
        wanted = KeyRequest(
            self.tenant_id, Environment.DEV, "test", frozenset(scopes or {Scope.INFER}), **fields
        )
        _, key = self.gateway.keyring.mint(wanted)
        assert key is not None
        return key.reveal()


@contextlib.asynccontextmanager
async def running(
    folder: Path,
    *flags: str,
    limits: LimitSettings | None = None,
    task: Task = Task.CHAT,
    context: int = 4096,
    streams: int = 64,
    engine: Engine | None = None,
    model: LocalModel | None = None,
    others: Mapping[str, Engine] | None = None,
    upstreams: Sequence[UpstreamSettings] = (),
    keep_alive_s: float = 75,
    public: bool = False,
    sessions: Mapping[str, Any] | None = None,
    database: Backend | None = None,
    identity_providers: Sequence[Mapping[str, Any]] = (),
    prices: Mapping[str, Any] | None = None,
    audit: Mapping[str, Any] | None = None,
    backup: Mapping[str, Any] | None = None,
    events: Mapping[str, Any] | None = None,
    patterns: Mapping[str, Any] | None = None,
    supply: Mapping[str, Any] | None = None,
    **server: Any,
) -> AsyncIterator[Running]:
    """`model` is what `engine` loads, where that is no fake: it is served as `fake-model`.
    `others` are more local models, each with an engine and a pool of its own. With `public`
    browsers find it at its own address."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    if public:
        server["public_url"] = url
    home = Home(folder)
    home.create()
    settings = Settings.model_validate(
        {
            "limits": (limits or LimitSettings(wrong_keys_a_minute=10**6)).model_dump(),
            "server": server,
            "engines": {"default": "fake"},
            "identity_providers": identity_providers,
            "prices": prices or {},
            "audit": audit or {},
            "sessions": sessions or {},
            "backup": backup or {},
            "events": events or {},
            "patterns": patterns or {},
            "supply": supply or {},
            "upstreams": [upstream.model_dump() for upstream in upstreams],
        }
    )
    store = SqlStore(database or databases.stock(home.database))
    store.take_place()
    keyring = opening.open_keyring(home, store, may_create=True, settings=settings)
    witness = opening.open_audit(home, store, settings.audit)
    store.put_back(witness.owed(store.audit_heads()))
    recover(store, home.journal)
    store.settle_orphans(1)
    witness.check(store.audit_heads())
    opening.forget_again(store, witness)
    tenant_id = opening.default_tenant(store)
    served = card(task=task, context=context)
    if model is not None:
        served = replace(model.card, name=served.name)
    cards = [served, *(card(name, task, context) for name in others or {})]
    engines = {served.name: engine or Fake(flags, streams), **(others or {})}
    models = ModelStore(folder)
    serving = build_pools(home, settings, store, models, [])  # the upstreams'
    replicas: dict[str, Replica] = {}
    signed = signatures(home, settings, store)
    for each in cards:
        local = LocalModel(each, model.path if model and each is served else folder / "none")
        used = engines[each.name]
        replica = replicas[each.name] = Replica(f"{each.name}-0", used, local, home.logs)
        able = used.capabilities(local)
        told = adapters_of(each, store, models, signed) if able.adapters else None
        serving[each.name] = Pool(each.name, "fake", [replica], able, settings.limits, told)
    routes = managed_routes(tenant_id, settings, cards, serving, 1)
    store.put_routes(tenant_id, Environment.DEV, routes)
    # asyncio sets this only on sockets of a named protocol, unlike uvloop; without it
    # each answer on a kept connection waits 40 ms.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.bound_unsent(listener)
    gateway = build_gateway(home, settings, store, keyring, serving, cards, url)
    gateway.watch.start()
    gateway.access.start()
    gateway.events.start()
    gateway.notices.start()
    gateway.peers.start()
    gateway.patterns.start()
    for pool in serving.values():
        pool.start()
    config = uvicorn.Config(
        app.build(gateway),
        http=connection.limited(settings.limits.slow_client_s, settings.server.max_connections),
        ws="none",
        lifespan="off",
        log_config=None,
        proxy_headers=False,
        timeout_keep_alive=keep_alive_s,  # type: ignore[arg-type]
    )
    server_process = _Server(config)
    listening = asyncio.create_task(server_process.serve(sockets=[listener]))
    world = Running(gateway, replicas[served.name], url, "", tenant_id, home, replicas)
    try:
        world.key = world.mint(*Scope)
        yield world
    finally:
        await gateway.watch.drain(0)
        server_process.end()
        await listening
        await gateway.patterns.stop()
        await gateway.notices.stop()
        await gateway.events.stop()
        await gateway.peers.stop()
        await gateway.access.stop()
        await gateway.watch.stop()
        await gateway.fleet.stop()
        await asyncio.gather(*(pool.stop() for pool in serving.values()))
        await gateway.ledger.close()
        store.close()
        witness.close()
        listener.close()


class _Server(uvicorn.Server):
    """Ends when it is told to, instead of at its next look."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self._told = asyncio.Event()

    def end(self) -> None:
        self.should_exit = True
        self._told.set()

    async def main_loop(self) -> None:
        while not await self.on_tick(0):
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._told.wait(), 1)

    @contextlib.contextmanager
    def capture_signals(self) -> Any:
        yield


def asked(prompt: str, **fields: Any) -> dict[str, Any]:
    return {"model": "fake-model", "messages": [{"role": "user", "content": prompt}], **fields}


def sha(prompt: str) -> str:
    return hashlib.sha256(prompt.encode()).hexdigest()
