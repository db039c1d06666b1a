"""The gateway killed outright at every step: nothing settled is lost, nothing is
counted twice, what was running is settled once by the next start."""

import json
import sqlite3
import threading
import time
from pathlib import Path

import httpx2
import psutil
import pytest

from freehold.store.ledger import recover
from freehold.store.sql import SqlStore
from tests.installation import Installation, start, stock


def _rows(home: Path) -> list[tuple[str, str | None, int]]:
    """Of a gateway that is dead: what its journal holds is brought in first."""
    store = SqlStore(home / "freehold.db")
    recover(store, home / "journal")
    store.close()
    with sqlite3.connect(f"file:{home}/freehold.db?mode=ro", uri=True) as connection:
        found = connection.execute(
            "SELECT id, outcome, tokens_out FROM requests ORDER BY id"
        ).fetchall()
    connection.close()
    return found


@pytest.mark.parametrize(
    ("step", "prompt"),
    [
        ("after the reservation", "[[hang 1]] reserved"),
        ("in mid stream", "[[slow 0.1]][[tokens 100]] middle"),
        ("after the settlement", "done"),
    ],
)
def test_a_killed_gateway_counts_each_request_once(
    tmp_path: Path, installation: Installation, step: str, prompt: str
) -> None:
    stock(tmp_path, installation)
    running = start(tmp_path, "--engine", "fake")
    engines = psutil.Process(running.process.pid).children()
    headers = {"authorization": f"Bearer {running.key}"}
    got: list[bytes] = []

    def ask() -> None:
        body = {
            "model": "smollm2-135m-instruct",
            "stream": True,
            "messages": [{"role": "user", "content": prompt}],
        }
        url = f"{running.url}/v1/chat/completions"
        try:
            with httpx2.stream("POST", url, json=body, headers=headers, timeout=60) as reply:
                got.extend(reply.iter_bytes())
        except httpx2.HTTPError:
            pass

    asking = threading.Thread(target=ask)
    asking.start()
    time.sleep(2.5)  # the running stream has left a mark by then
    running.process.kill()
    running.process.communicate()
    asking.join(30)
    _, alive = psutil.wait_procs(engines, timeout=10)
    assert not alive  # the engine does not outlive its gateway
    before = _rows(tmp_path)
    assert len(before) == 1
    is_settled = step == "after the settlement"
    assert (before[0][1] == "ok") is is_settled

    again = start(tmp_path, "--engine", "fake")
    usage = json.loads(again.run("usage", "--json").stdout)
    again.stop()
    after = _rows(tmp_path)
    assert [row[0] for row in after] == [row[0] for row in before]
    if is_settled:
        assert after == before
        assert b"[DONE]" in b"".join(got)
    else:
        assert after[0][1] == "orphaned"
        assert "1 requests of a gateway that died were settled" in again.printed
        assert b"[DONE]" not in b"".join(got)
    if step == "in mid stream":
        assert 5 < after[0][2] <= 30
    assert sum(row["requests"] for row in usage) == 1
