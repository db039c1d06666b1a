"""Where aliases lead: the routes of a tenant's environment, and the adapters they name."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    RowMapping,
    delete,
    func,
    insert,
    or_,
    select,
    union,
)
from sqlalchemy.exc import IntegrityError

from freehold.core.acts import Act, Change
from freehold.core.adapter import Adapter
from freehold.core.audit import stream_of
from freehold.core.binding import Candidate, Environment, Route
from freehold.core.errors import Code, UserError
from freehold.core.lineage import Remains
from freehold.core.manifest import as_plain, read_manifest
from freehold.core.signature import Signature
from freehold.store.audit import AuditTable
from freehold.store.backend import EVERY_TENANT
from freehold.store.lineage import leave, note_removal, note_routes
from freehold.store.peers import Peers
from freehold.store.signatures import put_signature, signature_of
from freehold.store.tables import adapters, candidates, promotions, routes, signatures

_SHOWN_ALIASES = 5


class Routing(Peers, AuditTable):
    # routes

    def routes(self, tenant_id: str, environment: Environment) -> Sequence[Route]:
        mine = (routes.c.tenant_id == tenant_id) & (routes.c.environment == environment)
        with self._reading(tenant_id) as connection:
            rows = connection.execute(
                select(routes).where(mine).order_by(routes.c.alias, routes.c.managed.desc())
            ).mappings()
            found = {row["alias"]: route_of(row) for row in rows}  # the last one counts
            tried = candidates_of(connection, candidates.c.tenant_id == tenant_id)
        return [with_candidate(route, tried) for route in found.values()]

    def put_routes(self, tenant_id: str, environment: Environment, new: Sequence[Route]) -> None:
        with self._writing(tenant_id) as connection:
            since = _since(connection, tenant_id, environment)
            connection.execute(
                delete(routes).where(
                    routes.c.tenant_id == tenant_id,
                    routes.c.environment == environment,
                    routes.c.managed.is_(True),
                )
            )
            _insert(connection, [_aged(route, since, managed=True) for route in new])
            self._tell_peers(connection, tenant_id, environment)

    def set_route(self, tenant_id: str, route: Route) -> Route | None:
        with self._changing(tenant_id) as changing:
            connection = changing.connection
            _check_unshared(connection, tenant_id, route.environment, route.alias)
            check_adapter(connection, tenant_id, route)
            since = _since(connection, tenant_id, route.environment, route.alias)
            moved = take(connection, tenant_id, route.environment, route.alias)
            _insert(connection, [_aged(route, since, managed=False)])
            changing.note(_of_route(Act.ROUTE_SET, route, "base", "adapter"))
            self._tell_peers(connection, tenant_id, route.environment)
        return moved

    def remove_route(self, tenant_id: str, environment: Environment, alias: str) -> Route | None:
        with self._changing(tenant_id) as changing:
            _check_unshared(changing.connection, tenant_id, environment, alias)
            removed = take(changing.connection, tenant_id, environment, alias)
            changing.note(_of_route(Act.ROUTE_REMOVE, removed) if removed else None)
            if removed is not None:
                note_removal(changing.connection, removed)
                self._tell_peers(changing.connection, tenant_id, environment)
        return removed

    # adapters

    def adapters(
        self, tenant_id: str, environment: Environment, limit: int, after: str = ""
    ) -> Sequence[Adapter]:
        with self._reading(tenant_id) as connection:
            rows = connection.execute(
                select(adapters)
                .where(
                    adapters.c.tenant_id == tenant_id,
                    adapters.c.environment == environment,
                    adapters.c.name > after,
                )
                .order_by(adapters.c.name)
                .limit(limit)
            ).mappings()
            return [adapter_of(row) for row in rows]

    def adapters_called(
        self, tenant_id: str, environment: Environment, reference: str
    ) -> Sequence[Adapter]:
        with self._reading(tenant_id) as connection:
            rows = connection.execute(
                select(adapters)
                .where(
                    adapters.c.tenant_id == tenant_id,
                    adapters.c.environment == environment,
                    or_(adapters.c.name == reference, adapters.c.digest == reference),
                )
                .order_by(adapters.c.name)
            ).mappings()
            return [adapter_of(row) for row in rows]

    def adapters_signed_by(self, key: str) -> list[tuple[Adapter, list[Signature]]]:
        """Every tenant's, with all of their signatures."""
        by_it = select(signatures.c.digest).where(signatures.c.key == key)
        with self._reading(EVERY_TENANT) as connection:
            wanted = select(signatures).where(signatures.c.digest.in_(by_it))
            made = [signature_of(row) for row in connection.execute(wanted).mappings()]
            those = select(adapters).where(adapters.c.digest.in_(by_it)).order_by(adapters.c.name)
            found = [adapter_of(row) for row in connection.execute(those).mappings()]
        every = with_signatures(found, made)
        return [(each, its) for each, its in every if key in {one.key for one in its}]

    def add_adapters(
        self, tenant_id: str, new: Sequence[Adapter], signed: Sequence[Signature] = ()
    ) -> None:
        rows = [row_of_adapter(tenant_id, each) for each in new]
        try:
            with self._changing(tenant_id) as changing:
                changing.connection.execute(insert(adapters), rows)
                for signature in signed:
                    put_signature(changing.connection, tenant_id, signature)
                for each in new:
                    changing.note(_of_adapter(Act.ADAPTER_ADD, each, "digest", "base"))
        except IntegrityError:
            raise UserError(
                Code.CONFLICT,
                "An adapter of this name, or with these weights for this base, is stored already: "
                "see `freehold adapter list`.",
            ) from None

    def remove_adapter(self, tenant_id: str, adapter_id: str) -> frozenset[str] | None:
        mine = (adapters.c.id == adapter_id) & (adapters.c.tenant_id == tenant_id)
        with self._changing(tenant_id) as changing:
            connection = changing.connection
            row = connection.execute(select(adapters).where(mine)).mappings().first()
            if row is None:
                changing.note(None)
                return None
            _check_unnamed(connection, adapter_of(row))
            connection.execute(delete(adapters).where(mine))
            _leave(connection, tenant_id, row)
            _forget_signatures(connection, tenant_id, row["digest"])
            changing.note(_of_adapter(Act.ADAPTER_REMOVE, adapter_of(row)))
            files = {row["config_digest"], row["weights_digest"]}
            self._backend.see(connection, EVERY_TENANT)
            return frozenset(file for file in files if not _is_used(connection, file))


def _of_route(act: Act, route: Route, *fields: str) -> Change:
    stream = stream_of(route.tenant_id, route.environment)
    return Change(act, stream, route.id, fields, route.alias)


def _of_adapter(act: Act, adapter: Adapter, *fields: str) -> Change:
    stream = stream_of(adapter.tenant_id, adapter.environment)
    return Change(act, stream, adapter.id, fields, adapter.name)


def check_adapter(connection: Connection, tenant_id: str, route: Route) -> None:
    """Raises `NOT_FOUND` where the route names an adapter that is not there."""
    if route.adapter_digest is None:
        return
    found = connection.scalar(
        select(adapters.c.id).where(
            adapters.c.tenant_id == tenant_id,
            adapters.c.environment == route.environment,
            adapters.c.base_digest == route.base_digest,
            adapters.c.digest == route.adapter_digest,
        )
    )
    if found is None:
        raise UserError(
            Code.NOT_FOUND, "The adapter was removed meanwhile: see `freehold adapter list`."
        )


def row_of_adapter(tenant_id: str, adapter: Adapter) -> dict[str, Any]:
    return {
        **{name: getattr(adapter, name) for name in Adapter.__slots__},
        "tenant_id": tenant_id,
        "target_modules": " ".join(adapter.target_modules),
        "manifest": None if adapter.manifest is None else json.dumps(as_plain(adapter.manifest)),
    }


def _check_unnamed(connection: Connection, adapter: Adapter) -> None:
    leading = union(_naming(routes, adapter), _naming(candidates, adapter))
    aliases = _some(connection, leading)
    if aliases:
        raise UserError(
            Code.CONFLICT,
            f"{adapter.name} is still what these routes name: {aliases}. Set or remove them first, "
            "with `freehold route`.",
        )
    back = select(promotions.c.alias).where(
        promotions.c.tenant_id == adapter.tenant_id,
        promotions.c.environment == adapter.environment,
        promotions.c.before_adapter == adapter.digest,
        promotions.c.id.in_(select(routes.c.promotion).where(routes.c.promotion.is_not(None))),
    )
    aliases = _some(connection, back.distinct())
    if aliases:
        raise UserError(
            Code.CONFLICT,
            f"{adapter.name} is what a rollback of these would go back to: {aliases}. Remove it "
            "once another revision has followed.",
        )


def _some(connection: Connection, wanted: Any) -> str:
    found = list(connection.scalars(wanted.order_by("alias").limit(_SHOWN_ALIASES + 1)))
    return ", ".join(found[:_SHOWN_ALIASES]) + (" …" if found[_SHOWN_ALIASES:] else "")


def _naming(table: Any, adapter: Adapter) -> Any:
    return select(table.c.alias).where(
        table.c.tenant_id == adapter.tenant_id,
        table.c.environment == adapter.environment,
        table.c.base_digest == adapter.base_digest,
        table.c.adapter_digest == adapter.digest,
    )


def _leave(connection: Connection, tenant_id: str, row: RowMapping) -> None:
    mine = (signatures.c.tenant_id == tenant_id) & (signatures.c.digest == row["digest"])
    signed = connection.execute(select(signatures).where(mine)).mappings()
    kept = {"row": dict(row), "signatures": [dict(each) for each in signed]}
    leave(connection, Remains.ADAPTER, tenant_id, row["digest"], kept)


def _forget_signatures(connection: Connection, tenant_id: str, digest: str) -> None:
    """With the last of its adapters of this digest, whatever environment that was in."""
    same = (adapters.c.tenant_id == tenant_id) & (adapters.c.digest == digest)
    if connection.scalar(select(adapters.c.id).where(same).limit(1)) is None:
        mine = (signatures.c.tenant_id == tenant_id) & (signatures.c.digest == digest)
        connection.execute(delete(signatures).where(mine))


def _is_used(connection: Connection, file: str) -> bool:
    """By any tenant: equal files are stored once."""
    used = or_(adapters.c.config_digest == file, adapters.c.weights_digest == file)
    return connection.scalar(select(adapters.c.id).where(used).limit(1)) is not None


def take(
    connection: Connection, tenant_id: str, environment: Environment, alias: str
) -> Route | None:
    """Removes the person's route of this alias and returns it."""
    mine = (
        (routes.c.tenant_id == tenant_id)
        & (routes.c.environment == environment)
        & (routes.c.alias == alias)
        & routes.c.managed.is_(False)
    )
    row = connection.execute(select(routes).where(mine)).mappings().first()
    connection.execute(delete(routes).where(mine))
    return route_of(row) if row else None


def _since(
    connection: Connection, tenant_id: str, environment: Environment, alias: str | None = None
) -> dict[str, int]:
    """Since when there are the aliases of these routes, which are about to be replaced."""
    first = func.min(func.coalesce(routes.c.alias_since_us, routes.c.created_at_us))
    mine = (routes.c.tenant_id == tenant_id) & (routes.c.environment == environment)
    if alias is not None:
        mine &= routes.c.alias == alias
    found = connection.execute(
        select(routes.c.alias, first.label("since_us")).where(mine).group_by(routes.c.alias)
    )
    return {row.alias: row.since_us for row in found}


def _aged(route: Route, since: dict[str, int], managed: bool) -> Route:
    return dataclasses.replace(route, managed=managed, alias_since_us=since.get(route.alias))


def insert_routes(
    connection: Connection, new: Sequence[Route], before: Route | None
) -> Sequence[Route]:
    """In place of one of the same alias, whose age they have."""
    since_us = None if before is None else before.since_us
    aged = [dataclasses.replace(route, alias_since_us=since_us) for route in new]
    _insert(connection, aged)
    return aged


def candidates_of(
    connection: Connection, those: ColumnElement[bool]
) -> dict[tuple[str, str, str], Candidate]:
    """By tenant, environment and alias."""
    rows = connection.execute(select(candidates).where(those)).mappings()
    return {
        (row["tenant_id"], row["environment"], row["alias"]): Candidate(
            candidate_route(row), row["share"]
        )
        for row in rows
    }


def candidate_route(row: RowMapping) -> Route:
    values = {name: row[name] for name in row if name != "share"}
    return Route(**{**values, "environment": Environment(row["environment"])})


def with_candidate(route: Route, tried: Mapping[tuple[str, str, str], Candidate]) -> Route:
    if not tried:
        return route
    found = tried.get((route.tenant_id, route.environment.value, route.alias))
    return route if found is None else dataclasses.replace(route, candidate=found)


def _check_unshared(
    connection: Connection, tenant_id: str, environment: Environment, alias: str
) -> None:
    shared = connection.scalar(
        select(candidates.c.promotion).where(
            candidates.c.tenant_id == tenant_id,
            candidates.c.environment == environment,
            candidates.c.alias == alias,
        )
    )
    if shared is not None:
        raise UserError(
            Code.CONFLICT,
            f"{alias} is shared with another revision ({shared}): take that back first, with "
            f"`freehold rollback {alias}`.",
        )


def _insert(connection: Connection, new: Sequence[Route]) -> None:
    if new:
        note_routes(connection, new)
        names = [column.name for column in routes.columns]
        connection.execute(
            insert(routes), [{name: getattr(route, name) for name in names} for route in new]
        )


def route_of(row: RowMapping) -> Route:
    return Route(**{**row, "environment": Environment(row["environment"])})


def with_signatures(
    found: Sequence[Adapter], made: Sequence[Signature]
) -> list[tuple[Adapter, list[Signature]]]:
    """Each with those on it among `made`."""
    by_owner: dict[tuple[str, str], list[Signature]] = {}
    for each in made:
        by_owner.setdefault((each.tenant_id, each.digest), []).append(each)
    return [(each, by_owner.get((each.tenant_id, each.digest), [])) for each in found]


def adapter_of(row: Mapping[Any, Any]) -> Adapter:
    return Adapter(
        **{
            **row,
            "environment": Environment(row["environment"]),
            "target_modules": tuple(row["target_modules"].split()),
            "manifest": None
            if row["manifest"] is None
            else read_manifest(row["manifest"].encode()),
        }
    )
