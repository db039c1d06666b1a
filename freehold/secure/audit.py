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
    stream: str, records: Iterable[Record], signed: Sequence[bytes], first: int = 1, start: int = 1
) -> tuple[int, Finding | None]:
    """How many records are sound, and the first that is not.

    `records` come in the order of their numbers, from `start` on; what is before that is
    taken as it is, and of a later start the first record by its signature alone. `signed`
    are the first bytes of their hashes as the checkpoints have them, from record `first` on:
    as they are signed before a record is stored, a later one without is none of ours.
    """
    previous = BEGINNING if start == 1 else None
    number = start
    for record in records:
        wrong = _broken(record, stream, number, previous)
        wrong = wrong or _unsigned(record, signed, first)
        if wrong is not None:
            return number - start, Finding(stream, number, wrong)
        previous = record.hash
        number += 1
    last = first + len(signed) - 1
    if number <= last:
        missing = f"is missing, and so are all up to record {last}"
        return number - start, Finding(stream, number, missing)
    return number - start, None


def _broken(record: Record, stream: str, number: int, previous: bytes | None) -> str | None:
    if record.number != number:
        return f"is missing: record {record.number} comes in its place"
    if previous is not None and record.hash != link(previous, stream, number, record.body):
        return "was changed, or stands in the place of another"
    return None


def _unsigned(record: Record, signed: Sequence[bytes], first: int) -> str | None:
    at = record.number - first
    if at >= len(signed):
        return "was never signed: it was added behind Freehold's back"
    if at >= 0 and record.hash[:SHOWN_BYTES] != signed[at]:
        return "is not the one that was signed: the chain was written anew from here on"
    return None
