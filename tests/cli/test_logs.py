"""The log never delays or fails a request: what it cannot write is lost and counted."""

import contextlib
import json
import logging
import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from freehold.cli import logs
from freehold.deploy import process
from tests.harness import Running, running


@pytest.fixture(autouse=True)
def _root_logger_as_before() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[Running]:
    async with running(tmp_path) as world:
        yield world


async def _serves_well(world: Running, count: int) -> None:
    """Good requests, and bad ones that are worth a warning."""
    for number in range(count):
        assert (await world.chat(f"good {number}")).status_code == 200
        assert (await world.chat(f"[[garbage not-json]] {number}")).status_code == 502
    await world.settled(2 * count)


def _lines(log: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in log.read_text().splitlines() if line]


async def test_requests_are_logged_once_each_and_by_id(world: Running) -> None:
    logs.configure(world.home.logs, "info")
    await _serves_well(world, 2)
    logging.getLogger().handlers[0].flush()
    written = [line for line in _lines(world.home.logs / "gateway.jsonl") if "outcome" in line]
    settled = {row["id"] for row in await world.settled(4)}
    assert sorted(line["request_id"] for line in written) == sorted(settled)  # type: ignore[type-var]


async def test_a_full_disk_under_the_log_fails_no_request_and_is_told_afterwards(
    world: Running,
) -> None:
    log = world.home.logs / "gateway.jsonl"
    log.symlink_to("/dev/full")  # every write there says that the disk is full
    logs.configure(world.home.logs, "info")
    handler = logging.getLogger().handlers[0]
    await _serves_well(world, 2)
    handler.flush()
    log.unlink()  # space again
    assert (await world.chat("and now")).status_code == 200
    handler.flush()
    told, *others = _lines(log)
    assert told["event"] == "log_lines_lost"
    assert int(str(told["reason"]).split()[0]) >= 4
    assert [line["outcome"] for line in others if "outcome" in line] == ["ok"]


async def test_a_log_that_cannot_be_opened_fails_no_request(world: Running) -> None:
    (world.home.logs / "gateway.jsonl").mkdir()
    logs.configure(world.home.logs, "info")
    await _serves_well(world, 2)


async def test_a_log_that_takes_nothing_holds_nobody_up_and_stays_bounded(
    world: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logs, "_MOST_RECORDS", 50)
    pipe = world.home.logs / "gateway.jsonl"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    writer = os.open(pipe, os.O_WRONLY | os.O_NONBLOCK)
    with contextlib.suppress(BlockingIOError):
        while os.write(writer, b"full\n" * 800):
            pass
    logs.configure(world.home.logs, "info")
    await _serves_well(world, 3)
    for number in range(500):
        logging.getLogger("crowd").warning("line", extra={"reason": str(number)})
    await _serves_well_again(world)
    drained = b""
    while b"log_lines_lost" not in drained:
        try:
            drained += os.read(reader, 65_536)
        except BlockingIOError:
            logging.getLogger("crowd").warning("anything")
    os.close(writer)
    os.close(reader)


async def _serves_well_again(world: Running) -> None:
    assert (await world.chat("still there?")).status_code == 200
    await world.settled(7)


async def test_an_engine_whose_log_cannot_be_written_serves(tmp_path: Path) -> None:
    (tmp_path / "logs" / "engine-fake-model-0.log").mkdir(parents=True)
    async with running(tmp_path) as world:
        assert (await world.chat("no log")).status_code == 200


async def test_the_log_of_a_running_engine_stays_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "_MAX_LOG_BYTES", 1000)
    async with running(tmp_path) as world:
        await world.replica.ensure_ready(10)
        log = tmp_path / "logs" / "engine-fake-model-0.log"
        log.write_bytes(b"said\n" * 400)
        world.replica.suspect()  # looked at now, not only every so often
        await world.replica.ensure_ready(10)
        assert log.stat().st_size == 0
        assert log.with_suffix(".old").stat().st_size == 2000
