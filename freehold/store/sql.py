"""The store on SQL: usage and the ledger's transactions; tenants and keys are in
`identity.py`, routes and adapters in `routing.py`."""

import base64
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from sqlalchemy import (
    BigInteger,
    ColumnElement,
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
from freehold.store.audit import AuditTable, Made, body_of_request
from freehold.store.backend import EVERY_TENANT
from freehold.store.base import ClaimState, Entries
from freehold.store.database import parts
from freehold.store.datasets import DatasetTable
from freehold.store.decisions import DecisionTable
from freehold.store.events import EventTable
from freehold.store.feedback import FeedbackTable
from freehold.store.gates import GateTable
from freehold.store.holds import HoldTable
from freehold.store.identity import Identity
from freehold.store.jobs import JobTable
from freehold.store.limits import add_spent
from freehold.store.lineage import LineageTable
from freehold.store.patterns import PatternTable
from freehold.store.policies import PolicyTable
from freehold.store.promotions import PromotionTable
from freehold.store.remembered import RememberedTable
from freehold.store.restraints import RestraintTable
from freehold.store.roles import RoleTable
from freehold.store.sessions import SessionTable
from freehold.store.signatures import SignatureTable
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
_SEALED = ("personal", "content")  # for the audit records alone
_CONTENT = ("request_id", "tenant_id", "environment", "data_keys")
_KEEP = text(
    "INSERT INTO audit_content (request_id, tenant_id, environment, data_keys, sealed)"
    " VALUES (:request_id, :tenant_id, :environment, :data_keys, :sealed)"
    " ON CONFLICT (request_id) DO NOTHING"
)


_AT_ONCE = 10_000
_COUNTED = (
    "id", "tenant_id", "environment", "account", "key_id", "created_at_us", "tokens_in",
    "tokens_out", "cost",
)  # fmt: skip
_log = logging.getLogger(__name__)


class SqlStore(
    Identity,
    PolicyTable,
    SessionTable,
    RoleTable,
    PromotionTable,
    HoldTable,
    SubjectTable,
    PatternTable,
    RestraintTable,
    DatasetTable,
    RememberedTable,
    SignatureTable,
    LineageTable,
    DecisionTable,
    FeedbackTable,
    JobTable,
    GateTable,
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
                for some in parts(rows):
                    given = {"rows": _array(some), "gateway": self.gateway}
                    connection.execute(statement, given)
            for _, *content, sealed in entries.contents:
                kept = dict(zip(_CONTENT, content, strict=True))
                connection.execute(_KEEP, {**kept, "sealed": base64.b64decode(sealed)})
            if entries.settlements:
                self._settle(connection, entries.settlements)
            for entry in entries.claims:
                if entry[0] == "d":
                    _end_claim(connection, entry)
                elif words.peers is None:  # else it was made before the request was let in
                    _put_claim(connection, entry)

    def _settle(self, connection: Connection, settlements: Mapping[str, bytes]) -> None:
        """And leaves the audit record of each, in the order in which they were settled."""
        statement = statements.settle(self._backend.words)
        settled: dict[str, Mapping[str, Any]] = {}
        made: list[Made] = []
        for ids in parts(list(settlements)):
            given = {"rows": _array([settlements[id] for id in ids])}
            rows = {row["id"]: row for row in connection.execute(statement, given).mappings()}
            ours = [rows[id] for id in ids if id in rows]
            made += map(body_of_request, ours)
            settled |= {row["id"]: {name: row[name] for name in _COUNTED} for row in ours}
        add_spent(connection, settled.values())
        self._end_holds(connection, settled.values())
        self._record(connection, made, is_once=False)
        late = [id for id in settlements if id not in settled]
        if late and self.gateway is not None:
            self._say_late(connection, late)

    def _say_late(self, connection: Connection, ids: Sequence[str]) -> None:
        """Most are settled as they say, by entries that are applied again after a crash."""
        given_up = requests.c.outcome == Outcome.ORPHANED
        count = 0
        for at in range(0, len(ids), _AT_ONCE):
            some = requests.c.id.in_(ids[at : at + _AT_ONCE]) & given_up
            count += connection.scalar(select(func.count()).select_from(requests).where(some)) or 0
        if count:
            _log.warning(
                "settled_too_late",
                extra={
                    "reason": f"{count} requests were taken for orphaned while this gateway was "
                    "not heard of: what they used counts as it was known then"
                },
            )

    def claim(
        self, claim: IdempotencyClaim, request_id: str, now_us: int, ended: str | None = None
    ) -> ClaimState | None:
        words = self._backend.words.peers
        if words is not None:
            asked = asdict(claim) | {
                "request_id": request_id, "now_us": now_us, "ended": ended,
                "gateway": self.gateway,
            }  # fmt: skip
            with self._beside() as connection:
                if connection.scalar(words.claim, asked) is not None:
                    return ClaimState(claimed=True)
        mine = (idempotency.c.slot == claim.slot) & (idempotency.c.expires_at_us >= now_us)
        with self._reading(EVERY_TENANT) as connection:
            row = connection.execute(select(idempotency).where(mine)).mappings().first()
        if row is None or row["request_id"] == ended:
            return None if words is None else ClaimState(running=True)  # it ends just now
        if row["body_hash"] != claim.body_hash:
            return ClaimState(mismatch=True)
        if row["sealed_body"] is None:
            return ClaimState(running=True)
        return ClaimState(
            reply=StoredReply(
                row["request_id"], row["status"], row["content_type"], row["sealed_body"]
            )
        )

    def unclaim(self, slot: str, request_id: str) -> None:
        if self._backend.words.peers is not None:
            with self._beside() as connection:
                connection.execute(delete(idempotency).where(_held_by(slot, request_id)))

    def settle_orphans(self, now_us: int) -> int:
        mine: ColumnElement[bool] = requests.c.settled_at_us.is_(None)
        running: ColumnElement[bool] = idempotency.c.sealed_body.is_(None)
        if self.gateway is not None:
            mine &= requests.c.gateway == self.gateway
            running &= idempotency.c.gateway == self.gateway
        with self._applying() as connection:
            count = self._give_up(connection, mine, now_us, is_once=False)
            if self.gateway is not None:
                self._drop_holds(connection, [self.gateway])
            connection.execute(
                delete(idempotency).where(running | (idempotency.c.expires_at_us < now_us))
            )
        return count

    def sweep(self, silent_us: int) -> int:
        """Settles what gateways left open that were not heard of for so long, and frees their
        idempotency keys; returns how many requests. What such a gateway says of them later
        comes too late and changes nothing."""
        words = self._backend.words.peers
        if words is None:
            return 0
        with self._applying() as connection:
            now_us: int = connection.scalar(words.now_us)
            silent = self._silent(connection, now_us, silent_us)
            left = requests.c.settled_at_us.is_(None) & requests.c.gateway.in_(silent)
            count = self._give_up(connection, left, now_us, is_once=True) if silent else 0
            self._drop_holds(connection, silent)
            running = idempotency.c.sealed_body.is_(None) & idempotency.c.gateway.in_(silent)
            connection.execute(delete(idempotency).where(running))
        return count

    def _give_up(
        self, connection: Connection, those: ColumnElement[bool], now_us: int, *, is_once: bool
    ) -> int:
        """Settles requests from their last marks; `is_once` where no second try would find
        the same."""
        found = (
            connection.execute(
                update(requests)
                .where(those)
                .values(outcome=Outcome.ORPHANED, settled_at_us=now_us, estimated=True)
                .returning(requests)
            )
            .mappings()
            .all()
        )
        by_id = _priced(connection, sorted(found, key=lambda row: str(row["id"])))
        add_spent(connection, by_id)
        self._end_holds(connection, by_id)
        self._record(connection, list(map(body_of_request, by_id)), is_once=is_once)
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
                {str(name): value for name, value in row.items() if name not in _SEALED}
                for row in rows
            ]


def _array(written: Sequence[bytes]) -> str:
    return (b"[%b]" % b",".join(written)).decode()


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


def _put_claim(connection: Connection, entry: Sequence[Any]) -> None:
    slot, request_id = entry[1], entry[2]
    connection.execute(delete(idempotency).where(idempotency.c.slot == slot))
    connection.execute(
        insert(idempotency).values(
            slot=slot, request_id=request_id, body_hash=entry[3], expires_at_us=entry[4]
        )
    )


def _end_claim(connection: Connection, entry: Sequence[Any]) -> None:
    mine = _held_by(entry[1], entry[2])
    status, content_type, sealed = entry[3:6]
    if sealed is None:  # nothing worth repeating: a retry may run
        connection.execute(delete(idempotency).where(mine))
        return
    connection.execute(
        update(idempotency)
        .where(mine)
        .values(status=status, content_type=content_type, sealed_body=base64.b64decode(sealed))
    )


def _held_by(slot: str, request_id: str) -> ColumnElement[bool]:
    return (idempotency.c.slot == slot) & (idempotency.c.request_id == request_id)
