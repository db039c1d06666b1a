"""Whether audit records are all there, unchanged and in order."""

import re
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass

from freehold.core.audit import BEGINNING, Record, link
from freehold.core.subject import Owner, SubjectKey, key_id
from freehold.secure.checkpoints import SHOWN_BYTES

_NAMED = re.compile(rb'"personal":\{"keys":\[([^\]]*)\]')


@dataclass(frozen=True, slots=True)
class Finding:
    """The first record of a stream that is not what it should be."""

    stream: str
    number: int
    what: str


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
    `otherwise` says what else is wrong with a record.
    """
    previous = BEGINNING if start == 1 else None
    number = start
    for record in records:
        wrong = _broken(record, stream, number, previous)
        wrong = wrong or _unsigned(record, signed, first) or otherwise(record)
        if wrong is not None:
            return number - start, Finding(stream, number, wrong)
        previous = record.hash
        number += 1
    last = first + len(signed) - 1
    if number <= last:
        missing = f"is missing, and so are all up to record {last}"
        return number - start, Finding(stream, number, missing)
    return number - start, None


class DataKeys:
    """What unlocks personal fields: each must be the one that records name, or be destroyed
    by somebody who forgot its subject, of which there is a record."""

    def __init__(self, stored: Iterable[SubjectKey], forgotten: Collection[Owner]) -> None:
        self._known: dict[bytes, str | None] = {
            each.id.encode(): _wrong(each, forgotten) for each in stored
        }

    def wrong(self, record: Record) -> str | None:
        named = _NAMED.search(record.body)
        if named is None:
            return None
        for name in named[1].split(b","):
            wrong = self._known.get(name[1:-1], "names a data key that is gone")
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


def _unsigned(record: Record, signed: Sequence[bytes], first: int) -> str | None:
    at = record.number - first
    if at >= len(signed):
        return "was never signed: it was added behind Freehold's back"
    if at >= 0 and record.hash[:SHOWN_BYTES] != signed[at]:
        return "is not the one that was signed: the chain was written anew from here on"
    return None
