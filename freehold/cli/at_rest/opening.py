"""An installation that no gateway serves: its store, its keyring and its audit records,
opened here for a command, and one by one for `freehold up`."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from freehold.config import load
from freehold.config.home import Home, read_or_create_secret, write_private
from freehold.config.schema import AuditSettings, DatabaseSettings, Settings
from freehold.core.acts import Acting, Via, acting_as
from freehold.core.clock import SystemClock
from freehold.core.errors import Code, UserError
from freehold.core.ids import new_id
from freehold.core.secret import Secret
from freehold.core.tenant import DEFAULT_TENANT
from freehold.secure.checkpoints import Checkpoints, has_lines
from freehold.secure.copies import Copies
from freehold.secure.forgotten import Forgotten
from freehold.secure.keys import PEPPER_BYTES, Keyring
from freehold.secure.subjects import SECRET_BYTES, Subjects, subjects_check
from freehold.secure.witness import Witness
from freehold.store.backend import Backend
from freehold.store.ledger import recover
from freehold.store.postgres import Postgres
from freehold.store.sql import SqlStore
from freehold.store.sqlite import Sqlite

AUDIT_KEY_BYTES = 32
_PEPPER_CHECK, _SUBJECTS_CHECK = "pepper_check", "subjects_check"


@contextmanager
def opened(
    home: Home,
    *,
    to_look: bool = False,
    checkpoints: AuditSettings | None = None,
    begin: bool = False,
) -> Iterator[tuple[SqlStore, Keyring, str]]:
    """The store, the keyring and the default tenant, under the home's lock. What is changed
    is the doing of the owner of the home; `to_look`: nothing will be, so that audit records
    which somebody changed may be looked at too. The others are those of `open_audit`."""
    with home.lock():
        store, is_new = open_store(home, load.settings(home.settings).database)
        try:
            keyring = open_keyring(home, store, may_create=is_new)
            witness = open_audit(home, store, checkpoints, begin=begin)
            try:
                store.put_back(witness.owed(store.audit_heads()))
                recover(store, home.journal)
                if not to_look:
                    witness.check(store.audit_heads())
                    forget_again(store, witness)
                tenant_id = default_tenant(store)
                with acting_as(Acting("local", Via.COMMAND, tenant_id)):
                    yield store, keyring, tenant_id
            finally:
                witness.close()
        finally:
            store.close()


def database(home: Home, settings: DatabaseSettings) -> Backend:
    """Where the store is: what the settings name, or a file in the home."""
    if settings.url is None:
        return Sqlite(home.database)
    file = settings.password_file
    return Postgres(settings.url, Path(file).expanduser() if file else None, _gateway(home))


def _gateway(home: Home) -> str:
    """The id of the gateway of this home, for others on its database; a copy of the home must
    not have it."""
    if not home.gateway.exists():
        home.create()
        write_private(home.gateway, new_id("gw").encode() + b"\n")
    return home.gateway.read_text().strip()


def open_store(home: Home, settings: DatabaseSettings) -> tuple[SqlStore, bool]:
    """And whether it is new. Raises `UserError(CONFIG_INVALID)` when the home has seen
    another: a new one would know none of the keys, revocations and uses of before."""
    where = database(home, settings)
    if settings.url is None:
        is_new = not (home.database.exists() and home.database.stat().st_size)
        if is_new:
            _check_unused(home, where)
        return SqlStore(where), is_new
    store = SqlStore(where)
    try:
        store.take_place()
        is_new = store.fact(_PEPPER_CHECK) is None
        if is_new:
            _check_unused(home, where)
    except UserError:
        store.close()
        raise
    return store, is_new


def _check_unused(home: Home, where: Backend) -> None:
    for secret in (home.secrets / name for name in ("pepper", "audit", "subjects")):
        if secret.exists():
            raise UserError(
                Code.CONFIG_INVALID,
                f"{where.shown} is missing or empty, but {secret} shows that it was there: restore "
                f"it from a backup, or move {home.secrets} away to begin anew without the old keys "
                "and usage.",
            )


def check_settings(home: Home, store: SqlStore) -> None:
    """Raises `UserError(CONFIG_INVALID)` when the last start had settings in this home and
    this one has none: what they demanded would silently be demanded no more."""
    try:
        is_there = bool(home.settings.read_bytes().strip())
    except FileNotFoundError:
        is_there = False
    if is_there == (store.fact("settings_file") == "there"):
        return
    if not is_there:
        raise UserError(
            Code.CONFIG_INVALID,
            f"{home.settings} is missing or empty, but the last start had settings there: restore "
            "it, or write `{}` into it to begin with the defaults.",
        )
    store.put_fact("settings_file", "there")


def open_keyring(
    home: Home, store: SqlStore, *, may_create: bool, settings: Settings | None = None
) -> Keyring:
    """Raises `UserError(CONFIG_INVALID)` when the pepper is not the one that the
    stored keys were hashed with."""
    path = home.secrets / "pepper"
    pepper = read_or_create_secret(path, PEPPER_BYTES, may_create=may_create)
    chosen = settings or Settings()
    keyring = Keyring(
        store,
        Secret(pepper.hex()),
        SystemClock(),
        chosen.server.environments,
        chosen.limits.wrong_keys_a_minute,
    )
    known = store.fact(_PEPPER_CHECK) or store.first_fact(_PEPPER_CHECK, keyring.check())
    if known != keyring.check():
        raise UserError(
            Code.CONFIG_INVALID,
            f"{path} is not the file that this database was made with: restore it from a backup.",
        )
    return keyring


def open_audit(
    home: Home, store: SqlStore, wanted: AuditSettings | None = None, *, begin: bool = False
) -> Witness:
    """From here on every audit record is signed before it is stored. Without `wanted` all is
    where it was the last time; `begin` is for new checkpoints though there are records. Raises
    `UserError`: `CONFIG_INVALID` for another key than the records were signed with,
    `AUDIT_BROKEN`, `AUDIT_UNAVAILABLE`."""
    known = store.fact("audit_key")
    seed = read_or_create_secret(home.secrets / "audit", AUDIT_KEY_BYTES, may_create=known is None)
    key = Ed25519PrivateKey.from_private_bytes(seed)
    public = key.public_key().public_bytes_raw().hex()
    if known is not None and known != public:
        raise UserError(
            Code.CONFIG_INVALID,
            f"{home.secrets / 'audit'} is not the key that the audit records were signed with: "
            "restore it from a backup.",
        )
    settings = wanted or _as_before(store)
    folder = settings.checkpoints or store.fact(store.own("audit_checkpoints"))
    path = Path(folder or home.path / "audit" / "checkpoints").expanduser()
    try:
        copies = [
            Copies(Path(each).expanduser(), may_fail="copies" in settings.may_fail)
            for each in settings.copies
        ]
        heads = store.audit_heads()
        if heads and not begin and not has_lines(path):
            raise UserError(
                Code.AUDIT_BROKEN,
                f"The audit checkpoints {path} are missing or empty, but there are records that "
                "were signed there: restore them, or begin new ones with `freehold audit begin`.",
            )
        signing = Checkpoints(path, key)
        made = Witness(signing, SystemClock(), heads, Forgotten(path, key), copies)
    except OSError as error:
        raise UserError(
            Code.AUDIT_UNAVAILABLE,
            f"{error.filename or path} cannot be opened ({error.strerror}), and what proves the "
            "audit records is kept there: make room, or see `audit` in the settings.",
        ) from None
    kept = {
        "audit_key": public,
        store.own("audit_checkpoints"): str(path),
        store.own("audit_settings"): settings.model_dump_json(),
    }
    for name, value in kept.items():
        if store.fact(name) != value:
            store.put_fact(name, value)
    store.witness = made
    store.sealer = open_subjects(home, store).seal_apart
    return made


def open_subjects(home: Home, store: SqlStore) -> Subjects:
    """Raises `UserError(CONFIG_INVALID)` for another secret than data keys are wrapped with."""
    path, known = home.secrets / "subjects", store.fact(_SUBJECTS_CHECK)
    secret = read_or_create_secret(path, SECRET_BYTES, may_create=known is None)
    check = subjects_check(secret)
    if (known or store.first_fact(_SUBJECTS_CHECK, check)) != check:
        raise UserError(
            Code.CONFIG_INVALID,
            f"{path} is not the file that personal fields were sealed with: restore it from a "
            "backup.",
        )
    return Subjects(store, secret, SystemClock())


def forget_again(store: SqlStore, witness: Witness) -> None:
    """Whoever was forgotten and is known again, because an older database was put back."""
    for each in witness.forgotten:
        if store.is_known(each.tenant_id, each.subject):
            store.forget_subject(each.tenant_id, each.subject, each.at_us)
    count = len(witness.forgotten)
    if count < int(store.fact("forgotten") or 0):
        raise UserError(
            Code.AUDIT_BROKEN,
            "Fewer are forgotten beside the audit checkpoints than the database knows of: put "
            "back a copy of `forgotten.jsonl` there.",
        )
    if count != int(store.fact("forgotten") or 0):
        store.put_fact("forgotten", str(count))


def _as_before(store: SqlStore) -> AuditSettings:
    return AuditSettings.model_validate_json(store.fact(store.own("audit_settings")) or "{}")


def default_tenant(store: SqlStore) -> str:
    found = store.tenant_named(DEFAULT_TENANT)
    if found is not None:
        return found
    tenant_id = new_id("ten")
    try:
        store.add_tenant(tenant_id, DEFAULT_TENANT, time.time_ns() // 1000)
    except UserError as error:
        found = store.tenant_named(DEFAULT_TENANT)
        if error.code is not Code.CONFLICT or found is None:
            raise
        return found  # another gateway's, which began at the same time
    return tenant_id
