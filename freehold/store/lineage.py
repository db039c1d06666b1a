"""What stays when routes move and adapters, datasets and models are removed: enough to say of
any past answer where it comes from."""

import json
import time
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, and_, delete, insert, select

from freehold.core.acts import acting
from freehold.core.binding import Environment, Route
from freehold.core.ids import new_id
from freehold.core.lineage import Asked, Led, Left, Remains
from freehold.store.backend import EVERY_TENANT
from freehold.store.database import Database
from freehold.store.tables import bases, remains, requests, route_history


class LineageTable(Database):
    def led(self, tenant_id: str, environment: Environment, alias: str, at_us: int) -> Led | None:
        """Where the alias led then; a person's route hides one that starts write."""
        mine = and_(
            route_history.c.tenant_id == tenant_id,
            route_history.c.environment == environment,
            route_history.c.alias == alias,
            route_history.c.at_us <= at_us,
        )
        found = None
        with self._reading(tenant_id) as connection:
            for managed in (False, True):
                found = _last(connection, mine & route_history.c.managed.is_(managed))
                if found is not None and not found.is_removed:
                    break
        return found

    def asked(self, tenant_id: str, environment: Environment, request_id: str) -> Asked | None:
        mine = and_(
            requests.c.id == request_id,
            requests.c.tenant_id == tenant_id,
            requests.c.environment == environment,
        )
        columns = (
            requests.c.id, requests.c.alias, requests.c.created_at_us, requests.c.base_digest,
            requests.c.adapter_digest,
        )  # fmt: skip
        with self._reading(tenant_id) as connection:
            row = connection.execute(select(*columns).where(mine)).first()
        return None if row is None else Asked(*row)

    def left(self, tenant_id: str, kind: Remains, digest: str) -> Sequence[Left]:
        """Of what had this digest, in any environment, the newest first."""
        mine = and_(
            remains.c.tenant_id == tenant_id, remains.c.kind == kind, remains.c.digest == digest
        )
        wanted = select(remains.c.content, remains.c.at_us).where(mine)
        with self._reading(tenant_id) as connection:
            rows = connection.execute(wanted.order_by(remains.c.at_us.desc()))
            return [Left(json.loads(content), at_us) for content, at_us in rows]

    def keep_bases(self, cards: Mapping[str, Mapping[str, Any]]) -> None:
        """What is known of models that serve, by digest."""
        with self._reading(EVERY_TENANT) as connection:
            told = connection.execute(select(bases.c.digest, bases.c.content))
            known = {row.digest: row.content for row in told}
        new = {digest: json.dumps(card, sort_keys=True) for digest, card in cards.items()}
        changed = [digest for digest in new if known.get(digest) != new[digest]]
        if not changed:
            return
        with self._writing(EVERY_TENANT) as connection:
            connection.execute(delete(bases).where(bases.c.digest.in_(changed)))
            rows = [{"digest": each, "content": new[each]} for each in changed]
            connection.execute(insert(bases), rows)

    def base(self, digest: str) -> Mapping[str, Any] | None:
        """A model that served once, as it was known last: no tenant's."""
        with self._reading(EVERY_TENANT) as connection:
            content = connection.scalar(select(bases.c.content).where(bases.c.digest == digest))
        return None if content is None else json.loads(content)


def leave(
    connection: Connection, kind: Remains, tenant_id: str, digest: str, content: Mapping[str, Any]
) -> None:
    """In the transaction that removes it."""
    row = {
        "id": new_id("rem"),
        "tenant_id": tenant_id,
        "kind": kind.value,
        "digest": digest,
        "content": json.dumps(content, ensure_ascii=False),
        "at_us": time.time_ns() // 1000,
    }
    connection.execute(insert(remains), [row])


def note_routes(connection: Connection, new: Sequence[Route]) -> None:
    """Where aliases lead from now on, as far as it is another place than before."""
    who = acting()
    rows, known, now_us = [], _known(connection, new), time.time_ns() // 1000
    for route in new:
        last = known.get((route.tenant_id, route.environment, route.managed, route.alias))
        leads_to = (route.base_digest, route.adapter_digest)
        if last is None or last.is_removed or (last.base_digest, last.adapter_digest) != leads_to:
            by = who.principal if who is not None and not route.managed else None
            rows.append(_row(route, max(now_us, last.at_us + 1 if last else 0), by))
    if rows:
        connection.execute(insert(route_history), rows)


def note_removal(connection: Connection, route: Route) -> None:
    who, last = acting(), _last(connection, _of(route))
    at_us = max(time.time_ns() // 1000, last.at_us + 1 if last else 0)
    row = _row(route, at_us, who.principal if who is not None else None)
    connection.execute(insert(route_history), [row | {"is_removed": True}])


def _known(
    connection: Connection, new: Sequence[Route]
) -> dict[tuple[str, str, bool, str], Led | None]:
    """Where these aliases led last; in one read of each place, as a start brings many."""
    found: dict[tuple[str, str, bool, str], Led | None] = {}
    if len(new) == 1:
        (route,) = new
        key = (route.tenant_id, route.environment, route.managed, route.alias)
        return {key: _last(connection, _of(route))}
    for place in {(each.tenant_id, each.environment, each.managed) for each in new}:
        mine = and_(
            route_history.c.tenant_id == place[0],
            route_history.c.environment == place[1],
            route_history.c.managed.is_(place[2]),
        )
        columns = [route_history.c[name] for name in ("alias", *Led.__slots__)]
        rows = connection.execute(select(*columns).where(mine).order_by(route_history.c.at_us))
        found |= {(*place, alias): Led(*led) for alias, *led in rows}  # the last one counts
    return found


def _of(route: Route) -> Any:
    return and_(
        route_history.c.tenant_id == route.tenant_id,
        route_history.c.environment == route.environment,
        route_history.c.alias == route.alias,
        route_history.c.managed.is_(route.managed),
    )


def _row(route: Route, at_us: int, by: str | None) -> dict[str, Any]:
    return {
        "id": new_id("led"),
        "tenant_id": route.tenant_id,
        "environment": route.environment,
        "alias": route.alias,
        "managed": route.managed,
        "at_us": at_us,
        "base_digest": route.base_digest,
        "adapter_digest": route.adapter_digest,
        "is_removed": False,
        "set_by": by,
    }


def _last(connection: Connection, mine: Any) -> Led | None:
    columns = [route_history.c[name] for name in Led.__slots__]
    newest = select(*columns).where(mine).order_by(route_history.c.at_us.desc()).limit(1)
    row = connection.execute(newest).first()
    return None if row is None else Led(*row)
