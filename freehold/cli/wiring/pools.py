"""Engines and what they are told: the pools of all, and those of single tenants."""

import shutil
from collections.abc import Collection, Mapping, Sequence

from freehold.catalog.own_weights import copied, forget_others, own_cache
from freehold.catalog.signatures import Signatures
from freehold.catalog.store import ModelStore
from freehold.config.home import Home
from freehold.config.schema import Settings
from freehold.config.trust import outgoing
from freehold.core.adapter import Adapter
from freehold.core.binding import Environment
from freehold.core.clock import SystemClock
from freehold.core.engine import AdapterFiles
from freehold.core.model import ModelCard
from freehold.core.signature import Signature
from freehold.core.tenant import IsolationClass, OwnPool
from freehold.deploy.adapters import Owner, PoolAdapters, Stored
from freehold.deploy.autotune import Records, settings_for
from freehold.deploy.pool import Pool, RemoteMember
from freehold.deploy.replica import Replica
from freehold.engines import registry, remote
from freehold.engines.base import LocalModel
from freehold.store import fleet
from freehold.store.sql import SqlStore


def signatures(home: Home, settings: Settings, store: SqlStore) -> Signatures:
    """Raises `UserError(CONFIG_INVALID)` for keys that cannot be read."""
    return Signatures(home.secrets / "signing", store, settings.supply, SystemClock())


def adapters_of(
    card: ModelCard,
    store: SqlStore,
    models: ModelStore,
    signed: Signatures,
    tenant_id: str | None = None,
) -> PoolAdapters:
    """What the replicas of this base are told of: the adapters that routes name for it,
    those of one tenant with engines of its own, or of all others. One that is nobody's by its
    signatures stays out, and one that is not everybody's is kept from the others."""

    def files(digests: Sequence[str]) -> Stored:
        found = fleet.adapter_files(store, digests)
        path = models.blobs.path
        owned = fleet.signed_adapters(store, card.digest, digests, signed.required)
        refused, apart = kept_out(owned, signed)
        told = [
            AdapterFiles(digest, path(a), path(b))
            for digest, (a, b) in found.items()
            if digest not in refused
        ]
        return Stored(told, refused, apart)

    return PoolAdapters(fleet.wanted_adapters(store, card.digest, tenant_id), files)


def kept_out(
    owned: Sequence[tuple[Adapter, Sequence[Signature]]], signed: Signatures
) -> tuple[dict[str, str], dict[tuple[Owner, str], str]]:
    """Why, of those that all of their owners may not use, and of others by owner."""
    apart: dict[tuple[Owner, str], str] = {}
    sound = set()
    for (adapter, _), reason in zip(owned, signed.reasons(owned), strict=True):
        if reason is None:
            sound.add(adapter.digest)
        else:
            apart[(adapter.tenant_id, adapter.environment), adapter.digest] = reason
    refused = {digest: reason for (_, digest), reason in apart.items() if digest not in sound}
    return refused, {key: why for key, why in apart.items() if key[1] in sound}


def build_pools(
    home: Home,
    settings: Settings,
    store: SqlStore,
    models: ModelStore,
    cards: Sequence[ModelCard],
) -> dict[str, Pool]:
    """One pool a served model, one an upstream."""
    records, trust = Records(home.cache), outgoing(settings.network.ca_file)
    signed = signatures(home, settings, store)
    made: dict[str, Pool] = {}
    for card in cards:
        chosen = settings_for(card, settings.engines, records)
        engine = registry.create(chosen.default, chosen, home.cache)
        local = LocalModel(card, models.path(card))
        replica = Replica(f"{card.name}-0", engine, local, home.logs)
        able = engine.capabilities(local)
        told = adapters_of(card, store, models, signed) if able.adapters else None
        made[card.name] = Pool(card.name, engine.name, [replica], able, settings.limits, told)
    for upstream in settings.upstreams:
        member = RemoteMember(upstream.name, remote.RemoteClient(upstream, trust))
        able = remote.capabilities(upstream, list(upstream.models))
        made[upstream.name] = Pool(upstream.name, "remote", [member], able, settings.limits)
    return made


def build_own_pool(
    home: Home,
    settings: Settings,
    store: SqlStore,
    models: ModelStore,
    card: ModelCard,
    own: OwnPool,
) -> Pool:
    """A pool that one tenant alone uses; may block while its weights are copied."""
    chosen = settings_for(card, settings.engines, Records(home.cache))
    cache, path = home.cache, models.path(card)
    if own.has_own_weights:
        cache = own_cache(home.cache, own.tenant_id)
        path = copied(models.files(card), path, cache / "weights")
    engine = registry.create(chosen.default, chosen, cache)
    local = LocalModel(card, path)
    able = engine.capabilities(local)
    signed = signatures(home, settings, store)
    told = adapters_of(card, store, models, signed, own.tenant_id) if able.adapters else None
    replica = Replica(f"{own.name}-0", engine, local, home.logs)
    return Pool(own.name, engine.name, [replica], able, settings.limits, told, own)


def desired_pools(
    store: SqlStore, serving: Mapping[str, Pool], environments: Collection[Environment]
) -> list[OwnPool]:
    """The pools of tenants with engines of their own, for the bases that are served."""
    shared = {
        pool.base_digest: name
        for name, pool in list(serving.items())
        if pool.own is None and pool.base_digest is not None
    }
    return [
        OwnPool(
            tenant.pool(shared[base]),
            shared[base],
            tenant.id,
            base,
            tenant.isolation is IsolationClass.WEIGHTS,
        )
        for tenant, base in fleet.bases_apart(store, environments)
        if base in shared
    ]


def clear_copies(
    home: Home, settings: Settings, store: SqlStore, serving: Mapping[str, Pool]
) -> None:
    """Copies of weights that no tenant is promised any more."""
    wanted = desired_pools(store, serving, settings.server.environments)
    forget_others(home.cache, {own.tenant_id for own in wanted if own.has_own_weights})


def let_go(home: Home, gone: OwnPool, left: Sequence[OwnPool]) -> None:
    """The copies of the weights, once no pool reads them."""
    if gone.has_own_weights and not any(
        each.has_own_weights and each.tenant_id == gone.tenant_id for each in left
    ):
        shutil.rmtree(own_cache(home.cache, gone.tenant_id), ignore_errors=True)
