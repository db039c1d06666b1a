"""A key's successor: made once, however often it is asked for."""

from dataclasses import dataclass

from freehold.core.binding import Environment, Principal
from freehold.core.errors import Code, UserError
from freehold.core.secret import Secret
from freehold.secure.grants import attenuated
from freehold.secure.keys import KeyRequest, Keyring
from freehold.store.base import KeyRecord

LONGEST_GRACE_S = 90 * 86_400


@dataclass(frozen=True, slots=True)
class Rotation:
    """Which key is to be replaced, for how long it goes on, and under which token: the
    same token means the same call, and another one that somebody else was faster."""

    tenant_id: str
    environment: Environment
    key_id: str
    grace_s: int
    token: str = ""


def rotate(
    keyring: Keyring, asked: Rotation, grantor: Principal | None
) -> tuple[KeyRecord, Secret | None]:
    """The key that replaces the other, with its secret for who caused it to be made and
    for nobody after. Raises `UserError`: `NOT_FOUND`, `FORBIDDEN` for a key that may more
    than its `grantor` (None: the owner of the home), `CONFLICT`."""
    old = keyring.find(asked.tenant_id, asked.environment, asked.key_id)
    if old is None:
        raise no_key()
    wanted = _like(old, keyring.clock.wall_us(), grantor)
    if old.replaced_by is None:
        _check_alive(old, keyring.clock.wall_us())
    until_us = keyring.clock.wall_us() + asked.grace_s * 1_000_000
    done, key = keyring.replace(old.id, wanted, until_us, asked.token)
    if done is None or done.by is None:
        raise _ended()
    if asked.token not in ("", done.token) and not done.is_new:
        raise UserError(
            Code.CONFLICT,
            f"This key was replaced already, by {done.by.id}, under another token.",
        )
    return done.by, key


def _like(old: KeyRecord, now_us: int, grantor: Principal | None) -> KeyRequest:
    """A key that may what the old one may, for as long as that was to live."""
    ends = None
    if old.expires_at_us is not None:
        ends = now_us + old.expires_at_us - old.created_at_us
        if grantor is not None and grantor.expires_at_us is not None:
            ends = min(ends, grantor.expires_at_us)
    wanted = KeyRequest(
        tenant_id=old.tenant_id,
        environment=old.environment,
        name=old.name,
        scopes=old.scopes,
        models=old.models,
        expires_at_us=ends,
        networks=old.networks,
        lineage=old.lineage or old.id,
        certificates=old.certificates,
        on_departure=old.on_departure,
    )
    if grantor is None:
        return wanted
    granted = attenuated(grantor, wanted)
    kept = (granted.models, granted.networks, granted.certificates)
    if kept != (wanted.models, wanted.networks, wanted.certificates):
        raise UserError(
            Code.FORBIDDEN, "This key may more than yours: have it rotated by who may as much."
        )
    return granted


def _check_alive(old: KeyRecord, now_us: int) -> None:
    if old.revoked_at_us is not None:
        raise _ended()
    if old.expires_at_us is not None and old.expires_at_us <= now_us:
        raise _ended()


def _ended() -> UserError:
    return UserError(
        Code.CONFLICT, "This key has ended: make a new one with `freehold key create`."
    )


def no_key() -> UserError:
    return UserError(Code.NOT_FOUND, "There is no such key: see `freehold key list`.")
