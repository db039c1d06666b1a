"""Jobs of a gateway, by real processes that count: they outlive it, go on after a kill, and end
when they take more than they may."""

import asyncio
import fcntl
import os
import signal
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import psutil
import pytest

from freehold.config.schema import TuneSettings
from freehold.core.binding import Environment
from freehold.core.clock import SystemClock
from freehold.core.errors import Code, UserError
from freehold.core.event import Happening, Kind
from freehold.core.job import Job, JobKind, JobState
from freehold.core.limit import Limit, Measure, Period, window
from freehold.core.lineage import Remains
from freehold.operate.jobs.booking import BookingAtRest
from freehold.operate.jobs.process import ran
from freehold.operate.jobs.supervisor import Jobs, Taken
from freehold.store.sql import SqlStore
from tests.databases import stock
from tests.operate.jobs.counting import PROGRAM

_MINE = ("ten_a", Environment.DEV)
_BASE = "sha256:" + "ab" * 32


class Desk:
    """A home with jobs, and gateways that look after them."""

    def __init__(self, home: Path) -> None:
        self.home = home
        home.mkdir()
        self.store = SqlStore(stock(home / "freehold.db"))
        self.told: list[Happening] = []
        self.taken_in: list[Mapping[str, Any]] = []
        self.disk_error: OSError | None = None  # of the next that is taken in
        self.started: list[Jobs] = []
        self.booked: list[tuple[str, JobState]] = []

    def gateway(self, by: str = "gw_1", **settings: Any) -> Jobs:
        made = Jobs(
            self.home, TuneSettings(**{"keep_free_mb": 0, "priority": "low", **settings}),
            self.store, SystemClock(), by, self._take_in, self.told.append, 1, self._book, PROGRAM,
        )  # fmt: skip
        self.started.append(made)
        return made

    def _take_in(self, job: Job, result: Mapping[str, Any], work: Path) -> Taken:
        assert (work / str(result["folder"])).is_dir()
        if self.disk_error is not None:
            error, self.disk_error = self.disk_error, None
            raise error
        self.taken_in.append(result)
        return Taken({"adapter": job.name})

    def _book(self, job: Job, state: JobState, seconds: float, run: int) -> None:
        self.booked.append((job.id, state))
        BookingAtRest(SystemClock(), 3_600_000_000, self.store)(job, state, seconds, run)

    def add(self, gateway: Jobs, **spec: Any) -> Job:
        told = {"base": _BASE, "steps": 3, **spec}
        return gateway.add(_MINE, JobKind.TUNE, "bot", told, "key_1")

    def now(self, job: Job) -> Job:
        found = self.store.job(*_MINE, job.id)
        assert found is not None
        return found

    async def until(self, gateway: Jobs, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(120):
            while not condition():
                await gateway.look()
                await asyncio.sleep(0.02)

    async def ended(self, gateway: Jobs, job: Job) -> Job:
        await self.until(gateway, lambda: self.now(job).state.has_ended)
        return self.now(job)

    async def at_step(self, gateway: Jobs, job: Job, step: int) -> None:
        await self.until(gateway, lambda: self.now(job).progress.get("step", 0) >= step)

    async def at_work(self, **settings: Any) -> psutil.Process:
        """Of a job that is at its steps, in a gateway with these settings."""
        gateway = self.gateway(**settings)
        job = self.add(gateway, steps=1000, pause_s=0.01)
        await self.at_step(gateway, job, 1)
        return self.process(job)

    def process(self, job: Job) -> psutil.Process:
        (found,) = self.processes(job)
        return found

    def processes(self, job: Job) -> list[psutil.Process]:
        return [
            each for each in psutil.process_iter(["cmdline"])
            if PROGRAM[1] in (each.info["cmdline"] or ()) and self._is_of(each, job)
        ]  # fmt: skip

    def _is_of(self, process: psutil.Process, job: Job) -> bool:
        try:
            return any(job.id in each.path for each in process.open_files())
        except psutil.Error:
            return False


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    made = Desk(tmp_path / "home")
    yield made
    for jobs in made.started:
        for each in jobs._running.values():
            each.process.kill()
    made.store.close()


async def test_a_job_is_done_and_what_it_made_is_taken_in(desk: Desk) -> None:
    gateway = desk.gateway()
    job = desk.add(gateway)
    assert job.state is JobState.QUEUED
    ended = await desk.ended(gateway, job)
    assert ended.state is JobState.DONE, ended.error
    assert ended.result is not None
    assert (ended.result["count"], ended.result["adapter"]) == (3, "bot")
    assert ended.progress["step"] == 3
    assert [each.kind for each in desk.told] == [Kind.JOB_DONE]
    assert {"log": "from 0"} in gateway.log(job)
    kept = {path.name for path in gateway.work(job.id).iterdir()}
    assert kept == {"log.jsonl", "process.json"}, "checkpoints and copies go"


async def test_one_job_runs_at_a_time_unless_the_settings_say_more(desk: Desk) -> None:
    gateway = desk.gateway()
    first, second = (desk.add(gateway, steps=1000, pause_s=0.01) for _ in range(2))
    await desk.at_step(gateway, first, 1)
    assert desk.now(second).state is JobState.QUEUED
    wider = desk.gateway("gw_1", at_once=2)
    await desk.at_step(wider, second, 1)
    for each in (first, second):
        wider.cancel(_MINE, each.id)
        assert (await desk.ended(wider, each)).state is JobState.CANCELLED


async def test_a_job_outlives_its_gateway_and_the_next_one_adopts_it(desk: Desk) -> None:
    first = desk.gateway()
    job = desk.add(first, steps=40, pause_s=0.05)
    await desk.at_step(first, job, 1)
    process = desk.process(job)
    await first.stop()
    second = desk.gateway()
    ended = await desk.ended(second, job)
    assert ended.state is JobState.DONE
    assert not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    assert [each for each in second.log(job) if "log" in each] == [{"log": "from 0"}]


async def test_what_ended_while_no_gateway_ran_is_taken_in_by_the_next(desk: Desk) -> None:
    first = desk.gateway()
    job = desk.add(first, steps=3, pause_s=0.05)
    await desk.until(first, lambda: desk.now(job).state is JobState.RUNNING)
    child = desk.process(job)
    child.wait(20)
    assert desk.now(job).state is JobState.RUNNING
    second = desk.gateway()
    await second.look()
    assert desk.now(job).state is JobState.DONE
    assert len(desk.taken_in) == 1


async def test_what_a_job_made_outlives_a_disk_that_cannot_keep_it_yet(desk: Desk) -> None:
    gateway = desk.gateway()
    desk.disk_error = OSError(28, "No space left on device")
    job = await desk.ended(gateway, desk.add(gateway))
    assert job.error is not None
    assert (job.state, job.error["code"]) == (JobState.FAILED, Code.DISK_FULL)
    assert f"freehold tune resume {job.id}" in job.error["message"]
    gateway.resume(_MINE, job.id)
    assert (await desk.ended(gateway, job)).state is JobState.DONE
    assert [each for each in gateway.log(job) if "log" in each] == [{"log": "from 0"}]
    assert len(desk.taken_in) == 1


async def test_a_job_whose_dataset_was_removed_meanwhile_says_so(desk: Desk) -> None:
    gateway = desk.gateway()
    gone = str(desk.home / "datasets" / "gone.jsonl")
    job = await desk.ended(gateway, desk.add(gateway, train=gone, held_out=gone))
    assert job.error == {"code": "not_found", "message": "The data set is not there: add it again."}


async def test_a_job_that_was_cancelled_while_it_was_taken_in_is_done(desk: Desk) -> None:
    gateway = desk.gateway()
    job = desk.add(gateway)
    take_in = gateway._take_in

    def cancelled(*told: Any) -> dict[str, Any]:
        gateway.cancel(_MINE, job.id)
        return take_in(*told)

    gateway._take_in = cancelled
    ended = await desk.ended(gateway, job)
    assert ended.state is JobState.DONE
    assert len(desk.taken_in) == 1


async def test_the_time_of_a_job_is_booked_once_for_each_time_that_it_ended(desk: Desk) -> None:
    gateway = desk.gateway()
    job = desk.add(gateway, steps=60, pause_s=0.02)
    await desk.at_step(gateway, job, 3)
    gateway.cancel(_MINE, job.id)
    await desk.ended(gateway, job)
    gateway.resume(_MINE, job.id)
    ended = await desk.ended(gateway, job)
    assert desk.booked == [(job.id, JobState.CANCELLED), (job.id, JobState.DONE)]
    desk._book(ended, JobState.DONE, 9.0, ran(gateway.work(job.id))[1])  # as after a crash
    rows = sorted(desk.store.records("ten_a", 10), key=lambda row: row["settled_at_us"])
    assert [row["outcome"] for row in rows] == ["client_gone", "ok"]
    for row in rows:
        assert (row["alias"], row["tokens_in"]) == ("tune:bot", 0)
        assert row["cost"] == pytest.approx(row["duration_us"], abs=2)
        assert 0 < row["cost"] < 9_000_000
    total = Limit("lim_1", "ten_a", None, None, Measure.MONEY, Period.TOTAL, 1, False, 0)
    spent = desk.store.spent("ten_a", total, window(Period.TOTAL, SystemClock().wall_us()))
    assert spent == sum(row["cost"] for row in rows)


async def test_a_killed_job_goes_on_from_its_checkpoint(desk: Desk) -> None:
    gateway = desk.gateway()
    ended = await desk.ended(gateway, desk.add(gateway, steps=5, die_at=2))
    assert ended.state is JobState.DONE
    said = [each["log"] for each in gateway.log(ended) if "log" in each]
    assert said == ["from 0", "It was killed, and goes on from its last checkpoint.", "from 2"]


async def test_a_process_begins_when_the_one_before_let_go_of_its_folder(desk: Desk) -> None:
    gateway = desk.gateway()
    job = desk.add(gateway)
    work = gateway.work(job.id)
    work.mkdir(parents=True)
    with (work / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        await desk.until(gateway, lambda: desk.processes(job) != [])
        await desk.until(gateway, lambda: any(_waits(each) for each in desk.processes(job)))
        assert gateway.log(job) == []
    assert (await desk.ended(gateway, job)).state is JobState.DONE


def _waits(process: psutil.Process) -> bool:
    """For the lock: it has opened the file."""
    try:
        return any(each.path.endswith("/lock") for each in process.open_files())
    except psutil.Error:
        return False


async def test_a_job_that_is_killed_each_time_before_it_comes_further_fails(desk: Desk) -> None:
    gateway = desk.gateway()
    job = desk.add(gateway, hang_at=1)
    killed: set[int] = set()

    def kill() -> bool:
        for each in desk.processes(job):
            if each.pid not in killed:
                killed.add(each.pid)
                os.kill(each.pid, signal.SIGKILL)
        return desk.now(job).state.has_ended

    await desk.until(gateway, kill)
    failed = desk.now(job)
    assert len(killed) == 3
    assert failed.error is not None
    assert "was killed 3 times" in failed.error["message"]
    assert desk.told[-1].kind is Kind.JOB_FAILED


@pytest.mark.parametrize(
    ("spec", "code", "says"),
    [
        ({"refuse_at": 2}, Code.FILE_INVALID, "Line 3 is no example."),
        ({"full_at": 2}, Code.DISK_FULL, "is full: make room"),
        ({"break_at": 2}, Code.INTERNAL, "broke (1): see `freehold tune logs"),
        ({"steps": 10**6, "pause_s": 0.01, "max_seconds": 0.2}, Code.LIMIT_REACHED, "took longer"),
        (
            {"steps": 10**6, "pause_s": 0.01, "hoard": 3 * 10**8, "max_memory_bytes": 2 * 10**8},
            Code.LIMIT_REACHED, "took more memory than the 0.2 GB",
        ),
    ],
)  # fmt: skip
async def test_what_ends_a_job_early_is_told_in_a_sentence(
    desk: Desk, spec: dict[str, Any], code: Code, says: str
) -> None:
    gateway = desk.gateway()
    ended = await desk.ended(gateway, desk.add(gateway, **spec))
    assert ended.state is JobState.FAILED
    assert ended.error is not None
    assert ended.error["code"] == code
    assert says in ended.error["message"]
    assert [each.kind for each in desk.told] == [Kind.JOB_FAILED]
    assert desk.taken_in == []
    assert "what nobody thought of" not in ended.error["message"]


async def test_no_job_begins_on_a_disk_that_is_nearly_full(desk: Desk) -> None:
    gateway = desk.gateway(keep_free_mb=10**9)
    ended = await desk.ended(gateway, desk.add(gateway))
    assert ended.error is not None
    assert ended.error["code"] == Code.DISK_FULL
    assert "tune.keep_free_mb" in ended.error["message"]


async def test_a_cancelled_job_writes_its_checkpoint_and_is_resumed_from_there(desk: Desk) -> None:
    gateway = desk.gateway()
    job = desk.add(gateway, steps=150, pause_s=0.02)
    await desk.at_step(gateway, job, 3)
    gateway.cancel(_MINE, job.id)
    assert (await desk.ended(gateway, job)).state is JobState.CANCELLED
    assert desk.told == [], "whoever cancelled it knows"
    count = int((gateway.work(job.id) / "checkpoint").read_text())
    assert count >= 3
    gateway.resume(_MINE, job.id)
    ended = await desk.ended(gateway, job)
    assert ended.state is JobState.DONE
    assert {"log": f"from {count}"} in gateway.log(job)
    with pytest.raises(UserError, match="is done"):
        gateway.resume(_MINE, job.id)


async def test_a_job_that_is_cancelled_while_no_gateway_runs_ends_at_once(desk: Desk) -> None:
    first = desk.gateway()
    job = desk.add(first, steps=3000, pause_s=0.02)
    await desk.at_step(first, job, 3)
    process = desk.process(job)
    await first.stop()
    desk.gateway().cancel_at_rest(_MINE, job.id)
    process.wait(60)
    count = int((first.work(job.id) / "checkpoint").read_text())
    assert count >= 3
    second = desk.gateway()
    assert (await desk.ended(second, job)).state is JobState.CANCELLED
    second.resume(_MINE, job.id)
    await desk.until(second, lambda: {"log": f"from {count}"} in second.log(job))


async def test_of_two_gateways_on_one_home_one_does_the_job(desk: Desk) -> None:
    first, second = desk.gateway("gw_1"), desk.gateway("gw_2")
    job = desk.add(first, steps=20, pause_s=0.02)
    async with asyncio.timeout(120):
        while not desk.now(job).state.has_ended:
            await asyncio.gather(first.look(), second.look())
            assert len(first._running) + len(second._running) <= 1
            await asyncio.sleep(0.02)  # the job gives way to who only looks, too
    assert len(desk.taken_in) == 1


async def test_a_job_gives_way_to_everything_else_and_inherits_no_secrets(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CANARY_SECRET", "do-not-inherit")
    process = await desk.at_work(priority="idle")
    assert process.nice() == 19
    if hasattr(os, "SCHED_IDLE"):
        assert os.sched_getscheduler(process.pid) == os.SCHED_IDLE
    environment = process.environ()
    assert environment["OMP_NUM_THREADS"] == "1"
    assert environment["HF_HUB_OFFLINE"] == "1"
    assert "CANARY_SECRET" not in environment
    assert os.getsid(process.pid) == process.pid, "no terminal's end is its own"


async def test_a_job_of_low_priority_goes_on_where_others_want_the_cores(desk: Desk) -> None:
    process = await desk.at_work(priority="low")
    assert process.nice() == 10
    if hasattr(os, "SCHED_OTHER"):
        assert os.sched_getscheduler(process.pid) == os.SCHED_OTHER


async def test_a_job_whose_tenant_is_removed_ends_and_leaves_nothing_behind(desk: Desk) -> None:
    desk.store.add_tenant("ten_a", "a", 1)
    gateway = desk.gateway()
    job = desk.add(gateway, steps=10**6, pause_s=0.01)
    await desk.at_step(gateway, job, 1)
    process = desk.process(job)
    gateway.sweep()
    assert gateway.work(job.id).exists()
    desk.store.remove_tenant("ten_a")
    await desk.until(gateway, lambda: not gateway._running)
    process.wait(20)
    desk.gateway().sweep()
    assert not gateway.work(job.id).exists()
    assert desk.told == []


async def test_a_job_is_removed_with_its_folder_once_it_has_ended(desk: Desk) -> None:
    gateway = desk.gateway()
    job = desk.add(gateway)
    with pytest.raises(UserError, match="cancel it, and remove it then") as refused:
        gateway.remove(_MINE, job.id)
    assert refused.value.code is Code.CONFLICT
    await desk.until(gateway, lambda: desk.now(job).state is JobState.DONE)
    folder = desk.home / "jobs" / job.id
    assert folder.is_dir()
    with pytest.raises(UserError, match="There is no job"):
        gateway.remove(("ten_a", Environment.PROD), job.id)
    assert gateway.remove(_MINE, job.id).id == job.id
    assert not folder.exists()
    assert desk.store.jobs(*_MINE, 9) == []
    (left,) = desk.store.left("ten_a", Remains.JOB, job.id)
    assert left.content["row"]["created_by"] == "key_1"
    with pytest.raises(UserError, match="There is no job"):
        gateway.remove(_MINE, job.id)


async def test_who_stops_waiting_for_a_job_leaves_it_to_be_gone_on_with(desk: Desk) -> None:
    gateway = desk.gateway()
    job = desk.add(gateway, steps=1000, pause_s=0.01)
    seen: list[Job] = []
    waiting = asyncio.create_task(gateway.finish(job, seen.append))
    async with asyncio.timeout(120):
        while not (seen and seen[-1].progress.get("step")):
            await asyncio.sleep(0.02)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    assert desk.now(job).state is JobState.QUEUED
    assert int((gateway.work(job.id) / "checkpoint").read_text()) > 0
