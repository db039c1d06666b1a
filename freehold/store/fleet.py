"""What concerns all tenants at once: what the engines must have. Open to `cli` only,
which hands it to whoever needs it; nobody can ask it on behalf of a tenant. And what all
of them together asked for, to plan machines by."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import NamedTuple

from sqlalchemy import ColumnElement, Table, func, select, true, update

from freehold.core.adapter import Adapter
from freehold.core.binding import Environment, Route
from freehold.core.engine import EMBEDDINGS
from freehold.core.signature import Signature
from freehold.core.tenant import IsolationClass, Tenant
from freehold.core.usage import Outcome
from freehold.store.backend import EVERY_TENANT
from freehold.store.identity import tenant_of
from freehold.store.routing import (
    adapter_of,
    candidates_of,
    route_of,
    with_candidate,
    with_signatures,
)
from freehold.store.signatures import signature_of
from freehold.store.sql import SqlStore
from freehold.store.tables import adapters, candidates, requests, routes, signatures, tenants

_HOUR_US = 3_600_000_000
_SAMPLE = 10_000
_LEADING = (routes, candidates)  # to what requests are answered with
_CROCKFORD = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_PAIRS = [a + b for a in _CROCKFORD for b in _CROCKFORD]


def wanted_adapters(store: SqlStore, base_digest: str, tenant_id: str | None = None) -> set[str]:
    """Every adapter that a route names for this base: the routes of one tenant that has
    engines of its own, or of all that share theirs."""
    found: set[str] = set()
    with store._reading(EVERY_TENANT) as connection:
        for table in _LEADING:
            named = (table.c.base_digest == base_digest) & table.c.adapter_digest.is_not(None)
            wanted = select(table.c.adapter_digest).where(named, _served_for(table, tenant_id))
            found.update(connection.scalars(wanted.distinct()))
    return found


def is_wanted(
    store: SqlStore, base_digest: str, adapter_digest: str, tenant_id: str | None = None
) -> bool:
    with store._reading(EVERY_TENANT) as connection:
        for table in _LEADING:
            named = (table.c.base_digest == base_digest) & (
                table.c.adapter_digest == adapter_digest
            )
            found = select(table.c.id).where(named, _served_for(table, tenant_id)).limit(1)
            if connection.scalar(found) is not None:
                return True
    return False


def _served_for(table: Table, tenant_id: str | None) -> ColumnElement[bool]:
    owner: ColumnElement[str] = table.c.tenant_id
    if tenant_id is not None:
        return owner == tenant_id
    apart = select(tenants.c.id).where(tenants.c.isolation != IsolationClass.SHARED)
    return owner.not_in(apart)


def bases_apart(store: SqlStore, environments: Collection[Environment]) -> list[tuple[Tenant, str]]:
    """Each tenant that was promised engines of its own, with each base that its routes
    lead to. Disabled ones need none."""
    names = [column.name for column in tenants.columns]
    found: dict[tuple[str, str], tuple[Tenant, str]] = {}
    with store._reading(EVERY_TENANT) as connection:
        for table in _LEADING:
            wanted = select(tenants, table.c.base_digest).join(
                table, table.c.tenant_id == tenants.c.id
            )
            wanted = wanted.where(
                tenants.c.isolation != IsolationClass.SHARED,
                tenants.c.disabled_at_us.is_(None),
                table.c.base_digest.is_not(None),
                table.c.environment.in_(environments),
            ).distinct()
            for row in connection.execute(wanted).mappings():
                tenant = tenant_of({name: row[name] for name in names})
                found[tenant.id, row["base_digest"]] = (tenant, row["base_digest"])
    return list(found.values())


def adapter_files(store: SqlStore, digests: Sequence[str]) -> dict[str, tuple[str, str]]:
    """The digests of config and weights, by the adapter's own. Ask for a few hundred."""
    columns = (adapters.c.digest, adapters.c.config_digest, adapters.c.weights_digest)
    with store._reading(EVERY_TENANT) as connection:
        rows = connection.execute(select(*columns).where(adapters.c.digest.in_(digests)))
        return {digest: (config, weights) for digest, config, weights in rows}


def signed_adapters(
    store: SqlStore, base_digest: str, digests: Sequence[str], required: Collection[Environment]
) -> list[tuple[Adapter, list[Signature]]]:
    """Every tenant's adapters of these digests, with their signatures: of the digests that any
    is on, and of all where environments require one. Ask for a few hundred."""
    with store._reading(EVERY_TENANT) as connection:
        wanted = select(signatures).where(signatures.c.digest.in_(digests))
        made = [signature_of(row) for row in connection.execute(wanted).mappings()]
        meant = digests if required else sorted({each.digest for each in made})
        if not meant:
            return []
        mine = (adapters.c.base_digest == base_digest) & adapters.c.digest.in_(meant)
        rows = connection.execute(select(adapters).where(mine)).mappings()
        found = [adapter_of(row) for row in rows]
    return with_signatures(found, made)


def every_route(store: SqlStore) -> Iterator[Route]:
    """In one read, however many tenants there are. Of those with one alias in one place the
    last one counts."""
    with store._reading(EVERY_TENANT) as connection:
        tried = candidates_of(connection, true())
        rows = connection.execute(select(routes).order_by(routes.c.managed.desc())).mappings()
        for row in rows:
            yield with_candidate(route_of(row), tried)


def place_routes(
    store: SqlStore,
    served: Mapping[str, tuple[str, str]],
    environments: Collection[Environment] = tuple(Environment),
) -> None:
    """Sends the routes that people set to where their base is served by this start:
    `served` has engine and pool by digest. The others lead nowhere until it is served."""
    with store._writing(EVERY_TENANT) as connection:
        for table in _LEADING:
            theirs: ColumnElement[bool] = table.c.environment.in_(environments)
            if table is routes:
                theirs &= routes.c.managed.is_(False)
            connection.execute(update(table).where(theirs).values(pool=""))
            for digest, (engine, pool) in served.items():
                connection.execute(
                    update(table)
                    .where(theirs, table.c.base_digest == digest)
                    .values(engine=engine, pool=pool)
                )


class Recorded(NamedTuple):
    """A request, as far as machines are planned by it."""

    created_at_us: int
    tokens_in: int
    tokens_out: int
    tokens_cached: int
    tenant_id: str
    adapter_digest: str | None


def recorded(store: SqlStore, since_us: int, until_us: int) -> Iterator[Recorded]:
    """What every tenant asked of models that write, and got, oldest first."""
    columns = [requests.c[name] for name in Recorded._fields]
    found = (
        select(*columns)
        .where(
            requests.c.created_at_us >= since_us,
            requests.c.created_at_us < until_us,
            requests.c.outcome == Outcome.OK,
            requests.c.endpoint != EMBEDDINGS,
        )
        .order_by(requests.c.created_at_us)
    )
    with store._reading(EVERY_TENANT) as connection:
        for row in connection.execution_options(yield_per=10_000).execute(found):
            yield Recorded(*row)


class UsedHour(NamedTuple):
    """What was answered in an hour, which are counted from 1970 on."""

    hour: int
    requests: int
    tokens_in: int
    tokens_out: int
    tokens_cached: int


class Answered(NamedTuple):
    """One of those, for lengths and times."""

    tokens_in: int
    tokens_out: int
    ttft_us: int | None
    duration_us: int | None


class Used(NamedTuple):
    hours: list[UsedHour]
    sample: list[Answered]


def used(
    store: SqlStore, since_us: int, until_us: int, aliases: Collection[str] | None = None
) -> Used:
    """What all tenants asked of models that write, and got: by the hour, and some ten thousand
    of them, chosen by chance where there are more."""
    hour = (requests.c.created_at_us // _HOUR_US).label("hour")
    sums = [func.sum(requests.c[name]) for name in ("tokens_in", "tokens_out", "tokens_cached")]
    those = [
        requests.c.tenant_id.in_(select(tenants.c.id)),  # which there is an index for
        requests.c.created_at_us >= since_us,
        requests.c.created_at_us < until_us,
        requests.c.outcome == Outcome.OK,
        requests.c.endpoint != EMBEDDINGS,
    ]
    if aliases is not None:
        those.append(requests.c.alias.in_(aliases))
    columns = [requests.c[name] for name in Answered._fields]
    with store._reading(EVERY_TENANT) as connection:
        by_hour = select(hour, func.count(), *sums).where(*those).group_by(hour).order_by(hour)
        hours = [UsedHour(*map(int, row)) for row in connection.execute(by_hour)]
        if (count := sum(each.requests for each in hours)) > _SAMPLE:
            # The last two characters of an id are chance.
            shares = _PAIRS[: max(1, len(_PAIRS) * _SAMPLE // count)]
            those.append(func.substr(requests.c.id, 29, 2).in_(shares))
        sample = connection.execute(select(*columns).where(*those).limit(4 * _SAMPLE))
        return Used(hours, [Answered(*row) for row in sample])
