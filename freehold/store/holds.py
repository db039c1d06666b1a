"""What running requests hold of limits, where several gateways share a database.

A hold is a row until its request is settled, in the same transaction that adds what was
really used to `spent`; for a minute's limits it stays for that minute. What is used and what
is held are read in one statement, so that no settlement falls between the two, and one
request of a tenant is held after the other, so that two never take the same rest.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    bindparam,
    case,
    delete,
    func,
    insert,
    literal,
    select,
    update,
)

from freehold.core.errors import Fault, UserError
from freehold.core.limit import DAY_US, Limit, Measure, Period, Window
from freehold.store.backend import PeerWords
from freehold.store.limits import LimitTable, sum_spent
from freehold.store.tables import holds

_MINUTE_US = 60_000_000
_KEPT_US = 2 * _MINUTE_US


@dataclass(frozen=True, slots=True)
class Wanted:
    """`within` is there for budgets."""

    limit: Limit
    within: Window | None
    amount: int


@dataclass(frozen=True, slots=True)
class Counted:
    """`minute` has what was used in it, oldest first: when (in microseconds from now), and
    how much."""

    used: int
    held: int
    minute: tuple[tuple[int, int], ...] = ()

    def with_(self, wanted: Wanted) -> "Counted":
        """And this held as well."""
        if wanted.limit.period is not Period.MINUTE:
            return Counted(self.used, self.held + wanted.amount)
        return Counted(self.used + wanted.amount, 0, (*self.minute, (0, wanted.amount)))

    def frees_in_s(self, over: int) -> float | None:
        """Until so much has passed out of the minute; None if it never does."""
        for ago_us, amount in self.minute:
            over -= amount
            if over <= 0:
                return max(0, _MINUTE_US - ago_us) / 1e6
        return None


@dataclass(frozen=True, slots=True)
class Ask:
    """What one request wants of all limits that fit it."""

    request_id: str
    wanted: Sequence[Wanted]


# Raises `UserError` where what was counted does not allow what is wanted.
Check = Callable[[Sequence[Wanted], Sequence[Counted]], None]


class HoldTable(LimitTable):
    def hold(
        self, tenant_id: str, asks: Sequence[Ask], check: Check
    ) -> list[Sequence[Counted] | UserError]:
        """One after the other, in one transaction: what there was before each, or why it is
        refused, and then nothing is held for it."""
        words = self._shared()
        answers: list[Sequence[Counted] | UserError] = []
        with self._holding(tenant_id) as connection:
            connection.execute(words.turn_of, {"tenant": tenant_id})
            now_us: int = connection.scalar(words.now_us) or 0
            distinct = {each.limit.id: each for ask in asks for each in ask.wanted}
            counted = _counted(connection, tenant_id, list(distinct.values()), now_us)
            known = dict(zip(distinct, counted, strict=True))
            rows: list[dict[str, Any]] = []
            for ask in asks:
                before = [known[each.limit.id] for each in ask.wanted]
                try:
                    check(ask.wanted, before)
                except UserError as refused:
                    answers.append(refused)
                    continue
                answers.append(before)
                for each in ask.wanted:
                    known[each.limit.id] = known[each.limit.id].with_(each)
                    rows.append(self._row_of(tenant_id, ask, each, now_us))
            if rows:
                connection.execute(insert(holds), rows)
        return answers

    def _row_of(self, tenant_id: str, ask: Ask, wanted: Wanted, now_us: int) -> dict[str, Any]:
        return {
            "request_id": ask.request_id, "limit_id": wanted.limit.id, "tenant_id": tenant_id,
            "gateway": self.gateway, "measure": wanted.limit.measure,
            "period": wanted.limit.period, "at_us": now_us, "amount": wanted.amount,
            "is_open": True,
        }  # fmt: skip

    def counted(self, tenant_id: str, wanted: Sequence[Wanted]) -> Sequence[Counted]:
        words = self._shared()
        with self._reading(tenant_id) as connection:
            now_us: int = connection.scalar(words.now_us) or 0
            return _counted(connection, tenant_id, wanted, now_us)

    def release(self, tenant_id: str, request_id: str) -> None:
        """A request that was not dispatched after all."""
        with self._holding(tenant_id) as connection:
            connection.execute(delete(holds).where(holds.c.request_id == request_id))

    def stop_running(self, tenant_id: str, request_id: str) -> None:
        """Its place among those that run at once is free, before its settlement is there."""
        mine = (holds.c.request_id == request_id) & (holds.c.period == Period.AT_ONCE)
        with self._holding(tenant_id) as connection:
            connection.execute(delete(holds).where(mine))

    def _shared(self) -> PeerWords:
        words = self._backend.words.peers
        if words is None:
            raise Fault("a gateway that has the database to itself counts in memory")
        return words

    def _end_holds(self, connection: Connection, settled: Iterable[Mapping[Any, Any]]) -> None:
        """In the transaction that counts what these requests used."""
        words = self._backend.words.peers
        if words is not None:
            _end(connection, settled, connection.scalar(words.now_us) or 0)

    def _drop_holds(self, connection: Connection, gateways: Sequence[str]) -> None:
        """Of gateways that died before they had reserved what they held it for."""
        connection.execute(delete(holds).where(holds.c.gateway.in_(gateways), holds.c.is_open))


def _end(connection: Connection, settled: Iterable[Mapping[Any, Any]], now_us: int) -> None:
    used = [
        {"of_request": row["id"], "tokens": row["tokens_in"] + row["tokens_out"]} for row in settled
    ]
    if used:
        ids = [row["of_request"] for row in used]
        mine = holds.c.request_id.in_(ids)
        connection.execute(delete(holds).where(mine, holds.c.period != Period.MINUTE))
        tokens = case(
            (holds.c.measure == Measure.TOKENS, bindparam("tokens")), else_=holds.c.amount
        )
        ended = update(holds).where(holds.c.request_id == bindparam("of_request"))
        connection.execute(ended.values(is_open=False, amount=tokens), used)
    old = holds.c.is_open.is_(False) & (holds.c.at_us < now_us - _KEPT_US)
    connection.execute(delete(holds).where(old))


def _counted(
    connection: Connection, tenant_id: str, wanted: Sequence[Wanted], now_us: int
) -> list[Counted]:
    if not wanted:
        return []
    sums: list[ColumnElement[Any]] = []
    for each in wanted:
        sums += _sums(tenant_id, each, now_us)
    row = [int(value) for value in connection.execute(select(*sums)).one()]
    found = [Counted(*pair) for pair in zip(row[::2], row[1::2], strict=True)]
    return [
        _with_minute(connection, each, counted, now_us)
        if each.limit.period is Period.MINUTE
        else counted
        for each, counted in zip(wanted, found, strict=True)
    ]


def _sums(tenant_id: str, wanted: Wanted, now_us: int) -> tuple[ColumnElement[Any], ...]:
    """Used, and held."""
    mine = holds.c.limit_id == wanted.limit.id
    held = select(func.coalesce(func.sum(holds.c.amount), 0))
    if wanted.limit.period is Period.MINUTE:
        recent = mine & (holds.c.at_us > now_us - _MINUTE_US)
        return held.where(recent).scalar_subquery(), literal(0)
    running = held.where(mine, holds.c.is_open)
    if wanted.within is None:
        return literal(0), running.scalar_subquery()
    running = running.where(holds.c.at_us >= wanted.within.first * DAY_US)
    return sum_spent(tenant_id, wanted.limit, wanted.within), running.scalar_subquery()


def _with_minute(connection: Connection, wanted: Wanted, counted: Counted, now_us: int) -> Counted:
    """When it frees is looked up only where it may be full: there are as many rows as
    requests in a minute."""
    if counted.used + wanted.amount <= wanted.limit.amount:
        return counted
    recent = (
        select(holds.c.at_us, holds.c.amount)
        .where(holds.c.limit_id == wanted.limit.id, holds.c.at_us > now_us - _MINUTE_US)
        .order_by(holds.c.at_us)
    )
    minute = tuple((now_us - at_us, amount) for at_us, amount in connection.execute(recent))
    return Counted(counted.used, 0, minute)
