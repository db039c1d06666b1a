"""The audit chain: records that cannot be changed, dropped or moved without being found out.

Each stream (a tenant's environment, or the installation) counts its records from 1, and
each record's hash covers the one before it.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple

INSTALLATION = "installation"
BEGINNING = bytes(32)


@dataclass(frozen=True, slots=True)
class Record:
    """`body` is JSON, exactly as it was hashed. `is_once`: nothing could make it again, so
    what proves it keeps it whole until it is stored. `filed`: under what it is found."""

    stream: str
    number: int
    body: bytes
    hash: bytes
    is_once: bool = field(default=False, compare=False)
    filed: "Filed | None" = field(default=None, compare=False)


class Filed(NamedTuple):
    """What a database finds a record by; it is in the body too."""

    at_us: int
    kind: str
    principal: str | None
    model: str | None

    def is_of(self, body: bytes) -> bool:
        """Whether the body says the same; values hold nothing that JSON would escape."""
        return (
            b'"kind":"%b",' % self.kind.encode() in body
            and b'"at_us":%d,' % self.at_us in body
            and _says(body, b"principal", self.principal)
            and _says(body, b"model", self.model)
        )


@dataclass(frozen=True, slots=True)
class Sought:
    """Which records of a stream somebody wants to see; None stands for all."""

    since_us: int | None = None
    until_us: int | None = None
    principal: str | None = None
    model: str | None = None
    kind: str | None = None


@dataclass(frozen=True, slots=True)
class Head:
    """Where a stream's chain ends: how many records, and the hash of the last."""

    number: int = 0
    hash: bytes = BEGINNING


def _says(body: bytes, name: bytes, value: str | None) -> bool:
    if value is None:
        return b'"%b":"' % name not in body
    return b'"%b":"%b"' % (name, value.encode()) in body


def stream_of(tenant_id: str, environment: str) -> str:
    return f"{tenant_id}/{environment}"


class Kind(StrEnum):
    """What records are about: a request, an act, refusals that were counted, or acts that
    were undone or restored."""

    REQUEST = "request"
    ACT = "act"
    REFUSALS = "refusals"
    UNDONE = "undone"
    RESTORED = "restored"


def is_change(record: Record) -> bool:
    """Whether it is of an act that was done, so that it may have to be undone."""
    body = json.loads(record.body)
    return bool(body["kind"] == Kind.ACT and body["outcome"] == "ok")


class Level(StrEnum):
    """Whose records: those in a tenant's environment, where requests are too, those that
    concern a tenant as a whole, or the installation."""

    ENVIRONMENT = "environment"
    TENANT = "tenant"
    INSTALLATION = "installation"


def stream_at(level: Level, tenant_id: str, environment: str) -> str:
    if level is Level.INSTALLATION:
        return INSTALLATION
    return tenant_id if level is Level.TENANT else stream_of(tenant_id, environment)


def link(previous: bytes, stream: str, number: int, body: bytes) -> bytes:
    """SHA-256(previous || stream || NUL || number || NUL || body); the names of streams hold
    no NUL."""
    return hashlib.sha256(b"%b%b\0%d\0%b" % (previous, stream.encode(), number, body)).digest()


def chained(
    stream: str, head: Head, bodies: Sequence[bytes], *, is_once: bool = False
) -> list[Record]:
    """The next records after `head`."""
    made = []
    previous = head.hash
    for number, body in enumerate(bodies, head.number + 1):
        previous = link(previous, stream, number, body)
        made.append(Record(stream, number, body, previous, is_once))
    return made
