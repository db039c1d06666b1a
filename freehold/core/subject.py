"""Whom personal fields of audit records are about."""

import base64
import hashlib
from dataclasses import dataclass
from typing import Literal

# All that a record may hold of a person, sealed; whatever else it holds is of a closed set.
# `name` is that of the key which asks, `about` that of the key which is changed.
PERSONAL = frozenset({"address", "issuer", "subject", "email", "name", "user", "about"})

Owner = tuple[str, str]  # a tenant, and one of its subjects
_ID_BYTES = 16


@dataclass(frozen=True, slots=True)
class SubjectKey:
    """A data key of a subject, wrapped; None once the subject is forgotten."""

    id: str
    tenant_id: str
    subject: str
    wrapped: bytes | None
    created_at_us: int
    forgotten_at_us: int | None = None


@dataclass(frozen=True, slots=True)
class Sealed:
    """Personal fields that only those can read who have all of `keys`; `new` are those
    among them that are stored with the record."""

    keys: tuple[str, ...]
    text: str
    new: tuple[SubjectKey, ...] = ()


@dataclass(frozen=True, slots=True)
class Remembered:
    """Something that still holds the words of somebody who was forgotten: a `dataset`, an
    `adapter` that was trained on one, or an `evaluation` that asked its examples."""

    kind: Literal["dataset", "adapter", "evaluation"]
    tenant_id: str
    environment: str
    id: str
    name: str


def key_id(tenant_id: str, subject: str, created_at_us: int, wrapped: bytes) -> str:
    """Of what it names, so that records, which hold it, prove that it was not exchanged."""
    named = f"{tenant_id}\0{subject}\0{created_at_us}\0".encode() + wrapped
    short = hashlib.sha256(named).digest()[:_ID_BYTES]
    return "dk_" + base64.b32encode(short).decode().rstrip("=").lower()
