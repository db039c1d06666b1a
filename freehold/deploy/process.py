"""One child process, started from a LaunchSpec."""

import asyncio
import contextlib
import os
import signal
from pathlib import Path

import psutil

from freehold.core.engine import LaunchSpec

_MAX_LOG_BYTES = 8 * 1024 * 1024


class Process:
    """Its own process group, its output in a log file of bounded size, and a pipe as
    standard input that closes when we die, which ends it too."""

    def __init__(self, child: asyncio.subprocess.Process) -> None:
        self._child = child

    @classmethod
    async def start(cls, spec: LaunchSpec, log: Path) -> "Process":
        """Raises `OSError` when the program cannot be started."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(spec.socket_path)
        _rotate(log)
        with open(log, "ab") as output:  # noqa: ASYNC230 - once a start
            child = await asyncio.create_subprocess_exec(
                *spec.argv,
                env=dict(spec.env),
                stdin=asyncio.subprocess.PIPE,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        return cls(child)

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

    async def wait(self) -> int:
        return await self._child.wait()

    async def stop(self, patience_s: float) -> None:
        """Asks the group to end, then makes it."""
        self._signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(patience_s):
                await self._child.wait()
        except TimeoutError:
            await self.kill()

    async def kill(self) -> None:
        self._signal(signal.SIGKILL)
        await self._child.wait()

    def _signal(self, number: int) -> None:
        if not self.has_ended:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, number)


def _rotate(log: Path) -> None:
    if log.exists() and log.stat().st_size > _MAX_LOG_BYTES:
        log.replace(log.with_suffix(".old"))
