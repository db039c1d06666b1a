"""Where aliases lead: the routes of a tenant's environment, and the adapters they name."""

import dataclasses
import json
from collections.abc import Sequence

from sqlalchemy import Connection, RowMapping, delete, func, insert, or_, select
from sqlalchemy.exc import IntegrityError

from freehold.core.acts import Act, Change
from freehold.core.adapter import Adapter
from freehold.core.audit import stream_of
from freehold.core.binding import Environment, Route
from freehold.core.errors import Code, UserError
from freehold.core.manifest import as_plain, read_manifest
from freehold.core.signature import Signature
from freehold.store.audit import AuditTable
from freehold.store.backend import EVERY_TENANT
from freehold.store.peers import Peers
from freehold.store.signatures import put_signature
from freehold.store.tables import adapters, routes, signatures

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
        return list(found.values())

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
            if route.adapter_digest is not None:
                _check_adapter(connection, tenant_id, route)
            since = _since(connection, tenant_id, route.environment, route.alias)
            moved = _take(connection, tenant_id, route.environment, route.alias)
            _insert(connection, [_aged(route, since, managed=False)])
            changing.note(_of_route(Act.ROUTE_SET, route, "base", "adapter"))
            self._tell_peers(connection, tenant_id, route.environment)
        return moved

    def remove_route(self, tenant_id: str, environment: Environment, alias: str) -> Route | None:
        with self._changing(tenant_id) as changing:
            removed = _take(changing.connection, tenant_id, environment, alias)
            changing.note(_of_route(Act.ROUTE_REMOVE, removed) if removed else None)
            if removed is not None:
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

    def add_adapters(
        self, tenant_id: str, new: Sequence[Adapter], signed: Sequence[Signature] = ()
    ) -> None:
        rows = [
            {
                **{name: getattr(each, name) for name in Adapter.__slots__},
                "tenant_id": tenant_id,
                "target_modules": " ".join(each.target_modules),
                "manifest": None if each.manifest is None else json.dumps(as_plain(each.manifest)),
            }
            for each in new
        ]
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


def _check_adapter(connection: Connection, tenant_id: str, route: Route) -> None:
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


def _check_unnamed(connection: Connection, adapter: Adapter) -> None:
    aliases = list(
        connection.scalars(
            select(routes.c.alias)
            .where(
                routes.c.tenant_id == adapter.tenant_id,
                routes.c.environment == adapter.environment,
                routes.c.base_digest == adapter.base_digest,
                routes.c.adapter_digest == adapter.digest,
            )
            .order_by(routes.c.alias)
            .limit(_SHOWN_ALIASES + 1)
        )
    )
    if aliases:
        shown = ", ".join(aliases[:_SHOWN_ALIASES]) + (" …" if aliases[_SHOWN_ALIASES:] else "")
        raise UserError(
            Code.CONFLICT,
            f"{adapter.name} is still what these routes name: {shown}. Set or remove them first, "
            "with `freehold route`.",
        )


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


def _take(
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


def _insert(connection: Connection, new: Sequence[Route]) -> None:
    if new:
        names = [column.name for column in routes.columns]
        connection.execute(
            insert(routes), [{name: getattr(route, name) for name in names} for route in new]
        )


def route_of(row: RowMapping) -> Route:
    return Route(**{**row, "environment": Environment(row["environment"])})


def adapter_of(row: RowMapping) -> Adapter:
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
