"""What concerns all tenants at once: what the engines must have. Open to `cli` only,
which hands it to whoever needs it; nobody can ask it on behalf of a tenant."""

from collections.abc import Mapping, Sequence

from sqlalchemy import select, update

from freehold.core.binding import Environment
from freehold.store.sql import SqlStore
from freehold.store.tables import adapters, routes


def wanted_adapters(store: SqlStore, base_digest: str) -> set[str]:
    """Every adapter that a route names for this base."""
    named = (routes.c.base_digest == base_digest) & routes.c.adapter_digest.is_not(None)
    with store._reading() as connection:
        return set(connection.scalars(select(routes.c.adapter_digest).where(named).distinct()))


def is_wanted(store: SqlStore, base_digest: str, adapter_digest: str) -> bool:
    named = (routes.c.base_digest == base_digest) & (routes.c.adapter_digest == adapter_digest)
    with store._reading() as connection:
        return connection.scalar(select(routes.c.id).where(named).limit(1)) is not None


def adapter_files(store: SqlStore, digests: Sequence[str]) -> dict[str, tuple[str, str]]:
    """The digests of config and weights, by the adapter's own. Ask for a few hundred."""
    columns = (adapters.c.digest, adapters.c.config_digest, adapters.c.weights_digest)
    with store._reading() as connection:
        rows = connection.execute(select(*columns).where(adapters.c.digest.in_(digests)))
        return {digest: (config, weights) for digest, config, weights in rows}


def homes_of_routes(store: SqlStore) -> list[tuple[str, Environment]]:
    """Each tenant's environment that has routes."""
    with store._reading() as connection:
        rows = connection.execute(select(routes.c.tenant_id, routes.c.environment).distinct())
        return [(tenant_id, Environment(environment)) for tenant_id, environment in rows]


def place_routes(store: SqlStore, served: Mapping[str, tuple[str, str]]) -> None:
    """Sends the routes that people set to where their base is served by this start:
    `served` has engine and pool by digest. The others lead nowhere until it is served."""
    theirs = routes.c.managed.is_(False)
    with store._writing() as connection:
        connection.execute(update(routes).where(theirs).values(pool=""))
        for digest, (engine, pool) in served.items():
            connection.execute(
                update(routes)
                .where(theirs, routes.c.base_digest == digest)
                .values(engine=engine, pool=pool)
            )
