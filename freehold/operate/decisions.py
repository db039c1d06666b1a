"""Decisions of a running gateway: planned in a process of their own, one at a time, so that
requests are answered as fast as before."""

import asyncio
import contextlib
import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from freehold.config.schema import Settings
from freehold.core.errors import Code, Fault, FreeholdError, UserError

_MOST_S = 25.0  # what commands wait for an answer is little more
_KEPT = ("PATH", "PYTHONPATH", "LD_LIBRARY_PATH", "VIRTUAL_ENV", "TMPDIR", "LANG")


class Decisions:
    """`settings`: what of them a plan needs, of engines and prices."""

    def __init__(self, home: Path, settings: Settings) -> None:
        self._home = home
        needed = {"engines", "prices", "currency"}
        self._settings = settings.model_dump(mode="json", include=needed)
        self._turn = asyncio.Lock()

    async def work(self, job: str, asked: Mapping[str, Any]) -> dict[str, Any]:
        """Raises `UserError`: `OVERLOADED` while another plan is made, or when one takes too
        long, and what the job itself refuses."""
        if self._turn.locked():
            raise UserError(
                Code.OVERLOADED,
                "Another plan is being made, and one is made at a time: try again in a moment.",
                retry_after_s=3,
            )
        async with self._turn:
            return await self._work(job, asked)

    async def _work(self, job: str, asked: Mapping[str, Any]) -> dict[str, Any]:
        asked = {**asked, "settings": self._settings}
        told = json.dumps({"job": job, "home": str(self._home), "asked": asked}).encode()
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "freehold.operate.planning",
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            env={name: os.environ[name] for name in _KEPT if name in os.environ},
        )  # fmt: skip
        try:
            async with asyncio.timeout(_MOST_S):
                said, _ = await process.communicate(told)
        except TimeoutError:
            raise UserError(
                Code.OVERLOADED,
                f"The plan was not made in {_MOST_S:.0f} seconds: name fewer models in it, or make "
                "it with `freehold decide` on a machine that is not busy.",
                retry_after_s=30,
            ) from None
        finally:
            if process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
                await process.wait()
        return _answered(said)


def _answered(said: bytes) -> dict[str, Any]:
    """What `planning.main` wrote. Raises its `UserError`, and `Fault` for what is no answer."""
    try:
        found = json.loads(said)
        if "done" in found:
            done: dict[str, Any] = found["done"]
            return done
        refused = found["refused"]
        error: FreeholdError = UserError(
            Code(refused["code"]), refused["message"], param=refused["param"]
        )
    except (ValueError, KeyError, TypeError):
        error = Fault("a planning process ended without an answer")
    raise error
