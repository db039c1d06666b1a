"""The log never delays or fails a request: what it cannot write is lost and counted. It
holds listed fields and no content, and orders nothing of a terminal that shows it."""

import contextlib
import json
import logging
import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from freehold.cli.terminal import logs
from freehold.deploy import process
from tests.harness import Running, running
from tests.installation import Installation

_CANARY = "canary-4711"


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


# what gets in


def _logged(folder: Path, message: object, **options: Any) -> tuple[dict[str, object], bytes]:
    """The line of one record, as read and as bytes."""
    logs.configure(folder, "debug")
    logging.getLogger("some.module").error(message, **options)
    logging.getLogger().handlers[0].flush()
    raw = (folder / "gateway.jsonl").read_bytes()
    assert raw.count(b"\n") == 1
    return json.loads(raw), raw


def test_a_field_that_is_not_listed_cannot_get_in(tmp_path: Path) -> None:
    listed = {name: f"value of {name}" for name in logs._FIELDS}
    others = dict.fromkeys(("prompt", "content", "key", "authorization", "messages"), _CANARY)
    written, raw = _logged(tmp_path, "request", extra=listed | others)
    assert set(written) == {"time", "level", "event", "logger", *listed}
    assert written["logger"] == "some.module"
    assert _CANARY.encode() not in raw


def test_what_a_message_is_filled_with_stays_out(tmp_path: Path) -> None:
    logs.configure(tmp_path, "debug")
    logging.getLogger("x").error("failed with %s", _CANARY)
    logging.getLogger().handlers[0].flush()
    written = (tmp_path / "gateway.jsonl").read_text()
    assert "failed with %s" in written
    assert _CANARY not in written


def test_of_an_error_its_name_and_place_are_kept_and_not_its_words(tmp_path: Path) -> None:
    try:
        raise ValueError(_CANARY)
    except ValueError as error:
        written, raw = _logged(tmp_path, "unexpected", exc_info=error)
    assert written["reason"] == "ValueError"
    assert str(written["where"]).startswith("test_logs.py:")
    assert _CANARY.encode() not in raw


@pytest.mark.parametrize(
    "text",
    ["\x1b[31m", "\u009b31m", "a\nb", "a\r\x08\x07", "\u202e", "\u2028", "\ud800", "\x7f\x00"],
)
def test_no_text_steers_a_terminal_or_breaks_a_line(tmp_path: Path, text: str) -> None:
    written, raw = _logged(tmp_path, text, extra={"reason": text, "model": [text]})
    assert written["event"] == written["reason"] == text
    assert all(0x20 <= byte < 0x80 for byte in raw.rstrip(b"\n"))


def test_a_message_is_cut_where_it_gets_long(tmp_path: Path) -> None:
    written, raw = _logged(tmp_path, "x" * 10_000_000)
    assert written["event"] == "x" * 200
    assert len(raw) < 500


def test_the_level_is_the_one_that_was_set(tmp_path: Path) -> None:
    logs.configure(tmp_path, "warning")
    logging.getLogger("x").info("quiet")
    logging.getLogger("x").warning("loud")
    logging.getLogger().handlers[0].flush()
    assert [line["event"] for line in _lines(tmp_path / "gateway.jsonl")] == ["loud"]


async def test_no_file_of_an_installation_holds_what_was_said(served: Installation) -> None:
    said = {"role": "user", "content": f"{_CANARY} [[tokens 3]]"}
    bodies: list[Any] = [
        {"messages": [{"role": "system", "content": _CANARY}, said]},
        {"messages": [said], "stream": True},
        {"messages": [said], "user": _CANARY, "metadata": {"a": _CANARY}, "stop": [_CANARY]},
        {"messages": [{"role": "user", "content": f"[[garbage not-json]] {_CANARY}"}]},
        {"messages": [{"role": "user", "content": f"[[crash 1]] {_CANARY}"}]},
        {"messages": [{"role": _CANARY, "content": _CANARY}]},
        {"messages": [said], _CANARY: _CANARY},
        {"messages": [said], "model": _CANARY},
    ]
    headers = {"authorization": f"Bearer {served.key}", "idempotency-key": f"key-{_CANARY}"}
    async with httpx2.AsyncClient(base_url=served.url, timeout=60, trust_env=False) as client:
        for body in bodies:
            await client.post(
                "/v1/chat/completions", json={"model": "tiny", **body}, headers=headers
            )
            headers["idempotency-key"] = f"key-{id(body)}-{_CANARY}"
        await client.post("/v1/chat/completions", content=f'{{"{_CANARY}', headers=headers)
        await client.get(f"/{_CANARY}?{_CANARY}={_CANARY}", headers=headers | {"x-a": _CANARY})
        await client.get("/v1/models", headers={"authorization": f"Bearer {_CANARY}"})
        good = await client.post(
            "/v1/chat/completions", json={"model": "tiny", "messages": [said]}, headers=headers
        )
        await client.get("/admin/v1/usage", headers=headers)
    words = good.json()["choices"][0]["message"]["content"].split()
    assert len(words) == 3
    looked_into = set()
    for path in served.home.rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            looked_into.add(path.name)
            assert _CANARY.encode() not in content, path
            assert not [word for word in words if word.encode() in content], path
    assert {"gateway.jsonl", "freehold.db", "engine-tiny-0.log"} <= looked_into
