"""API keys: how they look, how they are minted, and how a caller's key is known.

A key is `fh_<environment>_<public id>_<secret>`, 256 random bits. Only
`HMAC(pepper, SHA-256(key))` is stored, so a stolen database opens nothing, and keys
of gateways that keep a plain SHA-256 can be taken over without their owners.
"""

import base64
import hashlib
import hmac
import re
import secrets
import threading
from collections import OrderedDict
from collections.abc import Collection
from dataclasses import dataclass, field, replace

from freehold.core.binding import Environment, Principal, Scope
from freehold.core.clock import Clock
from freehold.core.departure import OnDeparture, Restraint
from freehold.core.errors import Code, Fault, UserError
from freehold.core.ids import new_id
from freehold.core.secret import Secret
from freehold.secure.network import is_within
from freehold.secure.throttle import Throttle
from freehold.store.base import KeyRecord, KeyStore, Replacement

PEPPER_BYTES = 32
_MAX_KEY_CHARACTERS = 512
_CACHE_ENTRIES = 10_000
_PEERS = 64  # remembered a key
_OURS = re.compile(r"fh_(?:dev|staging|prod)_([0-9A-Z]{26})_")
_LOCAL = "fh_local_"


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
    networks: frozenset[str] | None = None
    lineage: str | None = None
    certificates: frozenset[str] | None = None
    on_departure: OnDeparture = OnDeparture.DEFAULT


@dataclass(slots=True)
class _Known:
    """A key that was accepted, and the addresses from which it was."""

    principal: Principal
    peers: set[str] = field(default_factory=set)


class Keyring:
    """Mints, knows and revokes keys. One a process; lookups are cached until a key or
    a tenant changes anywhere, and expiry is checked on every use. Keys of other
    environments than `environments` are refused."""

    def __init__(
        self,
        store: KeyStore,
        pepper: Secret,
        clock: Clock,
        environments: Collection[Environment] = tuple(Environment),
        wrong_keys_a_minute: int = 60,
    ) -> None:
        self._store = store
        self._pepper = bytes.fromhex(pepper.reveal())
        self.clock = clock
        self.environments = frozenset(environments)
        self.epoch = 0  # counts the changes that this process knows of
        # By the key's SHA-256: the pepper guards what is stored, and this is not.
        self._known: OrderedDict[bytes, _Known] = OrderedDict()
        self._lock = threading.Lock()  # guards both; reading them needs none
        self._throttle = Throttle(wrong_keys_a_minute, clock)
        self._local: tuple[bytes, Principal] | None = None
        self._salts: dict[tuple[str, ...], str] = {}

    def hashed(self, secret: str) -> bytes:
        """As secrets are stored: who has the database can make nothing of it."""
        return self._peppered(hashlib.sha256(secret.encode()).digest())

    def check_guesses(self, peer: str) -> None:
        """Raises `UserError(TOO_MANY_ATTEMPTS)` for an address that guessed too often."""
        self._throttle.check(peer)

    def guessed(self, peer: str) -> None:
        """Counts a wrong guess, of whatever kind; raises when that was one too many."""
        self._throttle.wrong(peer, None)

    def mint(self, wanted: KeyRequest) -> tuple[KeyRecord, Secret | None]:
        """The stored record and the key, which exists nowhere else; None for a key
        taken over by its hash, which is with its owner already."""
        record, key = self._make(wanted)
        self._store.add_key(record)
        return record, key

    def lend(
        self,
        tenant_id: str,
        environment: Environment,
        name: str,
        models: Collection[str],
        until_us: int,
    ) -> tuple[str, Secret]:
        """A key to use these models with for a while, and its id: for work of our own, which
        revokes it when it ends."""
        wanted = KeyRequest(
            tenant_id,
            environment,
            name,
            frozenset({Scope.INFER}),
            models=frozenset(models),
            expires_at_us=until_us,
        )
        record, key = self.mint(wanted)
        if key is None:
            raise Fault("a key that is not taken over is made")
        return record.id, key

    def replace(
        self, key_id: str, wanted: KeyRequest, until_us: int, token: str
    ) -> tuple[Replacement | None, Secret | None]:
        """Mints the key that replaces another from now on, which ends at `until_us`. The
        key itself is there only when this call made it."""
        record, key = self._make(wanted)
        done = self._store.replace_key(wanted.tenant_id, key_id, record, until_us, token)
        self.changed()
        return done, key if done is not None and done.is_new else None

    def find(self, tenant_id: str, environment: Environment, key_id: str) -> KeyRecord | None:
        return self._store.key(tenant_id, environment, key_id)

    def _make(self, wanted: KeyRequest) -> tuple[KeyRecord, Secret | None]:
        key_id = new_id("key")
        key = None
        sha256 = wanted.sha256
        if sha256 is None:
            public_id = key_id.removeprefix("key_")
            key = Secret(f"fh_{wanted.environment}_{public_id}_{random_text()}")
            sha256 = hashlib.sha256(key.reveal().encode()).digest()
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
            networks=wanted.networks,
            lineage=wanted.lineage,
            certificates=wanted.certificates,
            on_departure=wanted.on_departure,
        )
        return record, key

    def open_locally(self, tenant_id: str) -> Secret:
        """A key for the owner of this home, which no file but a private one holds and
        which ends with this process."""
        key = Secret(f"{_LOCAL}{random_text()}")
        served = [each for each in Environment if each in self.environments]
        rights = frozenset({Scope.ADMIN, Scope.AUDIT, Scope.OPERATE, Scope.OWN})
        principal = Principal("local", tenant_id, served[0], rights, None, is_local=True)
        self._local = hashlib.sha256(key.reveal().encode()).digest(), principal
        return key

    def cached(
        self, key: str, peer: str = "", certificate: Collection[str] = ()
    ) -> Principal | None:
        """Who holds this key, if that is known without asking the store, and if it was
        accepted from this address before. `certificate` are the names in the client's."""
        known = self._known.get(self._sha256(key, peer))
        if known is None or peer not in known.peers:
            return None
        principal = known.principal
        if principal.epoch != self.epoch:
            return None
        if principal.certificates is not None and principal.certificates.isdisjoint(certificate):
            return None
        if principal.expires_at_us is not None:
            self._check_time(principal.expires_at_us)
        return principal

    def authenticate(
        self, key: str, peer: str = "", certificate: Collection[str] = ()
    ) -> Principal:
        """Asks the store. Raises `UserError`: `INVALID_API_KEY` (unknown, malformed
        or revoked), `EXPIRED_API_KEY`, what the key may not (`ADDRESS_NOT_ALLOWED`,
        `CERTIFICATE_NOT_ALLOWED`, `ENVIRONMENT_NOT_SERVED`, `KEY_SUSPENDED`,
        `TENANT_DISABLED`), or `TOO_MANY_ATTEMPTS`."""
        sha256, epoch = self._sha256(key, peer), self.epoch
        if self._local is not None and key.startswith(_LOCAL):
            digest, principal = self._local
            if hmac.compare_digest(digest, sha256):
                return replace(principal, epoch=epoch)
        known = self._known.get(sha256)
        if known is None or peer not in known.peers:
            self._throttle.check(peer)
        record = self._store.key_by_hash(self._peppered(sha256))
        if record is None:
            raise self._wrong(key, peer)
        try:
            self._check(record, peer, certificate)
        except UserError:
            with self._lock:
                self._known.pop(sha256, None)
            raise
        principal = principal_of(record, epoch)
        with self._lock:
            if self.epoch == epoch:  # else it may be this key, read before that
                self._remember(sha256, principal, peer)
        return principal

    def changed(self) -> None:
        """A key or a tenant changed: every key is looked up again when it is next used.
        Where keys were accepted from stays known, so that a guesser who shares an address
        with their owners cannot shut them out just then."""
        with self._lock:
            self.epoch += 1

    def revoke(
        self, tenant_id: str, key_id: str, *, environment: Environment | None = None
    ) -> KeyRecord | None:
        record = self._store.revoke_key(
            tenant_id, key_id, self.clock.wall_us(), environment=environment
        )
        self.changed()
        return record

    def _remember(self, sha256: bytes, principal: Principal, peer: str) -> None:
        known = self._known.get(sha256)
        if known is None:
            known = self._known[sha256] = _Known(principal)
        elif len(known.peers) >= _PEERS:
            known.peers.clear()
        known.principal = principal
        known.peers.add(peer)
        if len(self._known) > _CACHE_ENTRIES:
            self._known.popitem(last=False)

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
        return pepper_check(self._pepper)

    def keyed(self, *parts: str) -> str:
        """A keyed hash of `parts`, for names that must tell nothing by themselves."""
        joined = b"\0".join(part.encode() for part in parts)
        return hmac.digest(self._pepper, joined, "sha256").hex()

    def _peppered(self, sha256: bytes) -> bytes:
        return hmac.digest(self._pepper, sha256, "sha256")

    def _check(self, record: KeyRecord, peer: str, certificate: Collection[str]) -> None:
        if record.revoked_at_us is not None:
            raise _invalid()
        if record.expires_at_us is not None:
            self._check_time(record.expires_at_us)
        if record.restraint is Restraint.SUSPENDED:
            raise suspended()
        if record.environment not in self.environments:
            raise not_served(record.environment)
        tenant = self._store.tenant(record.tenant_id)
        if tenant is None:
            raise _invalid()
        if not tenant.is_active:
            raise tenant_disabled()
        if record.networks is not None and not is_within(peer, record.networks):
            raise UserError(
                Code.ADDRESS_NOT_ALLOWED,
                "This API key may not be used from your address: ask your administrator.",
            )
        if record.certificates is not None and record.certificates.isdisjoint(certificate):
            raise UserError(
                Code.CERTIFICATE_NOT_ALLOWED,
                "This API key may not be used with your client certificate, or without one: ask "
                "your administrator.",
            )

    def _check_time(self, expires_at_us: int) -> None:
        if expires_at_us <= self.clock.wall_us():
            raise UserError(
                Code.EXPIRED_API_KEY,
                "This API key has expired: ask your administrator for a new one.",
            )

    def _sha256(self, key: str, peer: str) -> bytes:
        if not key or len(key) > _MAX_KEY_CHARACTERS or not key.isascii():
            raise self._wrong("", peer)
        return hashlib.sha256(key.encode()).digest()

    def _wrong(self, key: str, peer: str) -> UserError:
        """Counts a guess, and says what it gets."""
        found = _OURS.match(key)
        try:
            self._throttle.wrong(peer, found[1] if found else None)
        except UserError as error:
            return error
        return _invalid()


def pepper_check(pepper: bytes) -> str:
    return hmac.digest(pepper, b"freehold pepper check", "sha256").hex()


def principal_of(record: KeyRecord, epoch: int = 0) -> Principal:
    is_stepped_down = record.restraint is Restraint.STEPPED_DOWN
    return Principal(
        id=record.id,
        tenant_id=record.tenant_id,
        environment=record.environment,
        scopes=record.scopes & {Scope.INFER} if is_stepped_down else record.scopes,
        models=record.models,
        networks=record.networks,
        certificates=record.certificates,
        is_stepped_down=is_stepped_down,
        expires_at_us=record.expires_at_us,
        lineage=record.lineage,
        epoch=epoch,
        known=(("name", record.name),),
    )


def random_text() -> str:
    """256 random bits."""
    return base64.b32encode(secrets.token_bytes(32)).decode().rstrip("=").lower()


def _invalid() -> UserError:
    return UserError(
        Code.INVALID_API_KEY,
        "This API key is not valid: send `Authorization: Bearer <key>` with a key made by "
        "`freehold key create`.",
    )


def tenant_disabled() -> UserError:
    return UserError(
        Code.TENANT_DISABLED,
        "The tenant of this API key is disabled: ask who operates this service.",
    )


def suspended() -> UserError:
    return UserError(
        Code.KEY_SUSPENDED,
        "This API key is suspended, because it was used otherwise than before: ask an "
        "administrator of your tenant to confirm its use (`freehold key confirm`) or to replace "
        "it.",
    )


def stepped_down() -> UserError:
    return UserError(
        Code.FORBIDDEN,
        "This API key was used otherwise than before, so until an administrator of your tenant "
        "confirms that (`freehold key confirm`) it may use models, at batch priority, and "
        "nothing else.",
    )


def not_served(environment: Environment) -> UserError:
    return UserError(
        Code.ENVIRONMENT_NOT_SERVED,
        f"The environment {environment} is not served here: ask who operates this service where "
        "it is.",
    )
