"""`$FREEHOLD_HOME`: where everything of one installation lives, owner-only."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from freehold.core.errors import Code, UserError


@dataclass(frozen=True, slots=True)
class Home:
    path: Path

    @property
    def settings(self) -> Path:
        return self.path / "freehold.yaml"

    @property
    def database(self) -> Path:
        return self.path / "freehold.db"

    @property
    def gateway(self) -> Path:
        """The id of this home's gateway among others on one database."""
        return self.path / "gateway"

    @property
    def journal(self) -> Path:
        """What the ledger has on the disk and not yet in the database."""
        return self.path / "journal"

    @property
    def secrets(self) -> Path:
        return self.path / "secrets"

    @property
    def run(self) -> Path:
        return self.path / "run"

    @property
    def logs(self) -> Path:
        return self.path / "logs"

    @property
    def cache(self) -> Path:
        return self.path / "cache"

    @property
    def admin_key(self) -> Path:
        return self.path / "admin.key"

    @property
    def gateway_record(self) -> Path:
        """Where a running gateway says how to reach it."""
        return self.run / "gateway.json"

    @property
    def client_certificate(self) -> Path:
        """And, where clients are asked for theirs, with which."""
        return self.run / "client.pem"

    @property
    def tls(self) -> Path:
        """The authority of those who have none."""
        return self.path / "tls"

    def create(self) -> None:
        """Makes the folders, mode 0700. Raises `UserError` when that cannot be."""
        try:
            for folder in (self.path, self.journal, self.secrets, self.run, self.logs, self.cache):
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
                folder.chmod(0o700)
        except OSError as error:
            raise UserError(
                Code.CONFIG_INVALID,
                f"Cannot use {self.path} as FREEHOLD_HOME ({error.strerror}): "
                "set FREEHOLD_HOME to a folder that you may write to.",
            ) from None

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Held by the one process that may write the database of this home."""
        self.create()
        handle = os.open(self.run / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise self.in_use() from None
            yield
        finally:
            os.close(handle)

    def in_use(self) -> UserError:
        return UserError(
            Code.HOME_IN_USE,
            f"Another Freehold process uses {self.path}: stop it with `freehold down`, "
            "or set FREEHOLD_HOME to another folder.",
        )

    def is_locked(self) -> bool:
        """Whether a process holds the lock."""
        try:
            handle = os.open(self.run / "lock", os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(handle)
        return False


def write_private(path: Path, content: bytes) -> None:
    """Writes a file with mode 0600, whole or not at all."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise


def read_or_create_secret(path: Path, length: int, *, may_create: bool) -> bytes:
    """A secret of `length` random bytes, made at the first start.

    `may_create` is False once data exist that depend on it: then a missing file
    stops the start-up, because a fresh secret would silently disown every key.
    """
    try:
        secret = path.read_bytes()
    except FileNotFoundError:
        if not may_create:
            raise UserError(
                Code.CONFIG_INVALID,
                f"{path} is missing but the database needs it: restore it from a backup.",
            ) from None
        secret = os.urandom(length)
        write_private(path, secret)
    except OSError as error:
        raise UserError(
            Code.CONFIG_INVALID,
            f"{path} cannot be read ({error.strerror}): make it this user's own file.",
        ) from None
    if len(secret) != length:
        raise UserError(
            Code.CONFIG_INVALID,
            f"{path} holds {len(secret)} bytes where {length} are expected: "
            "restore it from a backup.",
        )
    return secret
