"""The store on SQL: keys, usage, and the ledger's transactions; routes and adapters are in
`routing.py`."""

import base64
from collections.abc import Sequence
from typing import Any

import orjson
from sqlalchemy import Connection, RowMapping, delete, func, insert, select, update
from sqlalchemy.exc import IntegrityError

from freehold.core.binding import Environment, Scope
from freehold.core.errors import Code, UserError
from freehold.core.usage import IdempotencyClaim, Outcome, StoredReply, UsageRow
from freehold.store.base import ClaimState, Entries, KeyRecord
from freehold.store.routing import Routing
from freehold.store.tables import api_keys, facts, idempotency, requests, tenants

# One statement for a whole batch: the driver gives up the interpreter once, not at
# each row, and the database reads the entries as they are.
_RESERVE = """
INSERT OR IGNORE INTO requests (id, tenant_id, environment, key_id, alias, endpoint, engine,
  base_digest, adapter_digest, conversation_id, priority, stream, created_at_us,
  tokens_in, tokens_out, tokens_cached, estimated)
SELECT value ->> 1, value ->> 2, value ->> 3, value ->> 4, value ->> 5, value ->> 6, value ->> 7,
  value ->> 8, value ->> 9, value ->> 10, value ->> 11, value ->> 12, value ->> 13, 0, 0, 0, 0
FROM json_each(?)
"""
_MARK = """
UPDATE requests SET tokens_in = value ->> 2, tokens_out = value ->> 3
FROM json_each(?) WHERE requests.id = value ->> 1 AND settled_at_us IS NULL
"""
_SETTLE = """
UPDATE requests SET outcome = value ->> 2, tokens_in = value ->> 3, tokens_out = value ->> 4,
  tokens_cached = value ->> 5, estimated = value ->> 6, ttft_us = value ->> 7,
  duration_us = value ->> 8, settled_at_us = value ->> 9, error_code = value ->> 10
FROM json_each(?) WHERE requests.id = value ->> 1 AND settled_at_us IS NULL
"""


class SqlStore(Routing):
    # facts of this installation

    def fact(self, name: str) -> str | None:
        with self._reading() as connection:
            return connection.scalar(select(facts.c.value).where(facts.c.name == name))

    def put_fact(self, name: str, value: str) -> None:
        with self._writing() as connection:
            connection.execute(delete(facts).where(facts.c.name == name))
            connection.execute(insert(facts).values(name=name, value=value))

    # tenants

    def tenant_named(self, name: str) -> str | None:
        with self._reading() as connection:
            return connection.scalar(select(tenants.c.id).where(tenants.c.name == name))

    def add_tenant(self, tenant_id: str, name: str, at_us: int) -> None:
        with self._writing() as connection:
            connection.execute(insert(tenants).values(id=tenant_id, name=name, created_at_us=at_us))

    # keys

    def key_by_hash(self, hashed: bytes) -> KeyRecord | None:
        with self._reading() as connection:
            row = (
                connection.execute(select(api_keys).where(api_keys.c.hash == hashed))
                .mappings()
                .first()
            )
        return _key(row) if row else None

    def keys(self, tenant_id: str) -> Sequence[KeyRecord]:
        with self._reading() as connection:
            rows = connection.execute(
                select(api_keys)
                .where(api_keys.c.tenant_id == tenant_id)
                .order_by(api_keys.c.created_at_us)
            ).mappings()
            return [_key(row) for row in rows]

    def add_key(self, record: KeyRecord) -> None:
        try:
            with self._writing() as connection:
                connection.execute(
                    insert(api_keys).values(
                        id=record.id,
                        tenant_id=record.tenant_id,
                        environment=record.environment,
                        name=record.name,
                        hash=record.hash,
                        scopes=" ".join(sorted(record.scopes)),
                        models=None if record.models is None else " ".join(sorted(record.models)),
                        created_at_us=record.created_at_us,
                        expires_at_us=record.expires_at_us,
                        revoked_at_us=record.revoked_at_us,
                    )
                )
        except IntegrityError:
            raise UserError(Code.CONFLICT, "This key is already known: nothing changed.") from None

    def revoke_key(self, tenant_id: str, key_id: str, at_us: int) -> KeyRecord | None:
        mine = (api_keys.c.id == key_id) & (api_keys.c.tenant_id == tenant_id)
        with self._writing() as connection:
            connection.execute(
                update(api_keys)
                .where(mine, api_keys.c.revoked_at_us.is_(None))
                .values(revoked_at_us=at_us)
            )
            row = connection.execute(select(api_keys).where(mine)).mappings().first()
        return _key(row) if row else None

    # the ledger

    def apply(self, entries: Entries) -> None:
        if not entries.added:
            return
        with self._writing() as connection:
            for statement, rows in (
                (_RESERVE, entries.reservations),
                (_MARK, list(entries.marks.values())),
                (_SETTLE, list(entries.settlements.values())),
            ):
                if rows:
                    connection.exec_driver_sql(statement, (orjson.dumps(rows).decode(),))
            for entry in entries.claims:
                _apply_claim(connection, entry)

    def claim(self, claim: IdempotencyClaim, now_us: int) -> ClaimState | None:
        mine = (idempotency.c.slot == claim.slot) & (idempotency.c.expires_at_us >= now_us)
        with self._reading() as connection:
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
        with self._writing() as connection:
            found = connection.execute(
                update(requests)
                .where(requests.c.settled_at_us.is_(None))
                .values(outcome=Outcome.ORPHANED, settled_at_us=now_us, estimated=True)
            ).rowcount
            connection.execute(
                delete(idempotency).where(
                    idempotency.c.sealed_body.is_(None) | (idempotency.c.expires_at_us < now_us)
                )
            )
        return found

    # reports

    def usage(
        self, tenant_id: str, since_us: int, until_us: int, key_id: str | None = None
    ) -> Sequence[UsageRow]:
        day = func.strftime("%Y-%m-%d", requests.c.created_at_us // 1_000_000, "unixepoch")
        failed = func.sum((requests.c.outcome != Outcome.OK).cast(requests.c.tokens_in.type))
        chosen = [
            requests.c.tenant_id == tenant_id,
            requests.c.created_at_us >= since_us,
            requests.c.created_at_us < until_us,
            requests.c.settled_at_us.is_not(None),
        ]
        if key_id is not None:
            chosen.append(requests.c.key_id == key_id)
        with self._reading() as connection:
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
                )
                .where(*chosen)
                .group_by(requests.c.key_id, requests.c.alias, requests.c.adapter_digest, day)
                .order_by(day, requests.c.key_id, requests.c.alias, requests.c.adapter_digest)
            )
            return [UsageRow(*row) for row in rows]

    def records(
        self, tenant_id: str, limit: int, before_id: str | None = None
    ) -> Sequence[dict[str, Any]]:
        """Single requests, newest first; ids sort by time."""
        chosen = [requests.c.tenant_id == tenant_id]
        if before_id is not None:
            chosen.append(requests.c.id < before_id)
        with self._reading() as connection:
            rows = connection.execute(
                select(requests).where(*chosen).order_by(requests.c.id.desc()).limit(limit)
            ).mappings()
            # The names of columns are no plain strings, which JSON does not take.
            return [{str(name): value for name, value in row.items()} for row in rows]


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


def _key(row: RowMapping) -> KeyRecord:
    return KeyRecord(
        id=row["id"],
        tenant_id=row["tenant_id"],
        environment=Environment(row["environment"]),
        name=row["name"],
        hash=row["hash"],
        scopes=frozenset(Scope(scope) for scope in row["scopes"].split()),
        models=None if row["models"] is None else frozenset(row["models"].split()),
        created_at_us=row["created_at_us"],
        expires_at_us=row["expires_at_us"],
        revoked_at_us=row["revoked_at_us"],
    )
