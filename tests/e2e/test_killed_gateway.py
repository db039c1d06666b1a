"""The gateway killed outright at every step: nothing settled is lost, nothing is
counted twice, what was running is settled once by the next start, retries are safe,
and no engine is left over."""

import contextlib
import json
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import psutil
import pytest

from freehold.engines.fake import tokens_for
from tests.installation import Installation, share, stock_tiny

_FAKE = ("--engine", "fake", "--model", "tiny")
_ORPHANED = ("reserved", "dispatched", "streaming", "answered")
_SETTLED = ("written", "settled", "signed", "applying", "applied")


Begin = Callable[..., Installation]


def _ask(gateway: Installation, prompt: str, key: str) -> tuple[bytes, httpx2.Headers]:
    """As much of the answer as came."""
    got, found = b"", httpx2.Headers()
    messages = [{"role": "user", "content": prompt}]
    body = {"model": "tiny", "stream": True, "messages": messages}
    headers = {"authorization": f"Bearer {gateway.key}", "idempotency-key": key}
    url = f"{gateway.url}/v1/chat/completions"
    with (
        contextlib.suppress(httpx2.TransportError),
        httpx2.stream("POST", url, json=body, headers=headers, timeout=60) as reply,
    ):
        found = reply.headers
        for part in reply.iter_bytes():
            got += part
    return got, found


def _whole(gateway: Installation, prompt: str, key: str) -> tuple[bytes, httpx2.Headers]:
    got, headers = _ask(gateway, prompt, key)
    assert got.endswith(b"data: [DONE]\n\n")
    return got, headers


def _records(gateway: Installation) -> list[dict[str, Any]]:
    """Oldest first."""
    headers = {"authorization": f"Bearer {gateway.key}"}
    answer = httpx2.get(f"{gateway.url}/admin/v1/requests", headers=headers)
    rows: list[dict[str, Any]] = answer.json()["data"]
    return rows[::-1]


def _is_on_record(gateway: Installation, count: int) -> None:
    """Each has one audit record, beside those of the tenant and key of the first start, and
    the chain is whole."""
    gateway.run("usage")  # which waits for what was settled; to verify asks the database alone
    ended = gateway.run("audit", "verify", "--json")
    found = json.loads(ended.stdout)
    assert found == {"records": count + 2, "streams": 2, "findings": []}


def _dies_with_all_engines(gateway: Installation, engines: list[psutil.Process]) -> None:
    gateway.process.wait(60)
    _, alive = psutil.wait_procs(engines, timeout=60)
    assert not alive


_EACH = [
    *((step, False) for step in (*_ORPHANED, *_SETTLED)), ("streaming", True), ("settled", True)
]  # fmt: skip
_FEW = [("streaming", True), ("applying", False), ("settled", True)]


@pytest.mark.parametrize(
    ("step", "is_killed_again"),
    [*_FEW, *(pytest.param(*one, marks=pytest.mark.slow) for one in _EACH if one not in _FEW)],
)
def test_a_killed_gateway_counts_each_request_once(
    tmp_path: Path, begin: Begin, step: str, is_killed_again: bool
) -> None:
    stock_tiny(tmp_path)
    dying = begin(tmp_path, *_FAKE, program=("tests.e2e.dying", step))
    engines = psutil.Process(dying.process.pid).children()
    before, _ = _whole(dying, "before", "key-1")
    settled = _records(dying)
    prompt = f"{'[[slow 0.1]]' if step == 'streaming' else ''} in the way of a kill"
    (tmp_path / "die").touch()
    got, _ = _ask(dying, prompt, "key-2")
    _dies_with_all_engines(dying, engines)
    if is_killed_again:
        recovering = begin(tmp_path, *_FAKE, program=("tests.e2e.dying", "applied"), wait=False)
        recovering.process.communicate(timeout=60)
        assert recovering.process.returncode == -signal.SIGKILL
    (tmp_path / "die").unlink()

    after = begin(tmp_path, *_FAKE)
    rows = _records(after)
    assert rows[0] == settled[0]
    assert len(rows) == 2
    is_settled = step in _SETTLED
    assert rows[1]["outcome"] == ("ok" if is_settled else "orphaned")
    assert rows[1]["settled_at_us"]
    told = "1 requests of a gateway that died were settled" in after.printed
    assert told is not is_settled
    if is_settled:
        assert rows[1]["tokens_out"] == 16
    elif step == "streaming":
        assert rows[1]["tokens_out"] >= got.count(b'"content":" ') > 0
    else:
        assert rows[1]["tokens_out"] == 0

    # A retry gets the very bytes of an answer that was settled, else it runs, once.
    assert _whole(after, "before", "key-1")[0] == before
    retried, headers = _whole(after, prompt, "key-2")
    words = tokens_for(prompt, 16)
    assert all(f'"content":"{word}"'.encode() in retried for word in words)
    assert ("x-freehold-replay-of" in headers) is is_settled
    if is_settled:
        assert retried.startswith(got)
    assert _whole(after, prompt, "key-2")[0] == retried
    count = 2 if is_settled else 3
    assert len(_records(after)) == count
    _is_on_record(after, count)


def test_a_change_that_was_signed_and_not_made_is_told_of(tmp_path: Path, begin: Begin) -> None:
    """Its gateway died between the two."""
    stock_tiny(tmp_path)
    dying = begin(tmp_path, *_FAKE, program=("tests.e2e.dying", "signed"))
    (tmp_path / "die").touch()
    with contextlib.suppress(httpx2.TransportError):
        headers = {"authorization": f"Bearer {dying.key}"}
        httpx2.post(f"{dying.url}/admin/v1/keys", json={"name": "x"}, headers=headers)
    dying.process.wait(60)
    (tmp_path / "die").unlink()
    after = begin(tmp_path, *_FAKE)
    listed = json.loads(after.run("audit", "list", "--json").stdout)
    admin, made, told = (each["body"] for each in listed)
    assert (admin["act"], made["act"]) == ("key.create", "key.create")
    assert (told["kind"], told["records"]) == ("restored", [2])
    assert len(json.loads(after.run("key", "list", "--json").stdout)) == 1
    _whole(after, "goes on", "key-1")
    _is_on_record(after, 3)


def test_a_gateway_killed_while_its_model_loads_leaves_no_engine(
    tmp_path: Path, begin: Begin
) -> None:
    stock_tiny(tmp_path)
    variables = {"FREEHOLD_ENGINES__FAKE_FLAGS": '["--start-delay=60"]'}
    loading = begin(tmp_path, *_FAKE, wait=False, variables=variables)
    process = psutil.Process(loading.process.pid)
    engines: list[psutil.Process] = []
    while not engines:
        engines = process.children()
        time.sleep(0.02)
    loading.process.kill()
    _dies_with_all_engines(loading, engines)


@pytest.mark.slow
def test_the_real_engine_ends_with_a_gateway_that_is_killed(
    tmp_path: Path, begin: Begin, stored: Path
) -> None:
    share(stored, tmp_path)
    running = begin(tmp_path)
    engines = psutil.Process(running.process.pid).children()
    assert engines
    running.process.kill()
    _dies_with_all_engines(running, engines)
