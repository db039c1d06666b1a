"""Jobs of a gateway: started one at a time, looked after, adopted from the gateway before, and
ended when they take more than they may."""

import asyncio
import contextlib
import logging
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from freehold.config.home import write_private
from freehold.config.schema import TuneSettings
from freehold.core.acts import Acting, Via, acting_as
from freehold.core.binding import Environment
from freehold.core.clock import Clock
from freehold.core.errors import Code, FreeholdError, UserError
from freehold.core.event import Happening, Kind
from freehold.core.gate import Gate
from freehold.core.ids import new_id
from freehold.core.job import Job, JobKind, JobState
from freehold.operate.jobs.booking import Book
from freehold.operate.jobs.process import (
    JobProcess,
    Said,
    forgotten,
    heard,
    ran,
    tidied,
    written_down,
)
from freehold.serve.tasks import ended
from freehold.store.jobs import JobTable, no_job

_logger = logging.getLogger(__name__)
_LOOK_S, _IDLE_S = 1.0, 5.0
_SWEEP_S, _PART = 600.0, 500
_HOLD_US = 60_000_000
_HOLD_AGAIN_US = 15_000_000
_PATIENCE_S = 60.0  # for a checkpoint to be written
_STARTS = 3  # without having come any further
_MOST_LOG = 64 * 1024 * 1024
PROGRAM = ("-m", "freehold.adapt.job")


@dataclass(frozen=True, slots=True)
class Taken:
    """What is remembered of what a job made, and what it decided."""

    told: Mapping[str, Any]
    gate: Gate | None = None


TakeIn = Callable[[Job, Mapping[str, Any], Path], Taken]


class Lending(Protocol):
    """Keys for jobs that ask models, for as long as they run."""

    def lend(self, job: Job) -> str:
        """A new one, in place of any before."""
        ...

    def take_back(self, job: Job) -> None: ...


@dataclass(slots=True)
class _Ending:
    """Why a process was asked to end, and since when."""

    state: JobState
    error: dict[str, Any] | None
    since_s: float


class _Running:
    """A job and its process."""

    def __init__(self, job: Job, process: JobProcess) -> None:
        self.job = job
        self.process = process
        self.ending: _Ending | None = None
        self.looked_at_s = time.monotonic()
        self.held_at_us = 0
        self.told: dict[str, Any] | None = None


class Jobs:
    """`by` names this gateway among others; `take_in` keeps what a job made, and says what is
    to be remembered of it; `tell` is told of ends; `book` puts down what they cost.
    `threads`: what a job may use beside serving, or None where nothing is served; then nobody
    has `keys`, and what asks models waits."""

    def __init__(
        self,
        home: Path,
        settings: TuneSettings,
        store: JobTable,
        clock: Clock,
        by: str,
        take_in: TakeIn,
        tell: Callable[[Happening], None],
        threads: int | None,
        book: Book,
        program: Sequence[str] = PROGRAM,
        keys: Lending | None = None,
    ) -> None:
        self._home = home
        self._settings = settings
        self._store = store
        self._clock = clock
        self._by = by
        self._take_in = take_in
        self._tell = tell
        self._threads = threads
        self._book = book
        self._program = program
        self._keys = keys
        self._running: dict[str, _Running] = {}
        self._wake = asyncio.Event()
        self._swept_at_s: float | None = None
        self._task: asyncio.Task[None] | None = None

    # what people ask for

    def add(
        self,
        owner: tuple[str, Environment],
        kind: JobKind,
        name: str,
        spec: Mapping[str, Any],
        made_by: str,
        files: Mapping[str, bytes] | None = None,
    ) -> Job:
        """May block. `begin` it then. `files` are for its work folder; it waits for them."""
        job = Job(
            id=new_id("job"),
            tenant_id=owner[0],
            environment=owner[1],
            kind=kind,
            name=name,
            state=JobState.QUEUED,
            spec=spec if files is None else {**spec, "files": sorted(files)},
            progress={},
            result=None,
            error=None,
            created_at_us=self._clock.wall_us(),
            created_by=made_by,
        )
        self._store.add_job(job.tenant_id, job)
        try:
            self._lay(job, files or {})
        except OSError as error:
            self.cancel(owner, job.id)
            raise UserError(
                Code.DISK_FULL,
                f"The work folder of {job.id} cannot be written ({error.strerror}): see the disk "
                f"of {self._home}.",
            ) from None
        return job

    def _lay(self, job: Job, files: Mapping[str, bytes]) -> None:
        for name, content in files.items():
            self.work(job.id).mkdir(mode=0o700, parents=True, exist_ok=True)
            write_private(self.work(job.id) / name, content)

    def begin(self) -> None:
        """Something changed: it is looked at now."""
        self._wake.set()

    def cancel(self, owner: tuple[str, Environment], job_id: str) -> Job:
        """May block. Raises `NOT_FOUND`."""
        return _there(self._store.cancel_job(*owner, job_id, self._clock.wall_us()), job_id)

    def cancel_at_rest(self, owner: tuple[str, Environment], job_id: str) -> Job:
        """As `cancel`, where no gateway runs that would ask its process to end. The next one
        finds that it did."""
        job = self.cancel(owner, job_id)
        process = JobProcess.adopt(self.work(job_id))
        if process is not None:
            process.ask_to_end()
        return job

    def resume(self, owner: tuple[str, Environment], job_id: str) -> Job:
        """May block. Raises `NOT_FOUND`, `CONFLICT`. What it made and could not hand over is taken
        in again, instead of made again."""
        job = _there(self._store.resume_job(*owner, job_id), job_id)
        work = self.work(job.id)
        if JobProcess.ended(work).result is None:
            forgotten(work)
        return job

    def get(self, owner: tuple[str, Environment], job_id: str) -> Job:
        """May block. Raises `NOT_FOUND`."""
        return _there(self._store.job(*owner, job_id), job_id)

    def remove(self, owner: tuple[str, Environment], job_id: str) -> Job:
        """With its folder: what it said, answers of an evaluation among it. What it made and
        decided stays. May block. Raises `NOT_FOUND`, `CONFLICT`."""
        job = _there(self._store.remove_job(*owner, job_id), job_id)
        shutil.rmtree(self.work(job.id), ignore_errors=True)
        return job

    def log(self, job: Job) -> list[dict[str, Any]]:
        """May block."""
        return heard(self.work(job.id))

    def work(self, job_id: str) -> Path:
        return self._home / "jobs" / job_id

    # what is done with them

    def start(self) -> None:
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """Processes go on: the next gateway finds them."""
        await ended(self._task)

    async def _run(self) -> None:
        while True:
            try:
                await asyncio.to_thread(self.sweep)
                await self.look()
            except FreeholdError as error:
                _logger.warning("jobs_not_looked_at", extra={"reason": error.message})
            except OSError as error:
                _logger.warning("jobs_not_looked_at", extra={"reason": error.strerror})
            self._wake.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_LOOK_S if self._running else _IDLE_S):
                    await self._wake.wait()

    async def finish(self, job: Job, on_look: Callable[[Job], None]) -> Job:
        """Does this job and no other, and returns it as it ended. Whoever stops waiting leaves
        it queued, to be gone on with. Raises `GATEWAY_NOT_RUNNING` for one that needs one."""
        if not self._may_begin(job):
            raise UserError(
                Code.GATEWAY_NOT_RUNNING,
                f"{job.id} asks models, and no gateway runs: `freehold up` goes on with it.",
            )
        try:
            while True:
                await asyncio.to_thread(self._look_after, only=job.id)
                found = await asyncio.to_thread(
                    self._store.job, job.tenant_id, job.environment, job.id
                )
                now = _there(found, job.id)
                on_look(now)
                if now.state.has_ended:
                    return now
                await asyncio.sleep(_LOOK_S / 4)
        finally:
            for each in list(self._running.values()):
                self._put_back(each)

    async def look(self) -> None:
        """One round: what runs is looked after, and what waits is begun if there is room."""
        await asyncio.to_thread(self._look_after)

    def sweep(self) -> None:
        """Removes what is left of jobs that are gone with their tenant, now and then: what was
        trained on its data."""
        now_s = time.monotonic()
        if self._swept_at_s is not None and now_s - self._swept_at_s < _SWEEP_S:
            return
        self._swept_at_s = now_s
        folders = {path.name: path for path in (self._home / "jobs").glob("job_*")}
        names = sorted(folders)
        for at in range(0, len(names), _PART):
            part = names[at : at + _PART]
            for name in set(part) - self._store.known_jobs(part) - self._running.keys():
                shutil.rmtree(folders[name], ignore_errors=True)

    def _look_after(self, only: str | None = None) -> None:
        for each in list(self._running.values()):
            self._look_at(each)
        for job in self._store.open_jobs(self._by, self._clock.wall_us()):
            if job.id in self._running or only not in (None, job.id):
                continue
            if self._has_room(job.kind) and self._may_begin(job) and self._is_here(job):
                self._begin(job)

    def _has_room(self, kind: JobKind) -> bool:
        """Each kind has places of its own: nobody waits for hours to evaluate what was trained."""
        running = sum(each.job.kind is kind for each in self._running.values())
        return running < self._settings.at_once

    def _is_idle(self, kind: JobKind) -> bool:
        """An evaluation computes little, and waits for models which the others keep busy."""
        return kind is JobKind.TUNE and self._settings.priority == "idle"

    def _may_begin(self, job: Job) -> bool:
        return self._keys is not None or job.kind is not JobKind.EVAL

    def _is_here(self, job: Job) -> bool:
        """Another gateway's data is on its own disk: a job waits for that, unless its files are
        here too. Where there are no others, what is gone is gone, which the job says."""
        if "files" in job.spec:  # laid down after its row
            return all((self.work(job.id) / name).exists() for name in job.spec["files"])
        if self._store.gateway is None:
            return True
        paths = [job.spec.get(name) for name in ("train", "held_out")]
        named = [Path(path) for path in paths if isinstance(path, str)]
        return self.work(job.id).exists() or all(path.exists() for path in named)

    def _begin(self, job: Job) -> None:
        now_us = self._clock.wall_us()
        taken = self._store.take_job(*_key(job), self._by, now_us, now_us + _HOLD_US)
        if taken is None:
            return
        work = self.work(job.id)
        process = JobProcess.adopt(work)
        if process is None:
            said = JobProcess.ended(work)
            if said.is_final:  # it ended while no gateway ran
                self._store.hold_job(*_key(job), self._by, now_us + _HOLD_US, said.progress)
                self._end(taken, work, said, None)
                return
            if taken.is_cancelled:
                self._close(taken, JobState.CANCELLED)
                return
            process = self._started(taken, work)
        if process is not None:
            self._running[job.id] = _Running(taken, process)

    def _started(self, job: Job, work: Path) -> JobProcess | None:
        try:
            self._check_room(work)
            key = None
            if self._keys is not None and job.kind is JobKind.EVAL:
                with _as_gateway():
                    key = self._keys.lend(job)
            return JobProcess.start(
                self._home, work, job, self._program, self._threads, key, self._is_idle(job.kind)
            )
        except OSError as error:
            why = f"It cannot be started ({error.strerror}): see the disk of {work}."
            self._close(job, JobState.FAILED, error=_told(Code.DISK_FULL, why))
        except UserError as error:
            self._close(job, JobState.FAILED, error=_told(error.code, error.message))
        return None

    def _look_at(self, each: _Running) -> None:
        now_s, process = time.monotonic(), each.process
        process.ran(now_s - each.looked_at_s)
        each.looked_at_s = now_s
        has_ended = process.has_ended()  # before the last words are read
        process.listen()
        process.bound_errors()
        held = self._hold(each)
        if held is None:  # another gateway's, or gone with its tenant
            process.kill()
        if held is None or has_ended:
            del self._running[each.job.id]
        if held is None:
            return
        if has_ended:
            self._ended(each)
            return
        if each.ending is None:
            self._check(each, held)
        elif now_s - each.ending.since_s > _PATIENCE_S:
            process.kill()

    def _hold(self, each: _Running) -> Job | None:
        now_us, progress = self._clock.wall_us(), each.process.said.progress
        is_news = progress is not None and progress != each.told
        if progress is not None and is_news:
            each.process.came_to(progress.get("step"))
        if not is_news and now_us - each.held_at_us < _HOLD_AGAIN_US:
            job = each.job
            return self._store.job(job.tenant_id, job.environment, job.id)
        with contextlib.suppress(OSError):  # the disk is full: checked below
            each.process.keep()
        held = self._store.hold_job(
            *_key(each.job), self._by, now_us + _HOLD_US, progress if is_news else None
        )
        each.held_at_us, each.told = now_us, progress
        return held

    def _check(self, each: _Running, job: Job) -> None:
        """Whether it may go on."""
        if job.is_cancelled:
            self._ask_to_end(each, JobState.CANCELLED, None)
            return
        try:
            self._check_limits(each)
        except UserError as error:
            self._ask_to_end(each, JobState.FAILED, _told(error.code, error.message))

    def _check_limits(self, each: _Running) -> None:
        spec, process = each.job.spec, each.process
        most_s, most_bytes = spec.get("max_seconds"), spec.get("max_memory_bytes")
        if most_s is not None and process.seconds > most_s:
            raise UserError(
                Code.LIMIT_REACHED,
                f"It took longer than the {most_s:,.0f} seconds that it may: start another with "
                "more time, a smaller model or fewer examples.",
            )
        if most_bytes is not None and process.memory_bytes > most_bytes:
            raise UserError(
                Code.LIMIT_REACHED,
                f"It took more memory than the {most_bytes / 1e9:,.1f} GB that it may: allow more, "
                "or choose a smaller model or shorter examples.",
            )
        if process.log_bytes > _MOST_LOG:
            raise UserError(
                Code.LIMIT_REACHED, "It said more than anybody could read: see its log."
            )
        self._check_room(process.work)

    def _check_room(self, work: Path) -> None:
        folder = next(each for each in (work, *work.parents) if each.exists())
        free = shutil.disk_usage(folder).free
        if free < self._settings.keep_free_mb * 1_000_000:
            raise UserError(
                Code.DISK_FULL,
                f"The disk of {folder} has {free / 1e6:,.0f} MB left, and "
                f"{self._settings.keep_free_mb:,} MB are to stay free (tune.keep_free_mb): make "
                "room, and resume the job.",
            )

    def _ask_to_end(self, each: _Running, state: JobState, error: dict[str, Any] | None) -> None:
        each.ending = _Ending(state, error, time.monotonic())
        each.process.ask_to_end()

    def _ended(self, each: _Running) -> None:
        process, job = each.process, each.job
        with contextlib.suppress(OSError):
            process.keep()
        if each.ending is not None and process.said.result is None:
            self._close(job, each.ending.state, error=each.ending.error)
            return
        if process.said.is_final:
            self._end(job, process.work, process.said, each)
            return
        self._ended_silently(each)

    def _ended_silently(self, each: _Running) -> None:
        """It was killed, or broke. What was killed goes on from its last checkpoint."""
        process, job = each.process, each.job
        try:
            self._check_room(process.work)
        except UserError as error:
            self._close(job, JobState.FAILED, error=_told(error.code, error.message))
            return
        status = process.exit_status
        was_killed = status is None or status < 0
        if was_killed and process.starts < _STARTS:
            written_down(process.work, "It was killed, and goes on from its last checkpoint.")
            self._store.put_job_back(*_key(job), self._by)
            return
        if words := process.last_words():
            written_down(process.work, words)
        times = f"was killed {process.starts} times, as happens where memory is short"
        how = times if was_killed else f"broke ({status})"
        why = f"Its process {how}: see `freehold {job.kind} logs {job.id}`."
        self._close(job, JobState.FAILED, error=_told(Code.INTERNAL, why))

    def _end(self, job: Job, work: Path, said: Said, each: _Running | None) -> None:
        if said.error is not None:
            error = {name: str(said.error.get(name, "")) for name in ("code", "message")}
            self._close(job, JobState.FAILED, error=error)
            return
        result = said.result or {}
        try:
            with _as_gateway():
                kept = self._take_in(job, result, work)
        except UserError as error:
            self._close(job, JobState.FAILED, error=_told(error.code, error.message))
            return
        except OSError as error:
            why = (
                f"What it made cannot be kept ({error.strerror}): see the disk of {self._home}, "
                f"then take it in with `freehold {job.kind} resume {job.id}`."
            )
            self._close(job, JobState.FAILED, error=_told(Code.DISK_FULL, why))
            return
        told = {**result, **kept.told}
        if self._close(job, JobState.DONE, result=told, gate=kept.gate):
            tidied(work)

    def _close(
        self,
        job: Job,
        state: JobState,
        *,
        result: dict[str, Any] | None = None,
        error: dict[str, Any] | None = None,
        gate: Gate | None = None,
    ) -> bool:
        at_us = self._clock.wall_us()
        if job.kind is not JobKind.EVAL:  # which waits, while what it asks has its own price
            seconds, run = ran(self.work(job.id))
            self._book(job, state, seconds, run)
        if self._keys is not None and job.kind is JobKind.EVAL:
            with _as_gateway():
                self._keys.take_back(job)
        with nullcontext() if gate is None else _as_gateway():  # who decides leaves a record
            is_ended = self._store.end_job(*_key(job), self._by, state, at_us, result, error, gate)
        if not is_ended:
            return False
        if state is not JobState.CANCELLED:
            self._tell(_happening(job, state, error))
        return True

    def _put_back(self, each: _Running) -> None:
        each.process.ask_to_end()
        until_s = time.monotonic() + _PATIENCE_S
        while not each.process.has_ended() and time.monotonic() < until_s:
            time.sleep(0.05)
        each.process.kill()
        each.process.listen()
        with contextlib.suppress(OSError):
            each.process.keep()
        self._store.put_job_back(*_key(each.job), self._by)
        self._running.pop(each.job.id, None)


def _as_gateway() -> AbstractContextManager[Acting]:
    return acting_as(Acting("freehold", Via.GATEWAY))


def _there(job: Job | None, job_id: str) -> Job:
    if job is None:
        raise no_job(job_id)
    return job


def _key(job: Job) -> tuple[str, str]:
    return job.tenant_id, job.id


def _told(code: Code, message: str) -> dict[str, Any]:
    return {"code": code.value, "message": message}


def _happening(job: Job, state: JobState, error: Mapping[str, Any] | None) -> Happening:
    what = f"The {job.kind} job {job.id} ({job.name})"
    if state is JobState.DONE:
        return Happening(
            Kind.JOB_DONE, f"{what} is done.", job.id, job.tenant_id, job.environment.value
        )
    why = error["message"] if error else ""
    return Happening(
        Kind.JOB_FAILED, f"{what} failed. {why}", job.id, job.tenant_id, job.environment.value
    )
