"""Builds the concrete things and hands them to each other. Nobody else does."""

import os
from collections.abc import Mapping, Sequence
from typing import Any

import psutil

import freehold
from freehold.catalog.store import ModelStore
from freehold.config.home import Home
from freehold.config.schema import Settings
from freehold.core.binding import Environment, Route
from freehold.core.clock import SystemClock
from freehold.core.ids import new_id
from freehold.core.model import ModelCard
from freehold.deploy.pool import Pool, RemoteMember
from freehold.deploy.replica import Replica
from freehold.engines import registry, remote
from freehold.engines.base import LocalModel
from freehold.secure.keys import Keyring
from freehold.serve.directory import Directory
from freehold.serve.gateway import Gateway
from freehold.serve.metrics import Metrics
from freehold.serve.room import Room
from freehold.serve.watch import Watch
from freehold.store.ledger import Ledger
from freehold.store.sql import SqlStore


def pools(
    home: Home, settings: Settings, models: ModelStore, cards: Sequence[ModelCard]
) -> dict[str, Pool]:
    """One pool a served model, one an upstream."""
    engine = registry.create(settings.engines.default, settings.engines)
    made: dict[str, Pool] = {}
    for card in cards:
        local = LocalModel(card, models.path(card))
        replica = Replica(f"{card.name}-0", engine, local, home.logs)
        capabilities = engine.capabilities(local)
        made[card.name] = Pool(card.name, [replica], capabilities, settings.limits)
    for upstream in settings.upstreams:
        member = RemoteMember(upstream.name, remote.RemoteClient(upstream))
        able = remote.capabilities(upstream, list(upstream.models))
        made[upstream.name] = Pool(upstream.name, [member], able, settings.limits)
    return made


def routes(
    tenant_id: str, settings: Settings, cards: Sequence[ModelCard], at_us: int
) -> list[Route]:
    """The default tenant's routes: each served model under its own name, each
    upstream model under its alias. An alias of ours wins over an upstream's."""
    engine = settings.engines.default
    found = {
        card.name: _route(tenant_id, card.name, engine, card.name, card.digest, card.digest, at_us)
        for card in cards
    }
    for upstream in settings.upstreams:
        for model in upstream.models:
            route = _route(
                tenant_id, model.alias, "remote", upstream.name, None, model.upstream_name, at_us
            )
            found.setdefault(model.alias, route)
    return list(found.values())


def _route(
    tenant_id: str,
    alias: str,
    engine: str,
    pool: str,
    digest: str | None,
    engine_model: str,
    at_us: int,
) -> Route:
    return Route(
        id=new_id("rte"),
        tenant_id=tenant_id,
        environment=Environment.DEV,
        alias=alias,
        engine=engine,
        pool=pool,
        base_digest=digest,
        adapter_digest=None,
        engine_model=engine_model,
        created_at_us=at_us,
    )


def gateway(
    home: Home,
    settings: Settings,
    store: SqlStore,
    keyring: Keyring,
    serving: Mapping[str, Pool],
    cards: Sequence[ModelCard],
    url: str,
) -> Gateway:
    """Must be called on the event loop's thread: the ledger belongs to it."""
    clock = SystemClock()
    ledger = Ledger(store, home.journal)
    process = psutil.Process()

    def describe() -> dict[str, Any]:
        return {
            "version": freehold.__version__,
            "url": url,
            "pid": os.getpid(),
            "rss_bytes": process.memory_info().rss,
        }

    return Gateway(
        settings=settings,
        clock=clock,
        store=store,
        keyring=keyring,
        directory=Directory(store),
        ledger=ledger,
        watch=Watch(settings.limits, clock, ledger),
        metrics=Metrics(),
        room=Room(settings.server.max_bodies_bytes),
        pools=serving,
        cards={card.digest: card for card in cards},
        describe=describe,
    )
