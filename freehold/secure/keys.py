"""API keys: how they look, how they are minted, and how a caller's key is known.

A key is `fh_<environment>_<public id>_<secret>`, 256 random bits. Only
`HMAC(pepper, SHA-256(key))` is stored, so a stolen database opens nothing, and keys
of gateways that keep a plain SHA-256 can be taken over without their owners.
"""

import base64
import hashlib
import hmac
import secrets
import threading
from collections import OrderedDict
from dataclasses import dataclass

from freehold.core.binding import Environment, Principal, Scope
from freehold.core.clock import Clock
from freehold.core.errors import Code, UserError
from freehold.core.ids import new_id
from freehold.core.secret import Secret
from freehold.store.base import KeyRecord, KeyStore

PEPPER_BYTES = 32
_MAX_KEY_CHARACTERS = 512
_CACHE_ENTRIES = 10_000


@dataclass(frozen=True, slots=True)
class KeyRequest:
    """What a new key should be. `sha256` takes over a key that exists elsewhere."""

    tenant_id: str
    environment: Environment
    name: str
    scopes: frozenset[Scope]
    models: frozenset[str] | None = None
    expires_at_us: int | None = None
    sha256: bytes | None = None


class Keyring:
    """Mints, knows and revokes keys. One a process; lookups are cached until the
    key changes, and expiry is checked on every use."""

    def __init__(self, store: KeyStore, pepper: Secret, clock: Clock) -> None:
        self._store = store
        self._pepper = bytes.fromhex(pepper.reveal())
        self.clock = clock
        # By the key's SHA-256: the pepper guards what is stored, and this is not.
        self._known: OrderedDict[bytes, tuple[KeyRecord, Principal]] = OrderedDict()
        self._revocations = 0
        self._lock = threading.Lock()  # guards both; reading them needs none
        self._salts: dict[tuple[str, ...], str] = {}

    def mint(self, wanted: KeyRequest) -> tuple[KeyRecord, Secret | None]:
        """The stored record and the key, which exists nowhere else; None for a key
        taken over by its hash, which is with its owner already."""
        key_id = new_id("key")
        key = None
        sha256 = wanted.sha256
        if sha256 is None:
            secret = base64.b32encode(secrets.token_bytes(32)).decode().rstrip("=").lower()
            public_id = key_id.removeprefix("key_")
            key = Secret(f"fh_{wanted.environment}_{public_id}_{secret}")
            sha256 = _sha256(key.reveal())
        record = KeyRecord(
            id=key_id,
            tenant_id=wanted.tenant_id,
            environment=wanted.environment,
            name=wanted.name,
            hash=self._peppered(sha256),
            scopes=wanted.scopes,
            models=wanted.models,
            created_at_us=self.clock.wall_us(),
            expires_at_us=wanted.expires_at_us,
            revoked_at_us=None,
        )
        self._store.add_key(record)
        return record, key

    def cached(self, key: str) -> Principal | None:
        """Who holds this key, if that is known without asking the store."""
        known = self._known.get(_sha256(key))
        if known is None:
            return None
        self._check(known[0])
        return known[1]

    def authenticate(self, key: str) -> Principal:
        """Asks the store. Raises `UserError`: `INVALID_API_KEY` (unknown, malformed
        or revoked) or `EXPIRED_API_KEY`."""
        sha256, revocations = _sha256(key), self._revocations
        record = self._store.key_by_hash(self._peppered(sha256))
        if record is None:
            raise _invalid()
        self._check(record)
        principal = Principal(
            id=record.id,
            tenant_id=record.tenant_id,
            environment=record.environment,
            scopes=record.scopes,
            models=record.models,
        )
        with self._lock:
            if self._revocations == revocations:  # else it may be this key, read before that
                self._known[sha256] = (record, principal)
            if len(self._known) > _CACHE_ENTRIES:
                self._known.popitem(last=False)
        return principal

    def revoke(self, tenant_id: str, key_id: str) -> KeyRecord | None:
        record = self._store.revoke_key(tenant_id, key_id, self.clock.wall_us())
        if record is not None:
            with self._lock:
                self._revocations += 1
                for sha256, (known, _) in list(self._known.items()):
                    if known.id == record.id:
                        del self._known[sha256]
        return record

    def salt(self, *parts: str) -> str:
        """`keyed`, remembered: for the few names that every request asks for again."""
        found = self._salts.get(parts)
        if found is None:
            if len(self._salts) >= _CACHE_ENTRIES:
                self._salts.clear()
            found = self._salts[parts] = self.keyed("salt", *parts)
        return found

    def check(self) -> str:
        """A fingerprint of the pepper, kept in the database: a restored database
        with a foreign pepper is noticed at start and not at the first refusal."""
        return hmac.digest(self._pepper, b"freehold pepper check", "sha256").hex()

    def keyed(self, *parts: str) -> str:
        """A keyed hash of `parts`, for names that must tell nothing by themselves."""
        joined = b"\0".join(part.encode() for part in parts)
        return hmac.digest(self._pepper, joined, "sha256").hex()

    def _peppered(self, sha256: bytes) -> bytes:
        return hmac.digest(self._pepper, sha256, "sha256")

    def _check(self, record: KeyRecord) -> None:
        if record.revoked_at_us is not None:
            raise _invalid()
        if record.expires_at_us is not None and record.expires_at_us <= self.clock.wall_us():
            raise UserError(
                Code.EXPIRED_API_KEY,
                "This API key has expired: ask your administrator for a new one.",
            )


def _sha256(key: str) -> bytes:
    if not key or len(key) > _MAX_KEY_CHARACTERS or not key.isascii():
        raise _invalid()
    return hashlib.sha256(key.encode()).digest()


def _invalid() -> UserError:
    return UserError(
        Code.INVALID_API_KEY,
        "This API key is not valid: send `Authorization: Bearer <key>` with a key made by "
        "`freehold key create`.",
    )
