"""Builds the concrete things and hands them to each other. Nobody else does."""

import functools
import os
from collections.abc import Mapping, Sequence
from typing import Any

import psutil

import freehold
from freehold.catalog.adapters import Adapters
from freehold.catalog.store import ModelStore
from freehold.config.home import Home
from freehold.config.schema import Settings
from freehold.core.binding import Environment, Route
from freehold.core.clock import SystemClock
from freehold.core.engine import AdapterFiles
from freehold.core.ids import new_id
from freehold.core.model import ModelCard
from freehold.deploy.adapters import PoolAdapters
from freehold.deploy.autotune import Records, rank_limits, settings_for
from freehold.deploy.pool import Pool, RemoteMember
from freehold.deploy.replica import Replica
from freehold.engines import registry, remote
from freehold.engines.base import LocalModel
from freehold.secure.keys import Keyring
from freehold.serve.directory import Directory
from freehold.serve.gateway import Gateway
from freehold.serve.metrics import Metrics
from freehold.serve.room import Room
from freehold.serve.routes import Routes
from freehold.serve.watch import Watch
from freehold.store import fleet
from freehold.store.ledger import Ledger
from freehold.store.sql import SqlStore


def adapters_of(card: ModelCard, store: SqlStore, models: ModelStore) -> PoolAdapters:
    """What the replicas of this base are told of: the adapters that any tenant's routes
    name for it."""

    def files(digests: Sequence[str]) -> list[AdapterFiles]:
        found = fleet.adapter_files(store, digests)
        path = models.blobs.path
        return [AdapterFiles(digest, path(a), path(b)) for digest, (a, b) in found.items()]

    return PoolAdapters(fleet.wanted_adapters(store, card.digest), files)


def pools(
    home: Home,
    settings: Settings,
    store: SqlStore,
    models: ModelStore,
    cards: Sequence[ModelCard],
) -> dict[str, Pool]:
    """One pool a served model, one an upstream."""
    records = Records(home.cache)
    made: dict[str, Pool] = {}
    for card in cards:
        chosen = settings_for(card, settings.engines, records)
        engine = registry.create(chosen.default, chosen, home.cache)
        local = LocalModel(card, models.path(card))
        replica = Replica(f"{card.name}-0", engine, local, home.logs)
        able = engine.capabilities(local)
        told = adapters_of(card, store, models) if able.adapters else None
        made[card.name] = Pool(card.name, engine.name, [replica], able, settings.limits, told)
    for upstream in settings.upstreams:
        member = RemoteMember(upstream.name, remote.RemoteClient(upstream))
        able = remote.capabilities(upstream, list(upstream.models))
        made[upstream.name] = Pool(upstream.name, "remote", [member], able, settings.limits)
    return made


def routes(
    tenant_id: str,
    settings: Settings,
    cards: Sequence[ModelCard],
    serving: Mapping[str, Pool],
    at_us: int,
) -> list[Route]:
    """The default tenant's routes: each served model under its own name, each
    upstream model under its alias. An alias of ours wins over an upstream's."""
    found = {}
    for card in cards:
        engine, name = serving[card.name].engine, card.name
        found[name] = _route(tenant_id, name, engine, name, card.digest, card.digest, at_us)
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
    by_digest = {card.digest: card for card in cards}
    directory = Directory(store)
    limits = rank_limits(settings.engines, Records(home.cache))
    adapters = Adapters(home.path, store, ModelStore(home.path), clock, limits)
    for tenant_id, environment in fleet.homes_of_routes(store):
        directory.load(tenant_id, environment)  # so that no request waits for thousands
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
        directory=directory,
        ledger=ledger,
        watch=Watch(settings.limits, clock, ledger),
        metrics=Metrics(),
        room=Room(settings.server.max_bodies_bytes),
        pools=serving,
        cards=by_digest,
        adapters=adapters,
        routes=Routes(
            store,
            adapters,
            directory,
            serving,
            by_digest,
            functools.partial(fleet.is_wanted, store),
            clock,
        ),
        describe=describe,
    )
