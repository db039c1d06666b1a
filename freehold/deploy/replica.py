"""One engine process over its whole life. Its state has one owner: the task here."""

import asyncio
import logging
import os
import random
import secrets
import shutil
import tempfile
from collections.abc import Awaitable, Callable
from enum import StrEnum
from pathlib import Path

from freehold.core.errors import Code, UserError
from freehold.deploy.process import Process
from freehold.engines.base import Engine, EngineClient, LocalModel

_logger = logging.getLogger(__name__)

_BACKOFF_FIRST_S = 0.2
_BACKOFF_MOST_S = 30.0
_STABLE_S = 60.0
_POLL_S = 0.05
_PROBE_EVERY_S = 20.0
_PROBE_S = 10.0
_STOP_S = 5.0


class State(StrEnum):
    STOPPED = "stopped"
    STARTING = "starting"
    READY = "ready"
    SUSPECT = "suspect"  # gets no work until it has made a token
    BACKOFF = "backoff"


class Replica:
    """Starts its engine, restarts it with growing pauses when it dies, and kills it
    when it makes no tokens though its port is open. Callers ask `ensure_ready` and
    report doubts with `suspect`; nobody else changes the state."""

    def __init__(self, name: str, engine: Engine, model: LocalModel, logs: Path) -> None:
        self.name = name
        self.state = State.STOPPED
        self.restarts = 0
        self.in_flight = 0
        self.last_error: str | None = None
        self._engine = engine
        self._model = model
        self._log = logs / f"engine-{name}.log"
        self._client: EngineClient | None = None
        self._process: Process | None = None
        self._task: asyncio.Task[None] | None = None
        self._ready = asyncio.Event()
        self._doubt = asyncio.Event()
        self._told: Callable[[], None] | None = None
        self._prepare: Callable[[EngineClient], Awaitable[None]] | None = None

    @property
    def client(self) -> EngineClient:
        if self._client is None:
            raise UserError(
                Code.ENGINE_UNAVAILABLE, "The engine is starting: try again.", retry_after_s=2
            )
        return self._client

    @property
    def base_digest(self) -> str | None:
        return self._model.card.digest

    @property
    def is_ready(self) -> bool:
        return self.state is State.READY

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process and not self._process.has_ended else None

    @property
    def rss_bytes(self) -> int | None:
        return self._process.rss_bytes if self._process and self.pid else None

    def start(self) -> None:
        if self._task is None:
            self._task = asyncio.create_task(self._live())

    async def ensure_ready(self, timeout_s: float) -> None:
        """Returns when the engine serves. Raises `UserError(ENGINE_UNAVAILABLE)` with
        the last reason when it does not in time."""
        self.start()
        try:
            async with asyncio.timeout(timeout_s):
                await self._ready.wait()
        except TimeoutError:
            reason = f" ({self.last_error})" if self.last_error else ""
            raise UserError(
                Code.ENGINE_UNAVAILABLE,
                f"The engine did not become ready in {timeout_s:g} seconds{reason}: "
                f"see {self._log}.",
                retry_after_s=10,
            ) from None

    def suspect(self) -> None:
        """A request failed or waited too long: the engine gets no work until it has
        made a token, and is restarted when it makes none."""
        if self.state is State.READY:
            self.state = State.SUSPECT
            self._ready.clear()
            self._doubt.set()

    def when_ready(self, call: Callable[[], None]) -> None:
        """Calls each time that the engine can serve again."""
        self._told = call

    def before_ready(self, call: Callable[[EngineClient], Awaitable[None]]) -> None:
        """Awaits it each time before the engine serves; when it raises, the engine is
        started again."""
        self._prepare = call

    async def stop(self) -> None:
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _live(self) -> None:
        pause_s = _BACKOFF_FIRST_S
        try:
            while True:
                lived_s = await self._one_life()
                self.restarts += 1
                if lived_s >= _STABLE_S:
                    pause_s = _BACKOFF_FIRST_S
                self.state = State.BACKOFF
                await asyncio.sleep(pause_s * random.uniform(0.8, 1.2))  # noqa: S311
                pause_s = min(pause_s * 2, _BACKOFF_MOST_S)
        finally:
            self.state = State.STOPPED
            self._ready.clear()

    async def _one_life(self) -> float:
        """From start to death; returns for how many seconds it served."""
        loop = asyncio.get_running_loop()
        # A new folder with a random name for each start: nobody can prepare it.
        folder = Path(tempfile.mkdtemp(prefix="freehold-"))
        socket = folder / f"{secrets.token_hex(4)}.sock"
        self.state = State.STARTING
        served_since: float | None = None
        try:
            spec = self._engine.launch(self._model, str(socket))
            self._process = await Process.start(spec, self._log)
            self._client = self._engine.connect(self._model, str(socket))
            async with asyncio.timeout(spec.ready_timeout_s):
                await self._until_serving(socket)
            self.last_error = None
            await self._become_ready()
            served_since = loop.time()
            self.last_error = await self._until_dead()
        except (OSError, TimeoutError, UserError) as error:
            self.last_error = str(error) or type(error).__name__
        except Exception as error:  # a supervisor must outlive any surprise
            _logger.exception("replica_failed")
            self.last_error = type(error).__name__
        finally:
            self._ready.clear()
            await self._end()
            shutil.rmtree(folder, ignore_errors=True)
        return loop.time() - served_since if served_since is not None else 0.0

    async def _until_serving(self, socket: Path) -> None:
        """The socket is there, the engine says which weights it loaded, and they are
        the right ones."""
        while True:
            if self._process is None or self._process.has_ended:
                raise UserError(Code.ENGINE_UNAVAILABLE, "it ended while it started")
            if os.path.exists(socket):  # noqa: ASYNC240 - a stat
                try:
                    identity = await self.client.identity()
                    break
                except UserError as error:
                    if error.code is not Code.ENGINE_UNAVAILABLE:
                        raise
            await asyncio.sleep(_POLL_S)
        if identity != self._model.card.digest:
            raise UserError(Code.IDENTITY_MISMATCH, "it loaded other weights than it should")

    async def _until_dead(self) -> str:
        """Waits for the end of the process, and looks for signs of life meanwhile."""
        if self._process is None:
            return "it never started"
        ended = asyncio.ensure_future(self._process.wait())
        try:
            while True:
                doubt = asyncio.ensure_future(self._doubt.wait())
                await asyncio.wait(
                    [ended, doubt], timeout=_PROBE_EVERY_S, return_when=asyncio.FIRST_COMPLETED
                )
                asked = self._doubt.is_set()
                doubt.cancel()
                self._doubt.clear()
                if ended.done():
                    return f"it ended with status {ended.result()}"
                await asyncio.to_thread(self._process.bound_log)
                if (asked or self.in_flight == 0) and not await self._makes_a_token():
                    return "it made no token in time"
                if asked:
                    await self._become_ready()
        finally:
            ended.cancel()

    async def _become_ready(self) -> None:
        if self._prepare is not None:
            await self._prepare(self.client)
        self.state = State.READY
        self._ready.set()
        if self._told is not None:
            self._told()

    async def _makes_a_token(self) -> bool:
        try:
            async with asyncio.timeout(_PROBE_S):
                await self.client.probe()
        except TimeoutError:
            return False
        except UserError as error:
            return error.code is Code.OVERLOADED  # we could not even ask
        return True

    async def _end(self) -> None:
        """The process first: its answers then break off, and whoever reads one is told."""
        client, self._client = self._client, None
        if self._process is not None:
            await self._process.stop(_STOP_S)
        if client is not None:
            await client.close()
