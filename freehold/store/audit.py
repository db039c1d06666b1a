"""The audit records in the database: appended, never changed."""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import groupby, takewhile
from typing import Any

import orjson
from sqlalchemy import ColumnElement, Connection, Row, func, insert, select, tuple_

from freehold.core.acts import Acting, Change, Via, acting
from freehold.core.audit import (
    INSTALLATION,
    Filed,
    Head,
    Kind,
    Record,
    Sought,
    chained,
    is_change,
    link,
    stream_of,
)
from freehold.core.errors import Code, Fault, UserError
from freehold.core.ids import new_id
from freehold.core.subject import Owner, Sealed, SubjectKey
from freehold.store.backend import EVERY_TENANT, Whose
from freehold.store.database import Database, parts
from freehold.store.packed import packed
from freehold.store.tables import audit, subject_keys

Witness = Callable[[Sequence[Record]], None]
Sealer = Callable[[Sequence[Owner], Mapping[str, str], str], Sealed]
Made = tuple[str, bytes]  # a stream, and the body of a record for it
# Where a record is among those of several chains: its time, its stream, its number.
Place = tuple[int, str, int]
_PAGE = 10_000


@dataclass(slots=True)
class Changing:
    """A transaction in which somebody changes something."""

    connection: Connection
    changes: list[Change] | None = None

    def note(self, change: Change | None) -> None:
        """What was changed; None when all was so already."""
        self.changes = self.changes or []
        if change is not None:
            self.changes.append(change)


@dataclass(slots=True)
class _Owed:
    """What the witness has and the database does not, since a transaction failed in between."""

    records: dict[str, list[Record]] = field(default_factory=dict)  # that nothing makes again
    numbers: dict[str, int] = field(default_factory=dict)  # the last that the witness has


class AuditTable(Database):
    # Hears of records before they are there, and keeps what proves them elsewhere. Raises
    # `OSError`, and then nothing of the transaction happens.
    witness: Witness | None = None
    # Seals personal fields of what people do; without one they are left out.
    sealer: Sealer | None = None
    _owed: _Owed | None = None
    _reads_others = False

    def audit_records(
        self, tenant_id: str, environment: str, limit: int, after: int = 0
    ) -> Sequence[Record]:
        """Of one stream, from the record after that number on."""
        return self.audit_page(stream_of(tenant_id, environment), limit, after)

    def audit_page(self, stream: str, limit: int, after: int = 0) -> list[Record]:
        return self._page(_whose(stream), self._written_to(stream), limit, after)

    def audit_found(
        self,
        stream: str,
        sought: Sought,
        limit: int,
        after: Place | None = None,
        behind: int = 0,
    ) -> list[Record]:
        """Those that are sought, of all chains of the stream, in the order of their places;
        `after` is that of the last one that was seen, `behind` a number in each chain. What is
        filed under no time has no place: that somebody did this `verify` tells."""
        found: list[Record] = []
        with self._reading(EVERY_TENANT) as connection:
            chains = self._chains(connection, stream)
            self._backend.see(connection, _whose(stream))
            for chain in chains:  # each by an index, however many others there are
                wanted = [audit.c.stream == chain, audit.c.at_us.is_not(None)]
                wanted += [*_conditions(sought), *_behind(chain, after)]
                if behind:
                    wanted.append(audit.c.number > behind)
                rows = select(audit).where(*wanted).order_by(audit.c.at_us, audit.c.number)
                found += [_read(row) for row in connection.execute(rows.limit(limit))]
        return sorted(found, key=place_of)[:limit]

    def _chains(self, connection: Connection, stream: str) -> list[str]:
        """Each gateway has one of its own, which no other can break."""
        if self.gateway is None:
            return [stream]
        found, last = [], _whose(stream)
        if last == stream:
            found.append(stream)
        while True:
            following = select(func.min(audit.c.stream)).where(audit.c.stream > last)
            name: str | None = connection.scalar(following)
            if name is None or not name.startswith(_whose(stream)):
                return found
            if name == stream or name.startswith(f"{stream}@"):
                found.append(name)
            last = name

    def _written_to(self, stream: str) -> ColumnElement[bool]:
        """By every gateway."""
        alone = audit.c.stream == stream
        if self.gateway is None:
            return alone
        return alone | audit.c.stream.startswith(f"{stream}@", autoescape=True)

    def _page(
        self, whose: Whose, those: ColumnElement[bool], limit: int, after: int
    ) -> list[Record]:
        wanted = select(audit).where(those, audit.c.number > after)
        with self._reading(whose) as connection:
            rows = connection.execute(wanted.order_by(audit.c.number, audit.c.stream).limit(limit))
            return [_read(row) for row in rows.all()]

    def audit_trail(self, stream: str, after: int = 0) -> Iterator[Record]:
        """All of one chain, behind that number."""
        while page := self._page(EVERY_TENANT, audit.c.stream == stream, _PAGE, after):
            yield from page
            after = page[-1].number

    def audit_heads(self) -> Mapping[str, Head]:
        """Of every chain that this gateway writes: to hold against what was signed, and to
        show to nobody. Takes as long as there are chains, however many records they have."""
        found: dict[str, Head] = {}
        last = ""
        with self._reading(EVERY_TENANT) as connection:
            while True:
                following = select(func.min(audit.c.stream)).where(audit.c.stream > last)
                stream: str | None = connection.scalar(following)
                if stream is None:
                    return found
                if self._reads_others or self.is_own(stream):
                    found[stream] = _head(connection, stream)
                last = stream

    def acted(self, change: Change) -> None:
        """Records what was done that changed nothing in the database."""
        with self._changing(EVERY_TENANT) as changing:
            changing.note(change)

    def refused(self, who: Acting, stream: str, code: str) -> None:
        """Records that somebody was not let do what they wanted to."""
        body = _act(who, None) | {"outcome": "refused", "error": code}
        with self._transaction(EVERY_TENANT) as connection:
            body["personal"] = self._personal(connection, body["id"], who, None)
            self._record(connection, [(stream, orjson.dumps(body))], is_once=True)

    def refusals(self, counts: Mapping[str, int], since_us: int, until_us: int) -> None:
        """Records how many came without a right to be known, by the code they got."""
        body = {
            "v": 3,
            "kind": "refusals",
            "id": new_id("evt"),
            "at_us": until_us,
            "since_us": since_us,
            "counts": dict(sorted(counts.items())),
        }
        with self._transaction(EVERY_TENANT) as connection:
            self._record(connection, [(INSTALLATION, orjson.dumps(body))], is_once=True)

    def put_back(self, records: Iterable[Record]) -> None:
        """Stores what the witness had and the database lost: the gateway died before the
        change took effect, or somebody removed the records. Which one, nobody can tell from
        here, so another record says that they were put back. Those that do not follow what
        there is are left out, for `Checkpoints.check` to find."""
        owed = self._owed = self._owed or _Owed()
        for stream, group in groupby(records, key=lambda each: each.stream):
            owed.records[stream] = list(group)
        with self._transaction(EVERY_TENANT) as connection:
            for stream in list(owed.records):
                if late := self._late(stream, _head(connection, stream)):
                    self._store(connection, [*late, *_told_of(stream, late)])

    @contextmanager
    def _changing(self, whose: Whose) -> Iterator[Changing]:
        """A transaction whose changes are noted, and recorded with it or not made. Raises
        `Fault` when nothing was noted."""
        with self._transaction(whose) as connection:
            changing = Changing(connection)
            yield changing
            if changing.changes is None:
                raise Fault("an administrative change that says nothing of itself")
            who = acting() or Acting("freehold", Via.START)
            # Who acts may be of another tenant than what was changed.
            self._backend.see(connection, EVERY_TENANT)
            made: list[Made] = []
            for each in changing.changes:
                body = _act(who, each)
                body["personal"] = self._personal(connection, body["id"], who, each)
                made.append((each.stream, packed(body)))
            self._record(connection, made, is_once=True)

    def _personal(
        self, connection: Connection, record_id: str, who: Acting, change: Change | None
    ) -> dict[str, Any] | None:
        """Of who acts, and of the key that was changed; with data keys of their own."""
        owners, fields = [(who.tenant_id, who.principal)], dict(who.personal)
        if change is not None and change.about is not None:
            owners.append((change.stream.partition("/")[0], change.id))
            fields["about"] = change.about
        if self.sealer is None or not fields:
            return None
        sealed = self.sealer(owners, fields, record_id)
        connection.execute(insert(subject_keys), [row_of(each) for each in sealed.new])
        return {"keys": sealed.keys, "sealed": sealed.text}

    def _record(self, connection: Connection, made: Sequence[Made], *, is_once: bool) -> None:
        """Appends to each stream, in their order. Raises `UserError`: `AUDIT_UNAVAILABLE`
        when the witness cannot keep its part."""
        records: list[Record] = []
        by_stream = sorted(made, key=lambda each: each[0])  # which keeps their order
        for name, group in groupby(by_stream, key=lambda each: each[0]):
            stream, bodies = self.own(name), [body for _, body in group]
            records += self._following(connection, stream, bodies, is_once)
        if records:
            self._store(connection, records)

    def _store(self, connection: Connection, records: Sequence[Record]) -> None:
        if self.witness is not None:
            try:
                self.witness(records)
            except OSError as error:
                what = error.filename or "what proves them"
                raise UserError(
                    Code.AUDIT_UNAVAILABLE,
                    f"Audit records cannot be kept ({what}: {error.strerror}), so no request is "
                    "served and nothing changed: free disk space or mend the disk.",
                    retry_after_s=2,
                ) from None
        self._owe(records)
        for some in parts(records):
            connection.execute(insert(audit), [_row(record) for record in some])

    def _following(
        self, connection: Connection, stream: str, bodies: Sequence[bytes], is_once: bool
    ) -> list[Record]:
        """The next records of a stream, behind those that the witness has already."""
        head = _head(connection, stream)
        late = self._late(stream, head)
        if late:
            head = Head(late[-1].number, late[-1].hash)
        known = self._owed.numbers.get(stream, 0) if self._owed else 0
        if is_once and known > head.number:
            # The thread that applies settlements brings those again, in their places.
            raise UserError(
                Code.STORAGE_UNAVAILABLE,
                "Earlier audit records are still to be stored, so nothing is changed now: try "
                "again.",
                retry_after_s=2,
            )
        undone = [each.number for each in takewhile(is_change, reversed(late))][::-1]
        if undone:
            late += chained(stream, head, [_again(Kind.UNDONE, undone)], is_once=True)
            head = Head(late[-1].number, late[-1].hash)
        return [*late, *chained(stream, head, bodies, is_once=is_once)]

    def _late(self, stream: str, head: Head) -> list[Record]:
        """Records that nothing makes again and that come next, behind that head."""
        owed = self._owed.records.get(stream) if self._owed else None
        if self._owed is None or not owed:
            return []
        found = []
        for record in owed:
            if record.number <= head.number:
                continue
            expected = link(head.hash, stream, head.number + 1, record.body)
            if record.number != head.number + 1 or record.hash != expected:
                break
            found.append(record)
            head = Head(record.number, record.hash)
        if not found:
            del self._owed.records[stream]
        return found

    def _owe(self, records: Sequence[Record]) -> None:
        """Until the transaction has ended well; nothing is owed that is stored."""
        owed = self._owed = self._owed or _Owed()
        for record in records:
            owed.numbers[record.stream] = record.number
            if record.is_once:
                mine = owed.records.setdefault(record.stream, [])
                if not mine or mine[-1].number < record.number:
                    mine.append(record)


def body_of_request(row: Any) -> Made:
    """The record of a settled request: digests, counts and names, and nothing of what was
    said in it. It is the same whenever it is made, also again after a crash."""
    settled = row["settled_at_us"] if row["outcome"] != "orphaned" else row["created_at_us"]
    body = {
        "v": 3,
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
        "content": row["content"],
        "personal": orjson.Fragment(row["personal"]) if row["personal"] else None,
    }
    return stream_of(row["tenant_id"], row["environment"]), packed(body)


def _act(who: Acting, change: Change | None) -> dict[str, Any]:
    return {
        "v": 3,
        "kind": "act",
        "id": new_id("evt"),
        "at_us": time.time_ns() // 1000,
        "act": change and change.act.value,
        "object": change and change.id,
        "name": change and change.name,
        "fields": list(change.fields) if change else [],
        "principal": who.principal,
        "via": who.via.value,
        "action": who.action or None,
        "operation": who.operation or None,
        "request": who.request_id,
        "policies": list(who.policies),
        "outcome": "ok",
        "error": None,
    }


def _again(kind: Kind, numbers: Sequence[int]) -> bytes:
    body = {
        "v": 3,
        "kind": kind.value,
        "id": new_id("evt"),
        "at_us": time.time_ns() // 1000,
        "records": numbers,
    }
    return orjson.dumps(body)


def _told_of(stream: str, late: Sequence[Record]) -> list[Record]:
    """What says that they were put back. Where the last says already that those before it were
    undone, the place behind it is of a request, which the journal brings again."""
    if orjson.loads(late[-1].body)["kind"] == Kind.UNDONE:
        return []
    told = _again(Kind.RESTORED, [each.number for each in late])
    return chained(stream, Head(late[-1].number, late[-1].hash), [told], is_once=True)


def row_of(key: SubjectKey) -> dict[str, Any]:
    return {name: getattr(key, name) for name in SubjectKey.__slots__}


def place_of(record: Record) -> Place:
    return record.filed.at_us if record.filed else 0, record.stream, record.number


def _behind(chain: str, place: Place | None) -> Iterator[ColumnElement[bool]]:
    if place is None:
        return
    at_us, stream, number = place
    if chain == stream:
        yield tuple_(audit.c.at_us, audit.c.number) > (at_us, number)
    else:
        yield audit.c.at_us >= at_us if chain > stream else audit.c.at_us > at_us


def _conditions(sought: Sought) -> Iterator[ColumnElement[bool]]:
    if sought.since_us is not None:
        yield audit.c.at_us >= sought.since_us
    if sought.until_us is not None:
        yield audit.c.at_us < sought.until_us
    if sought.principal is not None:
        yield audit.c.principal == sought.principal
    if sought.model is not None:
        yield audit.c.model == sought.model
    if sought.kind is not None:
        yield audit.c.kind == sought.kind
        if sought.kind != Kind.REQUEST:
            yield audit.c.model.is_(None)  # which the few others have an index by


def _row(record: Record) -> dict[str, Any]:
    body = orjson.loads(record.body)
    return {
        "stream": record.stream,
        "number": record.number,
        "body": record.body.decode(),
        "hash": record.hash,
        "at_us": body["at_us"],
        "kind": body["kind"],
        "principal": body.get("principal"),
        "model": body.get("model"),
    }


def _read(row: Row[Any]) -> Record:
    values: tuple[Any, ...] = tuple(row)
    stream, number, body, hashed, at_us, kind, principal, model = values
    # A version that files none leaves them empty.
    found = None if at_us is None else Filed(at_us, kind, principal, model)
    return Record(stream, number, body.encode(), hashed, False, found)


def _whose(stream: str) -> str:
    """The installation has records of its own as a tenant has."""
    return stream.partition("/")[0]


def _head(connection: Connection, stream: str) -> Head:
    row = connection.execute(
        select(audit.c.number, audit.c.hash)
        .where(audit.c.stream == stream)
        .order_by(audit.c.number.desc())
        .limit(1)
    ).first()
    return Head() if row is None else Head(row.number, row.hash)
