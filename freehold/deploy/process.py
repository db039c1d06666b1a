"""One child process, started from a LaunchSpec."""

import asyncio
import contextlib
import logging
import os
import shutil
import signal
from pathlib import Path
from typing import BinaryIO

import psutil

from freehold.core.engine import LaunchSpec

_logger = logging.getLogger(__name__)
_MAX_LOG_BYTES = 8 * 1024 * 1024


class Process:
    """Its own process group, its output in a log file of bounded size, and a pipe as
    standard input that closes when we die, which ends it too."""

    def __init__(self, child: asyncio.subprocess.Process, log: Path) -> None:
        self._child = child
        self._log = log
        self._is_gone = False

    @classmethod
    async def start(cls, spec: LaunchSpec, log: Path) -> "Process":
        """Raises `OSError` when the program cannot be started. One that is cancelled meanwhile
        leaves no child."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(spec.socket_path)
        with _output(log) as output:
            starting = asyncio.ensure_future(
                asyncio.create_subprocess_exec(
                    *spec.argv,
                    env=dict(spec.env),
                    stdin=asyncio.subprocess.PIPE,
                    stdout=output,
                    stderr=output,
                    start_new_session=True,
                )
            )
            try:
                child = await asyncio.shield(starting)
            except asyncio.CancelledError:
                # A child that nobody waits for any more would go on, and nobody know its number.
                await cls(await starting, log).kill()
                raise
        return cls(child, log)

    @property
    def pid(self) -> int:
        return self._child.pid

    @property
    def has_ended(self) -> bool:
        return self._child.returncode is not None

    @property
    def rss_bytes(self) -> int | None:
        try:
            return int(psutil.Process(self.pid).memory_info().rss)
        except psutil.Error:
            return None

    def bound_log(self) -> None:
        """Keeps the newest log short, and one older: the child writes where the file
        ends, also when that has come nearer."""
        with contextlib.suppress(OSError):
            if self._log.stat().st_size > _MAX_LOG_BYTES:
                _set_aside(self._log)
                os.truncate(self._log, 0)

    async def wait(self) -> int:
        return await self._child.wait()

    async def stop(self, patience_s: float) -> None:
        """Asks the group to end, then makes it, with those who outlived their leader."""
        self._signal(signal.SIGTERM)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(patience_s):
                await self._child.wait()
        await self.kill()

    async def kill(self) -> None:
        self._signal(signal.SIGKILL)
        await self._child.wait()
        self._is_gone = True  # from now on the number may be that of a stranger

    def _signal(self, number: int) -> None:
        if not self._is_gone:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, number)


def _output(log: Path) -> BinaryIO:
    """Where the child's words go: nowhere when its log cannot be written, because an
    engine without a log still serves."""
    try:
        return open(log, "ab")
    except OSError as error:
        _logger.warning("engine_log_failed", extra={"reason": error.strerror})
        return open(os.devnull, "wb")


def _set_aside(log: Path) -> None:
    """What a full disk does not take is lost."""
    old = log.with_suffix(".old")
    try:
        shutil.copyfile(log, old)
    except OSError:
        old.unlink(missing_ok=True)
