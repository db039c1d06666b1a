"""Whether audit records are all there, unchanged and in order."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from freehold.core.audit import BEGINNING, Record, link
from freehold.secure.checkpoints import SHOWN_BYTES


@dataclass(frozen=True, slots=True)
class Finding:
    """The first record of a stream that is not what it should be."""

    stream: str
    number: int
    what: str


def verify(
    stream: str, records: Iterable[Record], signed: Sequence[bytes], first: int = 1
) -> tuple[int, Finding | None]:
    """How many records are sound, and the first that is not.

    `records` come in the order of their numbers, from 1 on. `signed` are the first bytes of
    their hashes as the checkpoints have them, from record `first` on: as they are signed
    before a record is stored, a later one without is none of ours.
    """
    previous = BEGINNING
    count = 0
    for record in records:
        wrong = _broken(record, stream, count + 1, previous)
        wrong = wrong or _unsigned(record, signed, first)
        if wrong is not None:
            return count, Finding(stream, count + 1, wrong)
        previous = record.hash
        count += 1
    last = first + len(signed) - 1
    if count < last:
        return count, Finding(stream, count + 1, f"is missing, and so are all up to record {last}")
    return count, None


def _broken(record: Record, stream: str, number: int, previous: bytes) -> str | None:
    if record.number != number:
        return f"is missing: record {record.number} comes in its place"
    if record.hash != link(previous, stream, number, record.body):
        return "was changed, or stands in the place of another"
    return None


def _unsigned(record: Record, signed: Sequence[bytes], first: int) -> str | None:
    at = record.number - first
    if at >= len(signed):
        return "was never signed: it was added behind Freehold's back"
    if at >= 0 and record.hash[:SHOWN_BYTES] != signed[at]:
        return "is not the one that was signed: the chain was written anew from here on"
    return None
