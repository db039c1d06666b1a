"""Decisions of a running gateway: planned in a process of their own, one at a time, so that
requests are answered as fast as before."""

import asyncio
import contextlib
import json
import logging
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from freehold.catalog.store import ModelStore
from freehold.config.home import Home
from freehold.config.schema import Settings
from freehold.core.clock import Clock
from freehold.core.decision import Decision
from freehold.core.errors import Code, Fault, FreeholdError, UserError
from freehold.core.event import Happening, Kind
from freehold.engines.child import inherited
from freehold.operate.decisions.watched import DAY_US, Usage, check_asked, shown_check
from freehold.serve.events.events import Events
from freehold.serve.tasks import ended
from freehold.store.ledger import Ledger
from freehold.store.sql import SqlStore

_logger = logging.getLogger(__name__)
_LOOK_S, _HOUR_US, _DAYS = 60.0, 3_600_000_000, 30
_MOST_S = 25.0  # what commands wait for an answer is little more
_KEPT = ("PATH", "PYTHONPATH", "LD_LIBRARY_PATH", "VIRTUAL_ENV", "TMPDIR", "LANG")


class Decisions:
    """`settings`: what of them a plan needs, of engines and prices. Each decision is checked by
    itself, too, by one gateway where there are several, hours after the last time as they say."""

    def __init__(
        self,
        home: Path,
        settings: Settings,
        store: SqlStore,
        usage: Usage,
        ledger: Ledger,
        events: Events,
        clock: Clock,
    ) -> None:
        self._home = home
        needed = {"engines", "prices", "currency"}
        self._settings = settings.model_dump(mode="json", include=needed)
        self._all_settings = settings
        self._every_h = settings.decisions.check_every_h
        self._store = store
        self._usage = usage
        self._ledger = ledger
        self._events = events
        self._clock = clock
        self._turn = asyncio.Lock()
        self._is_own = False  # whether who has the turn is a check by ourselves
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        if self._every_h is not None:
            self._task = asyncio.create_task(self._run(self._every_h))

    async def stop(self) -> None:
        await ended(self._task)

    async def _run(self, every_h: int) -> None:
        while True:
            await asyncio.sleep(_LOOK_S)
            try:
                await self.look(every_h)
            except FreeholdError as error:
                _logger.warning("decisions_not_checked", extra={"reason": error.message})

    async def look(self, every_h: int) -> None:
        """Checks those that nobody did for so long, and tells what changed since."""
        now_us = self._clock.wall_us()
        due_us = now_us - every_h * _HOUR_US
        for each in await asyncio.to_thread(self._store.decisions_due, due_us):
            mine = each.tenant_id, each.id
            if await asyncio.to_thread(self._store.begin_check, *mine, due_us, now_us):
                try:
                    await self._look_at(each, now_us)
                except FreeholdError as error:
                    _logger.warning(
                        "decision_not_checked", extra={"reason": f"{each.id}: {error.message}"}
                    )

    async def _look_at(self, decision: Decision, now_us: int) -> None:
        since_us = now_us - _DAYS * DAY_US
        asked = await asyncio.to_thread(self._measure, decision, since_us, now_us)
        async with self._turn:
            self._is_own = True
            try:
                checked = await self._work("check", asked)
            finally:
                self._is_own = False
        departures = checked["departures"]
        found = [f"{each['kind']} {each['subject']}".strip() for each in departures]
        new, over = await asyncio.to_thread(
            self._store.departed, decision.tenant_id, decision.id, found
        )
        if new:
            told = [w["what"] for name, w in zip(found, departures, strict=True) if name in new]
            self._tell(Kind.DECISION_DEPARTED, decision, _sentence(decision, told), len(found))
        elif over and not found:
            text = f"The decision {decision.id} ({decision.name}) holds again."
            self._tell(Kind.DECISION_HOLDS, decision, text, 0)

    def _tell(self, kind: Kind, decision: Decision, text: str, departures: int) -> None:
        self._events.over(kind, decision.id)  # it is news, as something else departed
        details = {"departures": departures, "option": decision.content["option"]["id"]}
        self._events.tell(Happening(kind, text, decision.id, details=details))

    async def check(self, decision: Decision, days: int) -> dict[str, Any]:
        """What became of it in the last days. Raises as `work`."""
        now_us = self._clock.wall_us()
        asked = await asyncio.to_thread(self._measure, decision, now_us - days * DAY_US, now_us)
        return shown_check(decision, asked, await self.work("check", asked), now_us)

    async def fit(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        """Some milliseconds, so that it needs no process. Raises `UserError`."""
        return await asyncio.to_thread(self._fit, asked)

    def _fit(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        from freehold.operate.decisions.fits import Asked, as_plain, fits

        wanted = Asked(**asked)
        return as_plain(fits(Home(self._home), self._all_settings, wanted), wanted.streams)

    def deployment(self, decision: Decision) -> dict[str, Any]:
        """The settings that it is served with. May block."""
        from freehold.operate.decisions.deploying import as_plain, deployment

        stored = [each.name for each in ModelStore(self._home).list()]
        return as_plain(deployment(decision.content, decision.id, stored), decision.id)

    def _measure(self, decision: Decision, since_us: int, now_us: int) -> dict[str, Any]:
        self._ledger.flush()
        return check_asked(decision, self._usage, since_us, now_us)

    async def work(self, job: str, asked: Mapping[str, Any]) -> dict[str, Any]:
        """Raises `UserError`: `OVERLOADED` while somebody else's plan is made, or when one takes
        too long, and what the job itself refuses. A check by ourselves is waited for."""
        if self._turn.locked() and not self._is_own:
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
            sys.executable, "-m", "freehold.operate.decisions.planning",
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            env=inherited(_KEPT),
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


def _sentence(decision: Decision, told: Sequence[str]) -> str:
    more = f" {len(told) - 1} more: see" if len(told) > 1 else " See"
    return (
        f"The decision {decision.id} ({decision.name}) does not hold any more. {told[0]}{more} "
        f"`freehold decide check {decision.id}`."
    )


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
