"""The audit records in the database: appended, never changed."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import orjson
from sqlalchemy import Connection, func, insert, select

from freehold.core.audit import Head, Record, chained, stream_of
from freehold.core.errors import Code, UserError
from freehold.store.backend import EVERY_TENANT, Backend, Whose
from freehold.store.database import Database
from freehold.store.sqlite import Sqlite
from freehold.store.tables import audit

Witness = Callable[[Sequence[Record]], None]
_PAGE = 10_000


class AuditTable(Database):
    # Hears of records before they are there, and keeps what proves them elsewhere. Raises
    # `OSError`, and then nothing of the transaction happens.
    witness: Witness | None = None

    def audit_records(
        self, tenant_id: str, environment: str, limit: int, after: int = 0
    ) -> Sequence[Record]:
        """Of one stream, from the record after that number on."""
        return self._page(tenant_id, stream_of(tenant_id, environment), after, limit)

    def _page(self, whose: Whose, stream: str, after: int, limit: int) -> list[Record]:
        wanted = (audit.c.stream == stream) & (audit.c.number > after)
        with self._reading(whose) as connection:
            rows = connection.execute(
                select(audit).where(wanted).order_by(audit.c.number).limit(limit)
            )
            return [Record(row.stream, row.number, row.body.encode(), row.hash) for row in rows]

    def audit_trail(self, stream: str) -> Iterator[Record]:
        """All of a stream."""
        after = 0
        while page := self._page(EVERY_TENANT, stream, after, _PAGE):
            yield from page
            after = page[-1].number

    def audit_heads(self) -> Mapping[str, Head]:
        """Of every stream: to hold against what was signed, and to show to nobody."""
        last = select(audit.c.stream, func.max(audit.c.number)).group_by(audit.c.stream)
        with self._reading(EVERY_TENANT) as connection:
            return {stream: _head(connection, stream) for stream, _ in connection.execute(last)}

    def _record(self, connection: Connection, bodies: Iterable[tuple[str, bytes]]) -> None:
        """Appends to each stream, in their order. Raises `UserError(AUDIT_UNAVAILABLE)`
        when the witness cannot keep its part."""
        made: list[Record] = []
        by_stream = sorted(bodies, key=lambda each: each[0])  # which keeps their order
        for stream, group in groupby(by_stream, key=lambda each: each[0]):
            made += chained(stream, _head(connection, stream), [body for _, body in group])
        if not made:
            return
        if self.witness is not None:
            try:
                self.witness(made)
            except OSError as error:
                raise UserError(
                    Code.AUDIT_UNAVAILABLE,
                    f"What proves the audit records cannot be written ({error.strerror}), so no "
                    "request is served: free disk space or mend the disk.",
                    retry_after_s=2,
                ) from None
        connection.execute(
            insert(audit),
            [
                {"stream": r.stream, "number": r.number, "body": r.body.decode(), "hash": r.hash}
                for r in made
            ],
        )


class AuditReader(AuditTable):
    """The records of a database that nobody else need have open, or that somebody writes."""

    def __init__(self, where: Path | Backend) -> None:
        self._backend = Sqlite(where) if isinstance(where, Path) else where
        self._reader = self._backend.open_reader()

    def close(self) -> None:
        self._reader.dispose()


def body_of_request(row: Any) -> tuple[str, bytes]:
    """The record of a settled request: digests, counts and names, and nothing of what was
    said in it. It is the same whenever it is made, also again after a crash."""
    settled = row["settled_at_us"] if row["outcome"] != "orphaned" else row["created_at_us"]
    body = {
        "v": 1,
        "kind": "request",
        "id": row["id"],
        "at_us": settled,
        "began_at_us": row["created_at_us"],
        "principal": row["key_id"],
        "endpoint": row["endpoint"],
        "model": row["alias"],
        "engine": row["engine"],
        "base": row["base_digest"],
        "adapter": row["adapter_digest"],
        "policies": (row["policies"] or "").split(),
        "outcome": row["outcome"],
        "error": row["error_code"],
        "tokens_in": row["tokens_in"],
        "tokens_out": row["tokens_out"],
        "tokens_cached": row["tokens_cached"],
        "estimated": bool(row["estimated"]),
        "cost": row["cost"],
    }
    return stream_of(row["tenant_id"], row["environment"]), orjson.dumps(body)


def _head(connection: Connection, stream: str) -> Head:
    row = connection.execute(
        select(audit.c.number, audit.c.hash)
        .where(audit.c.stream == stream)
        .order_by(audit.c.number.desc())
        .limit(1)
    ).first()
    return Head() if row is None else Head(row.number, row.hash)
