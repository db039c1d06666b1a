"""Sessions: what a provider's token was exchanged for, here, where it can be ended at once.

A browser or a command holds 256 random bits; only their keyed hash is stored. Who looks one
up from memory goes by the store of a moment ago, until anything about access changed
anywhere; ends are checked at each use.
"""

import hashlib
import threading
from collections import OrderedDict
from dataclasses import dataclass, replace

from freehold.config.schema import SessionSettings
from freehold.core.acts import Acting, Via, acting_as
from freehold.core.errors import Code, UserError
from freehold.core.ids import new_id
from freehold.core.secret import Secret
from freehold.core.session import Session, SessionKind
from freehold.secure.keys import Keyring, random_text
from freehold.secure.oidc import Claims
from freehold.store.base import SessionStore

PREFIX = "fhs_"
_NOTED_US = 60_000_000  # uses within that time are written down once
_REMEMBERED = 10_000
_MAX_CHARACTERS = 128


@dataclass(frozen=True, slots=True)
class Newcomer:
    """Somebody whose token was believed, and what they show from now on."""

    claims: Claims
    tenant_id: str
    person_id: str
    kind: SessionKind


@dataclass(frozen=True, slots=True)
class _Known:
    session: Session
    epoch: int
    noted_us: int  # when its use was last written down


class Sessions:
    """Safe from any thread."""

    def __init__(self, store: SessionStore, keyring: Keyring, settings: SessionSettings) -> None:
        self._store = store
        self._keyring = keyring
        self._clock = keyring.clock
        self._lifetime_us = int(settings.lifetime_h * 3_600_000_000)
        self._idle_us = int(settings.idle_min * 60_000_000)
        self._known: OrderedDict[bytes, _Known] = OrderedDict()
        self._lock = threading.Lock()

    def open(
        self, who: Newcomer, token: str, replaces: str | None = None
    ) -> tuple[Session, Secret]:
        """The session that a provider's token is exchanged for, once, and what shows it.
        `replaces` is what the same browser showed before: that ends. Raises
        `UserError(CONFLICT)` for a token that was exchanged before."""
        secret, now_us = Secret(PREFIX + random_text()), self._clock.wall_us()
        made = Session(
            id=new_id("ses"),
            tenant_id=who.tenant_id,
            person_id=who.person_id,
            kind=who.kind,
            issuer=who.claims.issuer,
            subject=who.claims.subject,
            groups=who.claims.groups,
            tenant_value=who.claims.tenant,
            name=who.claims.email or who.claims.name,
            issued_at_us=who.claims.issued_at_us,
            token_expires_at_us=who.claims.expires_at_us,
            created_at_us=now_us,
            last_used_at_us=now_us,
            expires_at_us=now_us + self._lifetime_us,
        )
        hashed = self._keyring.hashed
        old = None if replaces is None else hashed(replaces)
        self._store.add_session(made, hashed(secret.reveal()), hashed(token), old)
        if replaces is not None:
            self._keyring.changed()
        return made, secret

    @property
    def idle_s(self) -> int:
        """After so long without a use a session has ended."""
        return self._idle_us // 1_000_000

    def cached(self, secret: str, kind: SessionKind) -> Session | None:
        """If it is known without asking the store, and there is nothing to write down."""
        known = self._known.get(_name(secret))
        now_us = self._clock.wall_us()
        if known is None or known.epoch != self._keyring.epoch:
            return None
        if now_us - known.noted_us >= _NOTED_US or not self._is_good(known.session, kind, now_us):
            return None
        return known.session

    def find(self, secret: str, kind: SessionKind, peer: str = "") -> Session:
        """Asks the store, and notes the use. Raises `UserError`: `INVALID_SESSION`, or
        `TOO_MANY_ATTEMPTS`."""
        epoch, now_us, name = self._keyring.epoch, self._clock.wall_us(), _name(secret)
        if name not in self._known:
            self._keyring.check_guesses(peer)
        found = None
        if len(secret) <= _MAX_CHARACTERS:
            found = self._store.session_by_hash(self._keyring.hashed(secret))
        if found is None:
            self._keyring.guessed(peer)
            raise invalid_session()
        if not self._is_good(found, kind, now_us):
            with self._lock:
                self._known.pop(name, None)
            raise invalid_session()
        if now_us - found.last_used_at_us >= _NOTED_US // 2:
            self._store.use_session(found.id, now_us)
            found = replace(found, last_used_at_us=now_us)
        with self._lock:
            self._known[name] = _Known(found, epoch, now_us)
            if len(self._known) > _REMEMBERED:
                self._known.popitem(last=False)
        return found

    def end(self, secret: str, kind: SessionKind, operation: str) -> Session | None:
        """By who holds it, whatever became of its rights; None for one that is not known."""
        if len(secret) > _MAX_CHARACTERS:
            return None
        found = self._store.session_by_hash(self._keyring.hashed(secret))
        if found is None or found.kind is not kind:
            return None
        with acting_as(Acting(found.person_id, Via.API, found.tenant_id, operation=operation)):
            return self.revoke(found.tenant_id, found.id, found.person_id)

    def revoke(
        self, tenant_id: str, session_id: str, by: str, person_id: str | None = None
    ) -> Session | None:
        ended = self._store.end_session(tenant_id, session_id, self._clock.wall_us(), by, person_id)
        self._keyring.changed()
        return ended

    def cut_off(self, tenant_id: str, person_id: str | None, by: str) -> int:
        """Ends the sessions of a person or of all of the tenant, and refuses the tokens that
        they were given before now; returns how many sessions that ended."""
        ended = self._store.cut_off(tenant_id, person_id, self._clock.wall_us(), by)
        self._keyring.changed()
        return ended

    def proof(self, secret: str) -> str:
        """What a request that changes something must show besides a browser's cookie, and
        what no other site can know."""
        return self._keyring.keyed("csrf", secret)

    def _is_good(self, session: Session, kind: SessionKind, now_us: int) -> bool:
        return (
            session.kind is kind
            and session.ended_at_us is None
            and session.expires_at_us > now_us
            and session.last_used_at_us + self._idle_us > now_us
        )


def invalid_session() -> UserError:
    return UserError(
        Code.INVALID_SESSION,
        "This session has ended or was never one: log in again, with `freehold login` or at "
        "/console.",
    )


def _name(secret: str) -> bytes:
    return hashlib.sha256(secret.encode()).digest()
