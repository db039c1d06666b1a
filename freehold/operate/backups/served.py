"""The backups of a running gateway: made when somebody asks and when it is time, the oldest
removed once there are enough."""

import asyncio
import contextlib
import logging
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from freehold.config.home import Home
from freehold.config.schema import Settings
from freehold.core.errors import Code, FreeholdError, UserError
from freehold.operate.backups import archive, backup
from freehold.secure import age
from freehold.serve.tasks import ended

_logger = logging.getLogger(__name__)
_LOOK_S = 60.0
_RETRY_S = 3600.0
_OURS = re.compile(r"freehold-[0-9]{8}-[0-9]{6}\.tar\.gz\.age\Z")


class Backups:
    def __init__(
        self,
        home: Home,
        all_settings: Settings,
        file: Path,
        failed: Callable[[str], None] = lambda _: None,
    ) -> None:
        """`file` is that of the settings; `failed` hears the sentence of each failure of
        those that are made by themselves. Raises `UserError(CONFIG_INVALID)`."""
        settings = all_settings.backup
        if settings.every_h is not None and settings.recipient is None:
            raise UserError(
                Code.CONFIG_INVALID,
                "The setting backup.every_h needs backup.recipient, as backups hold secrets: name "
                "a file of public keys there.",
            )
        self._home = home
        self._settings = settings
        self._is_elsewhere = all_settings.database.url is not None
        self._file = file
        self._failed = failed
        self._making = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None
        chosen = settings.folder
        self.folder = Path(chosen).expanduser() if chosen else home.path / "backups"

    def start(self) -> None:
        if self._settings.every_h is not None:
            self._task = asyncio.create_task(self._run(self._settings.every_h * 3600))

    async def stop(self) -> None:
        await ended(self._task)

    async def make(self) -> dict[str, Any]:
        """Raises `UserError`: `CONFLICT` where the settings name no recipient."""
        async with self._making:
            return await asyncio.to_thread(self._make)

    def listing(self) -> list[dict[str, Any]]:
        """Oldest first. May block."""
        return backups_in(self.folder) if self.folder.is_dir() else []

    def _make(self) -> dict[str, Any]:
        settings = self._settings
        if settings.recipient is None:
            raise UserError(
                Code.CONFLICT,
                "The settings name no `backup.recipient` that a backup could be locked for: add "
                "one, or make the backup with `freehold backup`.",
            )
        lock = _recipients(Path(settings.recipient).expanduser())
        wanted = backup.Wanted(lock, self._file, settings.include_models, self._is_elsewhere)
        target = self.folder / backup.default_name(lock, time.time())
        made = backup.make(self._home, target, wanted, lambda *_: None)
        self._remove_oldest()
        return {**shown_backup(made.path, made.size, made.about), "notes": list(made.notes)}

    def _remove_oldest(self) -> None:
        """Only of those that have names as ours do."""
        ours = sorted(path for path in self.folder.iterdir() if _OURS.match(path.name))
        for path in ours[: -self._settings.keep]:
            path.unlink()

    async def _run(self, every_s: float) -> None:
        while True:
            wait_s = _LOOK_S
            if self._age_s() >= every_s:
                try:
                    await self.make()
                except FreeholdError as error:
                    _logger.error("backup_failed", extra={"reason": error.message})
                    self._failed(error.message)
                    wait_s = _RETRY_S
            await asyncio.sleep(wait_s)

    def _age_s(self) -> float:
        """Since the youngest one was made."""
        made = [0.0]
        with contextlib.suppress(OSError):
            made += [p.stat().st_mtime for p in self.folder.iterdir() if _OURS.match(p.name)]
        return time.time() - max(made)


def backups_in(folder: Path) -> list[dict[str, Any]]:
    """Those whose beginning shows that they are some."""
    found = []
    for path in sorted(folder.glob("*.tar.gz*")):
        try:
            about = {} if archive.is_locked(path) else archive.about(path)
        except UserError:
            continue
        found.append(shown_backup(path, path.stat().st_size, about))
    return found


def shown_backup(path: Path, size_bytes: int, about: Any) -> dict[str, Any]:
    """What an encrypted one does not tell is null."""
    at_us = about.get("at_us")
    return {
        "name": path.name,
        "path": str(path),
        "size_bytes": size_bytes,
        "encrypted": archive.is_locked(path),
        "at": shown_time(at_us if at_us is not None else int(path.stat().st_mtime * 1e6)),
        "version": about.get("version"),
        "schema": about.get("schema"),
    }


def shown_time(at_us: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(at_us / 1e6))


def _recipients(path: Path) -> age.Recipients:
    try:
        return age.recipients(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError):
        raise UserError(
            Code.CONFLICT, f"The public keys in {path} cannot be read: mend `backup.recipient`."
        ) from None
