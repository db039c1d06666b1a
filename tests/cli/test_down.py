"""`freehold down`: stops the gateway of this home, after its work, and nobody else."""

import json
import os
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx2
import psutil
import pytest

from freehold.config.home import Home, write_private
from tests.cli.conftest import Run
from tests.installation import Installation, start, stock_tiny


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[Installation]:
    """One to be stopped."""
    stock_tiny(tmp_path)
    running = start(tmp_path, "--engine", "fake", "--model", "tiny")
    yield running
    running.process.kill()
    running.process.wait()
    assert running.process.stdout is not None
    running.process.stdout.close()


def _failed(run: Run, *words: str) -> str:
    ended = run("down", *words, "--json")
    assert ended.exit_code == 1
    error = json.loads(ended.stdout)["error"]
    return f"{error['code']}: {error['message']}"


def test_it_stops_everything_and_then_there_is_nothing_to_stop(
    gateway: Installation, commands: Callable[[Path], Run]
) -> None:
    run = commands(gateway.home)
    engines = psutil.Process(gateway.process.pid).children()
    assert engines

    ended = run("down", "--json")

    assert ended.exit_code == 0
    assert json.loads(ended.stdout) == {"stopped": gateway.process.pid}
    output, _ = gateway.process.communicate(timeout=60)
    assert "Stopped." in output
    assert gateway.process.returncode == 0
    assert not psutil.wait_procs(engines, timeout=60)[1]
    assert not (gateway.home / "run" / "gateway.json").exists()
    assert list((gateway.home / "journal").iterdir()) == []
    assert "freehold up" in _failed(run)


def test_what_has_begun_is_finished_and_an_impatient_caller_is_told(
    gateway: Installation, commands: Callable[[Path], Run]
) -> None:
    run = commands(gateway.home)
    replies: list[httpx2.Response] = []

    def ask() -> None:
        body = {
            "model": "tiny",
            "messages": [{"role": "user", "content": "[[slow 0.2]][[tokens 25]]"}],
        }
        replies.append(
            httpx2.post(
                f"{gateway.url}/v1/chat/completions", json=body, timeout=60, trust_env=False,
                headers={"authorization": f"Bearer {gateway.key}"},
            )
        )  # fmt: skip

    asking = threading.Thread(target=ask)
    asking.start()
    while not json.loads(run("status", "--json").stdout)["in_flight"]:
        assert not replies
    assert "conflict: The gateway" in _failed(run, "--wait", "1")
    gateway.process.communicate(timeout=60)
    asking.join(60)
    assert replies[0].status_code == 200
    assert replies[0].json()["usage"]["completion_tokens"] == 25


def test_a_gateway_that_was_killed_counts_as_gone(
    gateway: Installation, commands: Callable[[Path], Run]
) -> None:
    run = commands(gateway.home)
    gateway.process.kill()
    gateway.process.communicate()
    assert (gateway.home / "run" / "gateway.json").exists()
    for command in ("down", "status", "chat"):
        ended = run(command)
        assert ended.exit_code == 1
        assert "No gateway runs" in ended.stderr
    assert run("key", "list").exit_code == 0, "the home is free again"


def test_a_stranger_that_has_the_number_of_a_killed_gateway_is_left_alone(
    tmp_path: Path, commands: Callable[[Path], Run]
) -> None:
    home = Home(tmp_path)
    with home.lock():
        pass
    write_private(home.admin_key, b"fh_dev_x")
    stranger = subprocess.Popen(["sleep", "60"])
    try:
        record = {"url": "http://127.0.0.1:1", "pid": stranger.pid}
        write_private(home.gateway_record, json.dumps(record).encode())
        run = commands(tmp_path)
        assert "gateway_not_running" in _failed(run)
        assert stranger.poll() is None
        assert run("key", "list").exit_code == 0
    finally:
        os.kill(stranger.pid, signal.SIGKILL)
        stranger.wait()


def test_wrong_use_ends_with_two(offline: Run) -> None:
    assert offline("down", "--wait", "0").exit_code == 2
    assert offline("down", "now").exit_code == 2
    assert offline("down").exit_code == 1
