"""One child process: alone in its group, its output bounded, and gone when we want it."""

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from freehold.core.engine import LaunchSpec
from freehold.deploy import process
from freehold.deploy.process import Process

_PATIENCE_S = 20


def _spec(folder: Path, script: str, **env: str) -> LaunchSpec:
    """A shell script; `$READY` is a file that it makes when it has begun."""
    env = {"PATH": os.environ["PATH"], "READY": str(folder / "ready"), **env}
    return LaunchSpec(("sh", "-c", script), env, str(folder / "e.sock"), 5.0)


async def _started(folder: Path, script: str, **env: str) -> Process:
    started = await Process.start(_spec(folder, script, **env), folder / "engine.log")
    async with asyncio.timeout(_PATIENCE_S):
        while not (folder / "ready").exists() and not started.has_ended:
            await asyncio.sleep(0.005)
    return started


def _gone(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True


async def _all_gone(*pids: int) -> None:
    async with asyncio.timeout(_PATIENCE_S):
        while not all(map(_gone, pids)):
            await asyncio.sleep(0.005)


async def test_it_leads_a_group_of_its_own_with_the_environment_it_was_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CANARY_SECRET", "do-not-inherit")
    started = await _started(tmp_path, "env; touch $READY; exec sleep 60", ONLY="this")
    assert os.getpgid(started.pid) == os.getsid(started.pid) == started.pid
    assert started.rss_bytes
    lines = (tmp_path / "engine.log").read_text().splitlines()
    assert "ONLY=this" in lines
    assert not any("CANARY" in line for line in lines)
    await started.stop(_PATIENCE_S)
    assert started.has_ended
    assert started.rss_bytes is None


async def test_a_process_that_listens_to_the_signal_ends_in_its_own_way(tmp_path: Path) -> None:
    script = "trap 'echo bye; exit 7' TERM; touch $READY; while :; do sleep 0.01; done"
    started = await _started(tmp_path, script)
    await started.stop(_PATIENCE_S)
    assert await started.wait() == 7
    assert "bye" in (tmp_path / "engine.log").read_text()
    await started.stop(_PATIENCE_S)
    await started.kill()


async def test_a_process_that_does_not_listen_is_killed(tmp_path: Path) -> None:
    started = await _started(tmp_path, "trap '' TERM; touch $READY; while :; do sleep 1; done")
    await started.stop(0.05)
    assert await started.wait() == -9


@pytest.mark.parametrize(
    "leader",
    ["exec sleep 60", "exit 3", "trap '' TERM; while :; do sleep 1; done"],
    ids=["ends when asked", "has ended by itself", "must be killed"],
)
async def test_its_children_end_with_it_though_they_ignore_signals(
    tmp_path: Path, leader: str
) -> None:
    child = "(trap '' TERM; while :; do sleep 1; done) & echo $! >pid; mv pid $CHILD; touch $READY"
    started = await _started(tmp_path, f"cd $HERE; {child}; {leader}",
                             HERE=str(tmp_path), CHILD=str(tmp_path / "child"))  # fmt: skip
    grandchild = int((tmp_path / "child").read_text())
    if "exit" in leader:
        await started.wait()
        assert not _gone(grandchild)
    await started.stop(0.05)
    await _all_gone(started.pid, grandchild)


_PARENT = """
import asyncio, json, sys
from pathlib import Path
from freehold.core.engine import LaunchSpec
from freehold.deploy.process import Process

async def main():
    argv = json.loads(sys.argv[1])
    spec = LaunchSpec(tuple(argv), {}, sys.argv[2] + "/e.sock", 5.0)
    started = await Process.start(spec, Path(sys.argv[2]) / "engine.log")
    print(started.pid, flush=True)
    await asyncio.sleep(60)

asyncio.run(main())
"""


async def test_its_standard_input_closes_when_we_are_killed(tmp_path: Path) -> None:
    engine = json.dumps([sys.executable, "-c", "import sys; sys.stdin.read()"])
    parent = await asyncio.create_subprocess_exec(
        sys.executable, "-c", _PARENT, engine, str(tmp_path), stdout=subprocess.PIPE
    )
    assert parent.stdout is not None
    child = int(await parent.stdout.readline())
    assert not _gone(child)
    parent.kill()
    await parent.wait()
    await _all_gone(child)


async def test_a_program_that_is_not_there_is_an_os_error(tmp_path: Path) -> None:
    spec = LaunchSpec((str(tmp_path / "none"),), {}, str(tmp_path / "e.sock"), 5.0)
    with pytest.raises(FileNotFoundError):
        await Process.start(spec, tmp_path / "engine.log")


async def test_what_is_left_of_an_older_socket_is_removed_first(tmp_path: Path) -> None:
    (tmp_path / "e.sock").write_text("old")
    started = await _started(tmp_path, "touch $READY; exec sleep 60")
    assert not (tmp_path / "e.sock").exists()
    await started.kill()


async def test_its_log_is_kept_over_starts_and_stays_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "_MAX_LOG_BYTES", 100)
    log = tmp_path / "engine.log"
    for name in ("first", "second"):
        (tmp_path / "ready").unlink(missing_ok=True)
        await (await _started(tmp_path, f"echo {name}; echo to-stderr >&2; touch $READY")).wait()
    assert log.read_text() == "first\nto-stderr\nsecond\nto-stderr\n"

    (tmp_path / "ready").unlink()
    script = "echo $LONG; touch $READY; while ! test -e $GO; do sleep 0.01; done; echo after"
    go = tmp_path / "go"
    started = await _started(tmp_path, script, LONG="x" * 200, GO=str(go))
    started.bound_log()
    started.bound_log()
    go.touch()
    await started.wait()
    assert log.read_text() == "after\n"
    assert (tmp_path / "engine.old").read_text().endswith("x" * 200 + "\n")


async def test_an_engine_serves_though_its_log_cannot_be_written(tmp_path: Path) -> None:
    spec = _spec(tmp_path, "echo lost && exit 5")
    started = await Process.start(spec, tmp_path)  # a folder is no file
    assert await started.wait() == 5
    started.bound_log()


@pytest.mark.parametrize("turns", range(4))
async def test_a_start_that_is_cancelled_leaves_no_child(tmp_path: Path, turns: int) -> None:
    """Wherever in its start that comes."""
    before = set(psutil.Process().children())
    starting = asyncio.ensure_future(
        Process.start(_spec(tmp_path, "sleep 600"), tmp_path / "engine.log")
    )
    for _ in range(turns):
        await asyncio.sleep(0)
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    left = set(psutil.Process().children()) - before
    assert not [child for child in left if child.status() != psutil.STATUS_ZOMBIE]
