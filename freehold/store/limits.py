"""Limits, and what was spent that they are held against."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sqlalchemy import (
    Connection,
    RowMapping,
    ScalarSelect,
    delete,
    func,
    insert,
    select,
    text,
    update,
)

from freehold.core.acts import Act, Change
from freehold.core.audit import stream_of
from freehold.core.binding import Environment
from freehold.core.limit import DAY_US, Limit, Measure, Period, Window
from freehold.store.audit import AuditTable
from freehold.store.backend import EVERY_TENANT
from freehold.store.identity import count_change
from freehold.store.tables import limits, spent

_ADD_SPENT = text(
    "INSERT INTO spent (tenant_id, environment, account, day, requests, tokens, cost) "
    "VALUES (:tenant_id, :environment, :account, :day, :requests, :tokens, :cost) "
    "ON CONFLICT (tenant_id, environment, account, day) DO UPDATE SET "
    "requests = spent.requests + excluded.requests, tokens = spent.tokens + excluded.tokens, "
    "cost = spent.cost + excluded.cost"
)


class LimitTable(AuditTable):
    def every_limit(self) -> Sequence[Limit]:
        """Of all tenants: to hold requests against, and to show to nobody."""
        with self._reading(EVERY_TENANT) as connection:
            return [_limit(row) for row in connection.execute(select(limits)).mappings()]

    def limits_mark(self) -> tuple[int, int]:
        """Another one whenever a limit was set or removed: of many thousands none is read
        again because a key was made."""
        told = select(func.count(), func.coalesce(func.sum(limits.c.set_at_us), 0))
        with self._reading(EVERY_TENANT) as connection:
            count, times = connection.execute(told.select_from(limits)).one()
        return int(count), int(times)

    def limits(self, tenant_id: str) -> Sequence[Limit]:
        """Oldest first."""
        mine = select(limits).where(limits.c.tenant_id == tenant_id).order_by(limits.c.id)
        with self._reading(tenant_id) as connection:
            return [_limit(row) for row in connection.execute(mine).mappings()]

    def set_limit(self, tenant_id: str, wanted: Limit) -> Limit:
        """In place of the one for the same, which keeps its id."""
        same = (
            (limits.c.tenant_id == tenant_id)
            & (limits.c.environment == (wanted.environment or ""))
            & (limits.c.subject == (wanted.subject or ""))
            & (limits.c.measure == wanted.measure)
            & (limits.c.period == wanted.period)
            & (limits.c.is_own == wanted.is_own)
        )
        changed = {
            "amount": wanted.amount, "set_at_us": wanted.set_at_us, "set_by": wanted.set_by,
        }  # fmt: skip
        with self._changing(tenant_id) as changing:
            connection = changing.connection
            if not connection.execute(update(limits).where(same).values(**changed)).rowcount:
                connection.execute(insert(limits).values(**row_of(tenant_id, wanted)))
            count_change(connection)
            found = _limit(connection.execute(select(limits).where(same)).mappings().one())
            changing.note(_change(Act.LIMIT_SET, found, "amount"))
            return found

    def remove_limit(self, tenant_id: str, environment: Environment, limit_id: str) -> Limit | None:
        """One of this environment, or of all together."""
        mine = (limits.c.id == limit_id) & (limits.c.tenant_id == tenant_id)
        mine &= limits.c.environment.in_(("", environment))
        with self._changing(tenant_id) as changing:
            connection = changing.connection
            row = connection.execute(select(limits).where(mine)).mappings().first()
            if row is None:
                changing.note(None)
                return None
            connection.execute(delete(limits).where(mine))
            count_change(connection)
            changing.note(_change(Act.LIMIT_REMOVE, _limit(row)))
        return _limit(row)

    def spent(self, tenant_id: str, limit: Limit, within: Window) -> int:
        """What settled requests used of it in these days."""
        with self._reading(tenant_id) as connection:
            return int(connection.scalar(select(sum_spent(tenant_id, limit, within))) or 0)


def sum_spent(tenant_id: str, limit: Limit, within: Window) -> ScalarSelect[Any]:
    chosen = [spent.c.tenant_id == tenant_id, spent.c.day >= within.first]
    if within.until is not None:
        chosen.append(spent.c.day < within.until)
    if limit.environment is not None:
        chosen.append(spent.c.environment == limit.environment)
    if limit.subject is not None:
        chosen.append(spent.c.account == limit.subject)
    total = func.coalesce(func.sum(_COUNTED[limit.measure]), 0)
    return select(total).where(*chosen).scalar_subquery()


_COUNTED = {
    Measure.REQUESTS: spent.c.requests,
    Measure.TOKENS: spent.c.tokens,
    Measure.MONEY: spent.c.cost,
}


def add_spent(connection: Connection, settled: Iterable[Mapping[Any, Any]]) -> None:
    """Counts requests that are settled in this transaction, by the day they began on; in one
    order, so that two gateways never wait for each other."""
    sums: dict[tuple[str, str, str, int], list[int]] = {}
    for row in settled:
        whose = row["tenant_id"], row["environment"], row["account"] or row["key_id"]
        counted = sums.setdefault((*whose, row["created_at_us"] // DAY_US), [0, 0, 0])
        counted[0] += 1
        counted[1] += row["tokens_in"] + row["tokens_out"]
        counted[2] += row["cost"] or 0
    names = ("tenant_id", "environment", "account", "day", "requests", "tokens", "cost")
    if sums:
        rows = [
            dict(zip(names, (*key, *counted), strict=True)) for key, counted in sorted(sums.items())
        ]
        connection.execute(_ADD_SPENT, rows)


def _change(act: Act, limit: Limit, *fields: str) -> Change:
    stream = limit.tenant_id
    if limit.environment is not None:
        stream = stream_of(limit.tenant_id, limit.environment)
    return Change(act, stream, limit.id, fields, f"{limit.measure.value} {limit.period.value}")


def row_of(tenant_id: str, limit: Limit) -> dict[str, Any]:
    return {
        "id": limit.id,
        "tenant_id": tenant_id,
        "environment": limit.environment or "",
        "subject": limit.subject or "",
        "measure": limit.measure,
        "period": limit.period,
        "is_own": limit.is_own,
        "amount": limit.amount,
        "set_at_us": limit.set_at_us,
        "set_by": limit.set_by,
    }


def _limit(row: RowMapping) -> Limit:
    return Limit(
        row["id"],
        row["tenant_id"],
        Environment(row["environment"]) if row["environment"] else None,
        row["subject"] or None,
        Measure(row["measure"]),
        Period(row["period"]),
        row["amount"],
        row["is_own"],
        row["set_at_us"],
        row["set_by"],
    )
