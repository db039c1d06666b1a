"""The store on SQL: usage and the ledger's transactions; tenants and keys are in
`identity.py`, routes and adapters in `routing.py`."""

import base64
from collections.abc import Mapping, Sequence
from typing import Any

import orjson
from sqlalchemy import (
    BigInteger,
    Connection,
    RowMapping,
    delete,
    func,
    insert,
    select,
    text,
    update,
)

from freehold.core.binding import Environment
from freehold.core.price import read_price
from freehold.core.usage import IdempotencyClaim, Outcome, StoredReply, UsageRow
from freehold.store import statements
from freehold.store.audit import AuditTable, body_of_request
from freehold.store.backend import EVERY_TENANT
from freehold.store.base import ClaimState, Entries
from freehold.store.events import EventTable
from freehold.store.identity import Identity
from freehold.store.limits import LimitTable, add_spent
from freehold.store.policies import PolicyTable
from freehold.store.roles import RoleTable
from freehold.store.routing import Routing
from freehold.store.sessions import SessionTable
from freehold.store.subjects import SubjectTable
from freehold.store.tables import facts, idempotency, requests

# What both databases understand.
_PUT_FACT = text(
    "INSERT INTO facts (name, value) VALUES (:name, :value)"
    " ON CONFLICT (name) DO UPDATE SET value = excluded.value"
)
_FIRST_FACT = text(
    "INSERT INTO facts (name, value) VALUES (:name, :value) ON CONFLICT (name) DO NOTHING"
)


class SqlStore(
    Identity,
    PolicyTable,
    SessionTable,
    RoleTable,
    Routing,
    LimitTable,
    SubjectTable,
    AuditTable,
    EventTable,
):
    # facts of this installation

    def put_fact(self, name: str, value: str) -> None:
        with self._writing(EVERY_TENANT) as connection:
            connection.execute(_PUT_FACT, {"name": name, "value": value})

    def first_fact(self, name: str, value: str) -> str:
        """What was said first: by another process, before, or now by this one."""
        with self._writing(EVERY_TENANT) as connection:
            connection.execute(_FIRST_FACT, {"name": name, "value": value})
            found = connection.scalar(select(facts.c.value).where(facts.c.name == name))
        return found or value

    # the ledger

    def apply(self, entries: Entries) -> None:
        if not entries.added:
            return
        words = self._backend.words
        with self._applying() as connection:
            for statement, rows in (
                (statements.reserve(words), entries.reservations),
                (statements.mark(words), list(entries.marks.values())),
            ):
                if rows:
                    connection.execute(statement, {"rows": orjson.dumps(rows).decode()})
            if entries.settlements:
                self._settle(connection, entries.settlements)
            for entry in entries.claims:
                _apply_claim(connection, entry)

    def _settle(self, connection: Connection, settlements: Mapping[str, Sequence[Any]]) -> None:
        """And leaves the audit record of each, in the order in which they were settled."""
        given = orjson.dumps(list(settlements.values())).decode()
        statement = statements.settle(self._backend.words)
        rows = connection.execute(statement, {"rows": given}).mappings()
        settled = {row["id"]: row for row in rows}
        add_spent(connection, settled.values())
        made = [body_of_request(settled[id]) for id in settlements if id in settled]
        self._record(connection, made, is_once=False)

    def claim(self, claim: IdempotencyClaim, now_us: int) -> ClaimState | None:
        mine = (idempotency.c.slot == claim.slot) & (idempotency.c.expires_at_us >= now_us)
        with self._reading(EVERY_TENANT) as connection:
            row = connection.execute(select(idempotency).where(mine)).mappings().first()
        if row is None:
            return None
        if row["body_hash"] != claim.body_hash:
            return ClaimState(mismatch=True)
        if row["sealed_body"] is None:
            return ClaimState(running=True)
        return ClaimState(
            reply=StoredReply(
                row["request_id"], row["status"], row["content_type"], row["sealed_body"]
            )
        )

    def settle_orphans(self, now_us: int) -> int:
        with self._applying() as connection:
            found = (
                connection.execute(
                    update(requests)
                    .where(requests.c.settled_at_us.is_(None))
                    .values(outcome=Outcome.ORPHANED, settled_at_us=now_us, estimated=True)
                    .returning(requests)
                )
                .mappings()
                .all()
            )
            by_id = _priced(connection, sorted(found, key=lambda row: str(row["id"])))
            add_spent(connection, by_id)
            self._record(connection, list(map(body_of_request, by_id)), is_once=False)
            connection.execute(
                delete(idempotency).where(
                    idempotency.c.sealed_body.is_(None) | (idempotency.c.expires_at_us < now_us)
                )
            )
        return len(found)

    # reports

    def usage(
        self,
        tenant_id: str,
        since_us: int,
        until_us: int,
        key_id: str | None = None,
        *,
        environment: Environment | None = None,
    ) -> Sequence[UsageRow]:
        day = self._backend.words.day(requests.c.created_at_us)
        failed = func.sum((requests.c.outcome != Outcome.OK).cast(requests.c.tokens_in.type))
        chosen = [
            requests.c.tenant_id == tenant_id,
            requests.c.created_at_us >= since_us,
            requests.c.created_at_us < until_us,
            requests.c.settled_at_us.is_not(None),
        ]
        if key_id is not None:
            chosen.append(requests.c.key_id == key_id)
        if environment is not None:
            chosen.append(requests.c.environment == environment)
        with self._reading(tenant_id) as connection:
            rows = connection.execute(
                select(
                    requests.c.key_id,
                    requests.c.alias,
                    requests.c.adapter_digest,
                    day,
                    func.count(),
                    failed,
                    func.sum(requests.c.tokens_in),
                    func.sum(requests.c.tokens_out),
                    func.sum(requests.c.tokens_cached),
                    func.coalesce(func.sum(requests.c.cost), 0).cast(BigInteger),
                    func.count() - func.count(requests.c.cost),
                )
                .where(*chosen)
                .group_by(requests.c.key_id, requests.c.alias, requests.c.adapter_digest, day)
                .order_by(day, requests.c.key_id, requests.c.alias, requests.c.adapter_digest)
            )
            return [UsageRow(*row) for row in rows]

    def billed_here(self, since_us: int) -> int:
        """What requests cost that this installation's own models answered, all tenants'."""
        mine = requests.c.base_digest.is_not(None) & (requests.c.created_at_us >= since_us)
        with self._reading(EVERY_TENANT) as connection:
            total = select(func.coalesce(func.sum(requests.c.cost), 0)).where(mine)
            return int(connection.scalar(total) or 0)

    def records(
        self,
        tenant_id: str,
        limit: int,
        before_id: str | None = None,
        *,
        environment: Environment | None = None,
    ) -> Sequence[dict[str, Any]]:
        """Single requests, newest first; ids sort by time."""
        chosen = [requests.c.tenant_id == tenant_id]
        if before_id is not None:
            chosen.append(requests.c.id < before_id)
        if environment is not None:
            chosen.append(requests.c.environment == environment)
        with self._reading(tenant_id) as connection:
            rows = connection.execute(
                select(requests).where(*chosen).order_by(requests.c.id.desc()).limit(limit)
            ).mappings()
            # The names of columns are no plain strings, which JSON does not take.
            return [
                {str(name): value for name, value in row.items() if name != "personal"}
                for row in rows
            ]


def _priced(connection: Connection, orphans: Sequence[RowMapping]) -> list[dict[str, Any]]:
    """With what they cost until they were cut off."""
    priced = []
    for row in orphans:
        cost = None
        if row["price"] is not None:
            tokens = row["tokens_in"], row["tokens_cached"], row["tokens_out"]
            cost = read_price(row["price"]).cost(*tokens)
            connection.execute(update(requests).where(requests.c.id == row["id"]).values(cost=cost))
        priced.append({**row, "cost": cost})
    return priced


def _apply_claim(connection: Connection, entry: Sequence[Any]) -> None:
    slot, request_id = entry[1], entry[2]
    if entry[0] == "c":
        connection.execute(delete(idempotency).where(idempotency.c.slot == slot))
        connection.execute(
            insert(idempotency).values(
                slot=slot, request_id=request_id, body_hash=entry[3], expires_at_us=entry[4]
            )
        )
        return
    mine = (idempotency.c.slot == slot) & (idempotency.c.request_id == request_id)
    status, content_type, sealed = entry[3:6]
    if sealed is None:  # nothing worth repeating: a retry may run
        connection.execute(delete(idempotency).where(mine))
        return
    connection.execute(
        update(idempotency)
        .where(mine)
        .values(status=status, content_type=content_type, sealed_body=base64.b64decode(sealed))
    )
