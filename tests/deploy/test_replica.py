"""A replica over its life: it serves only while it makes tokens, comes back when it
dies, with growing pauses, and leaves nothing behind when it is stopped."""

import asyncio
import os
import signal
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import psutil
import pytest

from freehold.core.engine import COMPLETIONS, EngineCall, LaunchSpec
from freehold.core.errors import Code, UserError
from freehold.deploy import replica as replicas
from freehold.deploy.replica import Replica, State
from freehold.engines.base import LocalModel
from freehold.engines.fake import Fake, FakeClient
from tests.harness import card

_PATIENCE_S = 30


@pytest.fixture(autouse=True)
def _own_temporary_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


def _sockets(tmp_path: Path) -> list[Path]:
    return list(tmp_path.glob("freehold-*"))


@asynccontextmanager
async def _replica(folder: Path, *flags: str, engine: Any = None) -> AsyncIterator[Replica]:
    made = Replica("r0", engine or Fake(flags), LocalModel(card(), folder / "none"), folder)
    try:
        yield made
    finally:
        await made.stop()


async def _until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(_PATIENCE_S):
        while not condition():
            await asyncio.sleep(0.005)


async def _makes_a_token(replica: Replica) -> bool:
    call = EngineCall(COMPLETIONS, "m", {"prompt": "a", "max_tokens": 1}, "r")
    return bool((await replica.client.whole(call))["choices"])


class _Sh:
    """An engine that is a shell script and speaks to nobody."""

    name = "sh"

    def __init__(self, script: str, ready_timeout_s: float = 20, program: str = "sh") -> None:
        self._argv = (program, "-c", script)
        self._ready_timeout_s = ready_timeout_s

    def launch(self, model: LocalModel, socket_path: str) -> LaunchSpec:
        env = {"PATH": os.environ["PATH"], "SOCKET": socket_path}
        return LaunchSpec(self._argv, env, socket_path, self._ready_timeout_s)

    def connect(self, model: LocalModel, socket_path: str) -> FakeClient:
        return FakeClient(socket_path)


async def test_it_starts_serves_and_leaves_nothing_behind(tmp_path: Path) -> None:
    async with _replica(tmp_path, "--start-delay=0.3") as replica:
        assert (replica.state, replica.pid, replica.rss_bytes) == (State.STOPPED, None, None)
        with pytest.raises(UserError) as early:
            replica.client  # noqa: B018 - the read is what fails
        assert early.value.code is Code.ENGINE_UNAVAILABLE
        replica.start()
        replica.start()
        await _until(lambda: replica.pid)
        assert (replica.state, replica.is_ready) == (State.STARTING, False)
        await replica.ensure_ready(_PATIENCE_S)
        assert (replica.state, replica.is_ready) == (State.READY, True)
        assert replica.last_error is None
        assert replica.rss_bytes
        assert await _makes_a_token(replica)
        (folder,) = _sockets(tmp_path)
        assert folder.stat().st_mode & 0o777 == 0o700
        pid = replica.pid
    assert (replica.state, replica.pid, replica.rss_bytes) == (State.STOPPED, None, None)
    assert pid is not None
    assert not psutil.pid_exists(pid)
    assert _sockets(tmp_path) == []
    await replica.stop()


async def test_a_stopped_replica_can_be_started_again(tmp_path: Path) -> None:
    async with _replica(tmp_path) as replica:
        await replica.ensure_ready(_PATIENCE_S)
        await replica.stop()
        with pytest.raises(UserError):
            replica.client  # noqa: B018 - the read is what fails
        await replica.ensure_ready(_PATIENCE_S)
        assert await _makes_a_token(replica)


async def test_who_waits_too_long_gets_the_reason_and_the_place_of_the_log(
    tmp_path: Path,
) -> None:
    async with _replica(tmp_path, engine=_Sh("exit 3")) as replica:
        replica.start()
        await _until(lambda: replica.restarts)
        with pytest.raises(UserError) as refused:
            await replica.ensure_ready(0.01)
    assert refused.value.code is Code.ENGINE_UNAVAILABLE
    assert "it ended while it started" in refused.value.message
    assert str(tmp_path / "engine-r0.log") in refused.value.message
    assert refused.value.retry_after_s


@pytest.mark.parametrize(
    ("engine", "reason"),
    [
        (_Sh("exit 3"), "it ended while it started"),
        (_Sh("", program="/no/such/program"), "No such file"),
        (_Sh("exec sleep 60", ready_timeout_s=0.1), "TimeoutError"),
        (_Sh("touch $SOCKET; exec sleep 60", ready_timeout_s=0.5), "TimeoutError"),
        (Fake(("--wrong-digest",)), "it loaded other weights than it should"),
    ],
    ids=["ends at once", "no program", "no socket", "deaf socket", "other weights"],
)
async def test_an_engine_that_cannot_start_says_why_and_is_tried_again(
    tmp_path: Path, engine: Any, reason: str
) -> None:
    async with _replica(tmp_path, engine=engine) as replica:
        replica.start()
        await _until(lambda: replica.restarts >= 2)
        assert reason in (replica.last_error or "")
        assert not replica.is_ready
        await _until(lambda: replica.state is State.BACKOFF)
        assert replica.pid is None, "what did not serve does not run on"
        assert _sockets(tmp_path) == []


async def test_a_surprise_in_an_engine_does_not_end_its_supervision(tmp_path: Path) -> None:
    class Surprising(Fake):
        calls = 0

        def connect(self, model: LocalModel, socket_path: str) -> FakeClient:
            self.calls += 1
            if self.calls == 1:
                raise ZeroDivisionError("canary")
            return super().connect(model, socket_path)

    async with _replica(tmp_path, engine=Surprising()) as replica:
        replica.start()
        await _until(lambda: replica.restarts)
        assert replica.last_error == "ZeroDivisionError"
        await replica.ensure_ready(_PATIENCE_S)


async def test_an_engine_that_dies_comes_back_at_another_address(tmp_path: Path) -> None:
    async with _replica(tmp_path) as replica:
        await replica.ensure_ready(_PATIENCE_S)
        first, folder = replica.pid, _sockets(tmp_path)
        assert first is not None
        os.kill(first, signal.SIGKILL)
        await _until(lambda: replica.restarts)
        assert replica.last_error == "it ended with status -9"
        await replica.ensure_ready(_PATIENCE_S)
        assert replica.pid not in (None, first)
        assert _sockets(tmp_path) != folder
        assert len(_sockets(tmp_path)) == 1
        assert replica.last_error is None
        assert await _makes_a_token(replica)


class _Pauses(ModuleType):
    """`asyncio` for the replica; long sleeps are noted and over at once."""

    def __init__(self) -> None:
        super().__init__("asyncio")
        self.seen: list[float] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(asyncio, name)

    async def sleep(self, delay: float) -> None:
        if delay == replicas._POLL_S:
            await asyncio.sleep(delay)
            return
        self.seen.append(delay)
        await asyncio.sleep(0)


async def test_pauses_grow_up_to_a_limit_and_begin_anew_after_a_stable_life(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses = _Pauses()
    monkeypatch.setattr(replicas, "asyncio", pauses)
    monkeypatch.setattr(replicas, "_BACKOFF_MOST_S", 3.0)
    monkeypatch.setattr(replicas, "_STABLE_S", 1e-9)
    count = tmp_path / "starts"
    # The flag makes the first starts fail; a life that served is stable here.
    async with _replica(
        tmp_path, "--fail-start=6", f"--fail-start-file={count}", engine=None
    ) as replica:
        await replica.ensure_ready(_PATIENCE_S)
        assert len(pauses.seen) == replica.restarts == 6
        for pause, expected in zip(pauses.seen, (0.2, 0.4, 0.8, 1.6, 3.0, 3.0), strict=True):
            assert 0.8 * expected <= pause <= 1.2 * expected
        assert replica.pid is not None
        os.kill(replica.pid, signal.SIGKILL)
        await _until(lambda: len(pauses.seen) == 7)
        assert pauses.seen[-1] <= 1.2 * 0.2
        await replica.ensure_ready(_PATIENCE_S)


async def test_a_suspect_gets_no_work_until_it_has_made_a_token(tmp_path: Path) -> None:
    async with _replica(tmp_path) as replica:
        replica.suspect()
        assert replica.state is State.STOPPED, "only who is ready can be doubted"
        await replica.ensure_ready(_PATIENCE_S)
        pid = replica.pid
        for _ in range(3):
            replica.suspect()
            assert (replica.state, replica.is_ready) == (State.SUSPECT, False)
            replica.suspect()
            await replica.ensure_ready(_PATIENCE_S)
            assert replica.is_ready
        assert (replica.pid, replica.restarts) == (pid, 0), "a doubt is no death"


async def test_a_doubt_in_the_moment_of_a_look_is_not_forgotten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replicas, "_PROBE_EVERY_S", 0.05)
    async with _replica(tmp_path) as replica:
        await replica.ensure_ready(_PATIENCE_S)
        replica.in_flight = 1  # so that it only looks whether the process lives
        for _ in range(5):
            asyncio.get_running_loop().call_later(0.06, replica.suspect)
            time.sleep(0.08)  # noqa: ASYNC251 - both timers are due in the same turn of the loop
            await asyncio.sleep(0)
            await replica.ensure_ready(_PATIENCE_S)
        replica.in_flight = 0


@pytest.mark.parametrize("asked", [True, False], ids=["when doubted", "by itself"])
async def test_an_engine_whose_port_answers_but_that_makes_no_token_is_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: bool
) -> None:
    monkeypatch.setattr(replicas, "_PROBE_S", 0.1)
    monkeypatch.setattr(replicas, "_PROBE_EVERY_S", 30 if asked else 0.05)
    monkeypatch.setattr(replicas, "_BACKOFF_FIRST_S", 30)
    async with _replica(tmp_path, "--hang-at-token=1") as replica:
        await replica.ensure_ready(_PATIENCE_S)
        pid = replica.pid
        assert pid is not None
        if asked:
            replica.suspect()
        await _until(lambda: replica.state is State.BACKOFF)
        assert replica.last_error == "it made no token in time"
        assert not psutil.pid_exists(pid)


async def test_a_busy_engine_is_not_probed_unless_it_is_doubted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replicas, "_PROBE_S", 0.1)
    monkeypatch.setattr(replicas, "_PROBE_EVERY_S", 0.02)
    async with _replica(tmp_path, "--hang-at-token=1") as replica:
        replica.in_flight = 1
        await replica.ensure_ready(_PATIENCE_S)
        await asyncio.sleep(0.3)
        assert (replica.is_ready, replica.restarts) == (True, 0)


@pytest.mark.parametrize("when", ["starting", "ready", "backoff"])
async def test_it_stops_in_every_state(tmp_path: Path, when: str) -> None:
    engine = {
        "starting": Fake(("--start-delay=60",)), "ready": Fake(), "backoff": _Sh("exit 1")
    }[when]  # fmt: skip
    async with _replica(tmp_path, engine=engine) as replica:
        replica.start()
        await _until(lambda: replica.state == when and (replica.pid or when == "backoff"))
        pid = replica.pid
        await replica.stop()
        assert replica.state is State.STOPPED
        assert pid is None or not psutil.pid_exists(pid)
        assert _sockets(tmp_path) == []


async def test_an_engine_that_ignores_the_signal_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replicas, "_STOP_S", 0.1)
    async with _replica(tmp_path, "--ignore-sigterm") as replica:
        await replica.ensure_ready(_PATIENCE_S)
        pid = replica.pid
        await replica.stop()
        assert pid is not None
        assert not psutil.pid_exists(pid)
