"""Whether audit records are all there, unchanged and in order."""

import gc
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import orjson
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from freehold.core.audit import BEGINNING, Record, link
from freehold.core.errors import Code, UserError
from freehold.core.subject import Owner, SubjectKey, key_id
from freehold.secure import checkpoints
from freehold.secure.checkpoints import SHOWN_BYTES
from freehold.store.subjects import AuditReader

_MOST_DOUBTS = 10_000
_FILED = b'{"v":3,'  # records of earlier versions need not be
_NAMED = b'"personal":{"keys":["'


@dataclass(frozen=True, slots=True)
class Finding:
    """The first record of a stream that is not what it should be."""

    stream: str
    number: int
    what: str


def verified(
    reader: AuditReader, folder: Path, key: Ed25519PublicKey, since: str = ""
) -> tuple[dict[str, int], list[Finding]]:
    """How many records of each stream are sound, and what is not, from a day on: of those
    gateways whose checkpoints these are. Raises
    `UserError(AUDIT_BROKEN)` for checkpoints that cannot be read or are not as they were
    signed."""
    try:
        signed = checkpoints.signed(folder, key, since)
    except OSError as error:
        raise UserError(
            Code.AUDIT_BROKEN,
            f"The checkpoints {folder} cannot be read ({error.strerror}): name their folder by "
            "--checkpoints.",
        ) from None
    counts, findings = {}, []
    keys = DataKeys(reader.every_subject_key(), _forgotten(reader))
    streams = signed.hashes.keys() | reader.audit_heads().keys()
    mine = {_gateway(stream) for stream in signed.hashes} | {reader.gateway or ""}
    for stream in sorted(each for each in streams if _gateway(each) in mine):
        first = signed.first.get(stream, 1)
        start = first if since else 1
        trail, hashes = reader.audit_trail(stream, start - 1), signed.hashes.get(stream, [])
        counts[stream], found = verify(stream, trail, hashes, first, start, keys.wrong)
        if found is not None:
            findings.append(found)
    return counts, findings


def _forgotten(reader: AuditReader) -> set[Owner]:
    """Tenant and subject, as the acts of tenants tell it."""
    acts = (
        (stream, orjson.loads(record.body))
        for stream in reader.audit_heads()
        if "/" not in stream
        for record in reader.audit_trail(stream)
    )
    return {
        (stream.partition("@")[0], body["object"])
        for stream, body in acts
        if body.get("act") == "subject.forget"
    }


def unproven(reader: AuditReader, checked: Collection[str]) -> list[str]:
    """The gateways on the same database whose records take checkpoints of their own."""
    return sorted(
        {_gateway(stream) for stream in reader.audit_heads()} - {_gateway(each) for each in checked}
        - {reader.gateway or ""}
    )  # fmt: skip


def _gateway(stream: str) -> str:
    """Which one writes it; empty where there is one only."""
    return stream.partition("@")[2]


def public_key(reader: AuditReader, given: str | None = None) -> Ed25519PublicKey:
    """The one that was given in hex, else the one that the database names."""
    text = given or reader.fact("audit_key") or ""
    try:
        return Ed25519PublicKey.from_public_bytes(bytes.fromhex(text))
    except ValueError:
        raise UserError(
            Code.INVALID_VALUE,
            "The public key must be 64 hex digits, as `freehold audit key` tells it.",
        ) from None


@contextmanager
def _without_cycles() -> Iterator[None]:
    """Records refer to nothing that refers to them: looking for cycles among a million of
    them takes a fifth of the time."""
    is_looking = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if is_looking:
            gc.enable()


@_without_cycles()
def verify(
    stream: str,
    records: Iterable[Record],
    signed: Sequence[bytes],
    first: int = 1,
    start: int = 1,
    otherwise: Callable[[Record], str | None] = lambda record: None,
) -> tuple[int, Finding | None]:
    """How many records are sound, and the first that is not.

    `records` come in the order of their numbers, from `start` on; what is before that is
    taken as it is, and of a later start the first record by its signature alone. `signed`
    are the first bytes of their hashes as the checkpoints have them, from record `first` on:
    as they are signed before a record is stored, a later one without is none of ours.
    `otherwise` says what else is wrong with a record, unless a later one tells that its
    change was not made.
    """
    previous = BEGINNING if start == 1 else None
    number = start
    doubts: dict[int, str] = {}  # which a later record may explain
    for record in records:
        wrong = _broken(record, stream, number, previous)
        wrong = wrong or _unsigned(record, signed, first) or _misfiled(record)
        if wrong is not None:
            return _first(stream, start, {**doubts, number: wrong})
        doubt = otherwise(record)
        if doubt is not None:
            doubts[number] = doubt
        elif doubts:
            for explained in _not_made(record):
                doubts.pop(explained, None)
        if len(doubts) > _MOST_DOUBTS:
            break
        previous = record.hash
        number += 1
    last = first + len(signed) - 1
    if number <= last:
        doubts[number] = f"is missing, and so are all up to record {last}"
    if doubts:
        return _first(stream, start, doubts)
    return number - start, None


def _first(stream: str, start: int, found: Mapping[int, str]) -> tuple[int, Finding]:
    number = min(found)
    return number - start, Finding(stream, number, found[number])


def _not_made(record: Record) -> Sequence[int]:
    """Records whose changes were not made, so that there is nothing else of them."""
    body = orjson.loads(record.body)
    named: Sequence[int] = body.get("records", ())
    return named


class DataKeys:
    """What unlocks personal fields: each must be the one that records name, or be destroyed
    by somebody who forgot its subject, of which there is a record."""

    def __init__(self, stored: Iterable[SubjectKey], forgotten: Collection[Owner]) -> None:
        self.known: dict[bytes, str | None] = {
            each.id.encode(): _wrong(each, forgotten) for each in stored
        }

    def wrong(self, record: Record) -> str | None:
        begin = record.body.find(_NAMED)
        if begin < 0:
            return None
        begin += len(_NAMED)
        for name in record.body[begin : record.body.index(b'"]', begin)].split(b'","'):
            wrong = self.known.get(name, "names a data key that is gone")
            if wrong is not None:
                return wrong
        return None


def _wrong(key: SubjectKey, forgotten: Collection[Owner]) -> str | None:
    if key.wrapped is None:
        is_told = (key.tenant_id, key.subject) in forgotten
        return None if is_told else "was made unreadable, and no record says who forgot it"
    if key.id != key_id(key.tenant_id, key.subject, key.created_at_us, key.wrapped):
        return "names a data key that was exchanged for another"
    return None


def _broken(record: Record, stream: str, number: int, previous: bytes | None) -> str | None:
    if record.number != number:
        return f"is missing: record {record.number} comes in its place"
    if previous is not None and record.hash != link(previous, stream, number, record.body):
        return "was changed, or stands in the place of another"
    return None


def _misfiled(record: Record) -> str | None:
    is_older = record.filed is None and not record.body.startswith(_FILED)
    if is_older or (record.filed is not None and record.filed.is_of(record.body)):
        return None
    return "is filed under another time, kind, principal or model than it is of"


def _unsigned(record: Record, signed: Sequence[bytes], first: int) -> str | None:
    at = record.number - first
    if at >= len(signed):
        return "was never signed: it was added behind Freehold's back"
    if at >= 0 and record.hash[:SHOWN_BYTES] != signed[at]:
        return "is not the one that was signed: the chain was written anew from here on"
    return None
