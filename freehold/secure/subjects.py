"""Personal fields of audit records: readable until somebody forgets whom they are about.

A subject is a key, a person, or an end user as a request names them. Each has data keys of
its own; a key that is kept in the home's secrets wraps them, and whoever forgets a subject
destroys what is wrapped. Records hold the ciphertext, so their chain stays as it is.

The fields of one record are sealed together, under the data keys of all its subjects: one of
them forgotten, none can be read. That key is derived for the one record, so it seals once.
"""

import base64
import hmac
import os
import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import orjson
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from freehold.core.clock import Clock
from freehold.core.errors import Fault
from freehold.core.subject import PERSONAL, Owner, Sealed, SubjectKey, key_id
from freehold.store.base import SubjectStore

SECRET_BYTES = 32
_KEY_BYTES, _NONCE_BYTES = 32, 12
_ONCE = bytes(_NONCE_BYTES)  # the derived key seals one record and nothing else
_REMEMBERED = 10_000

DataKey = tuple[str, bytes]  # its id, and itself
Read = Mapping[str, str] | Literal["forgotten", "unreadable"] | None


def subjects_check(secret: bytes) -> str:
    """A fingerprint, kept in the database: another secret is noticed at the start."""
    return hmac.digest(secret, b"freehold subjects check", "sha256").hex()


class Subjects:
    """Safe from any thread."""

    def __init__(self, store: SubjectStore, secret: bytes, clock: Clock) -> None:
        self._store = store
        self._wrapping = AESGCM(secret)
        self._clock = clock
        self._lock = threading.Lock()
        self._known: OrderedDict[Owner, tuple[str, bytes]] = OrderedDict()  # id and key

    def knows(self, owners: Sequence[Owner]) -> bool:
        """Whether `seal` need not ask the database."""
        return all(owner in self._known for owner in owners)

    def seal(self, owners: Sequence[Owner], fields: Mapping[str, str], record_id: str) -> Sealed:
        """May block for subjects that were not met yet. Raises
        `UserError(STORAGE_UNAVAILABLE)`."""
        return _sealed([self._living(owner) for owner in owners], fields, record_id)

    def keys(self, owners: Sequence[Owner]) -> Sequence[DataKey]:
        """Those of now: who is forgotten meanwhile is so for what they seal later. May block
        as `seal`."""
        return [self._living(owner) for owner in owners]

    def read_content(self, names: Sequence[str], sealed: bytes, record_id: str) -> bytes | None:
        """None when one of the subjects was forgotten."""
        stored = {each.id: each for each in self._store.subject_keys(names)}
        keys: list[DataKey] = []
        for name in names:
            key = self._unwrapped(stored[name]) if name in stored else None
            if key is None:
                return None
            keys.append((name, key))
        try:
            return _content_cipher(keys, record_id).decrypt(_ONCE, sealed, _bound(keys, record_id))
        except (InvalidTag, ValueError):
            return None

    def seal_apart(
        self, owners: Sequence[Owner], fields: Mapping[str, str], record_id: str
    ) -> Sealed:
        """With data keys of its own, which whoever stores the record stores too; asks no
        database, so that it can be called from within a transaction."""
        made = [self._make(owner) for owner in owners]
        sealed = _sealed([(stored.id, key) for stored, key in made], fields, record_id)
        return Sealed(sealed.keys, sealed.text, tuple(stored for stored, _ in made))

    def read(self, bodies: Sequence[Mapping[str, Any]]) -> list[Read]:
        """The personal fields of records, as far as they can be read; None for those that
        have none."""
        named = {name for body in bodies for name in (body.get("personal") or {}).get("keys", ())}
        stored = {each.id: each for each in self._store.subject_keys(sorted(named))}
        return [self._read(body, stored) for body in bodies]

    def changed(self) -> None:
        """Somebody may have been forgotten: data keys are asked for again."""
        with self._lock:
            self._known.clear()

    def _living(self, owner: Owner) -> tuple[str, bytes]:
        found = self._known.get(owner)
        if found is None:
            with self._lock:
                found = self._known.get(owner) or self._looked_up(owner)
                self._known[owner] = found
                if len(self._known) > _REMEMBERED:
                    self._known.popitem(last=False)
        return found

    def _looked_up(self, owner: Owner) -> tuple[str, bytes]:
        stored = self._store.living_key(*owner)
        if stored is not None:
            key = self._unwrapped(stored)
            if key is not None:
                return stored.id, key
        made, key = self._make(owner)
        self._store.add_subject_key(made)
        return made.id, key

    def _make(self, owner: Owner) -> tuple[SubjectKey, bytes]:
        key, nonce = os.urandom(_KEY_BYTES), os.urandom(_NONCE_BYTES)
        wrapped = nonce + self._wrapping.encrypt(nonce, key, _named(owner))
        at_us = self._clock.wall_us()
        id = key_id(*owner, at_us, wrapped)
        return SubjectKey(id, *owner, wrapped, at_us), key

    def _unwrapped(self, stored: SubjectKey) -> bytes | None:
        """None for one that is not as it was stored."""
        if stored.wrapped is None:
            return None
        nonce, wrapped = stored.wrapped[:_NONCE_BYTES], stored.wrapped[_NONCE_BYTES:]
        try:
            return self._wrapping.decrypt(
                nonce, wrapped, _named((stored.tenant_id, stored.subject))
            )
        except (InvalidTag, ValueError):
            return None

    def _read(self, body: Mapping[str, Any], stored: Mapping[str, SubjectKey]) -> Read:
        personal = body.get("personal")
        if not personal:
            return None
        keys: list[tuple[str, bytes]] = []
        for name in personal["keys"]:
            found = stored.get(name)
            if found is not None and found.forgotten_at_us is not None:
                return "forgotten"
            key = self._unwrapped(found) if found is not None else None
            if key is None:
                return "unreadable"
            keys.append((name, key))
        try:
            text = _cipher(keys, body["id"]).decrypt(
                _ONCE, base64.b64decode(personal["sealed"]), _bound(keys, body["id"])
            )
        except (InvalidTag, ValueError):
            return "unreadable"
        read: dict[str, str] = orjson.loads(text)
        return read


def seal_content(keys: Sequence[DataKey], content: bytes, record_id: str) -> bytes:
    return _content_cipher(keys, record_id).encrypt(_ONCE, content, _bound(keys, record_id))


def _content_cipher(keys: Sequence[DataKey], id: str) -> AESGCM:
    return _cipher(keys, f"{id}\0content")


def _sealed(keys: Sequence[tuple[str, bytes]], fields: Mapping[str, str], id: str) -> Sealed:
    foreign = fields.keys() - PERSONAL
    if foreign:
        raise Fault(f"{sorted(foreign)} are not among the personal fields of records")
    content = orjson.dumps(fields)
    sealed = _cipher(keys, id).encrypt(_ONCE, content, _bound(keys, id))
    return Sealed(tuple(name for name, _ in keys), base64.b64encode(sealed).decode())


def _cipher(keys: Sequence[tuple[str, bytes]], id: str) -> AESGCM:
    """Of one record: whoever lacks one of the keys lacks it."""
    derived = b"freehold personal\0" + id.encode()
    for _, key in keys:
        derived = hmac.digest(key, derived, "sha256")
    return AESGCM(derived)


def _bound(keys: Sequence[tuple[str, bytes]], id: str) -> bytes:
    return " ".join([id, *(name for name, _ in keys)]).encode()


def _named(owner: Owner) -> bytes:
    return f"freehold subject\0{owner[0]}\0{owner[1]}".encode()
