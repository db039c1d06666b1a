"""`freehold usage`: what was used, whether the gateway runs or was killed in the middle."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import pytest

from freehold.cli.reaching import reach
from freehold.config.home import Home
from freehold.core.usage import Outcome
from freehold.store import ledger
from freehold.store.journal import Journal, line
from tests.cli.conftest import Run
from tests.installation import Installation
from tests.store.making import reservation, settlement

_FIELDS = {
    "key_id", "alias", "adapter_digest", "day", "requests", "failed", "tokens_in", "tokens_out",
    "tokens_cached", "cost", "unpriced",
}  # fmt: skip


def _usage(run: Run, *words: str) -> list[dict[str, Any]]:
    ended = run("usage", "--json", *words)
    assert ended.exit_code == 0, ended.output
    found: list[dict[str, Any]] = json.loads(ended.stdout)
    return found


def _own_key(run: Run) -> tuple[str, str]:
    created = json.loads(run("key", "create", "usage", "--json").stdout)
    return created["id"], created["key"]


def _chat(gateway: Installation, key: str, prompt: str) -> None:
    body = {"model": "tiny", "messages": [{"role": "user", "content": prompt}]}
    httpx2.post(
        f"{gateway.url}/v1/chat/completions", json=body, timeout=60, trust_env=False,
        headers={"authorization": f"Bearer {key}"},
    )  # fmt: skip


def test_nothing_was_said_of_answers_yet(offline: Run) -> None:
    assert json.loads(offline("usage", "--thumbs", "--json").stdout) == []
    assert "Nobody said anything" in offline("usage", "--thumbs").stdout


def test_what_was_used_is_there_at_once(online: Run, served: Installation) -> None:
    key_id, key = _own_key(online)
    assert _usage(online, "--key", key_id) == []
    for prompt in ("one", "two words", "[[garbage no-done]]"):
        _chat(served, key, prompt)

    (row,) = _usage(online, "--key", key_id)

    assert set(row) == _FIELDS
    today = time.strftime("%Y-%m-%d", time.gmtime())
    assert (row["key_id"], row["alias"], row["day"] <= today) == (key_id, "tiny", True)
    assert (row["requests"], row["failed"]) == (3, 1)
    assert row["tokens_out"] >= 32
    assert row in _usage(online)
    table = online("usage", "--key", key_id)
    assert key_id in table.stdout
    assert "tiny" in table.stdout


def _at_rest(home: Path, requests: int, *, days_ago: int = 0) -> str:
    """A home whose gateway was killed before its database had taken anything."""
    with reach.offline(Home(home)) as (_, _, tenant_id):
        pass
    now_us = time.time_ns() // 1000 - days_ago * 86_400_000_000
    journal = Journal(home / "journal")
    for number in range(requests):
        request_id = f"req_{days_ago}_{number}"
        asked = reservation(request_id, tenant_id=tenant_id, created_at_us=now_us)
        outcome = Outcome.OK if number else Outcome.ENGINE_FAILED
        ended = settlement(request_id, 1000, outcome=outcome)
        journal.append(line(ledger._reserved(asked)) + line(ledger._settled(ended)))
    journal.append(line(ledger._reserved(reservation("req_open", tenant_id=tenant_id))))
    journal.close()
    return tenant_id


def test_what_a_killed_gateway_left_in_its_journal_counts_once(
    tmp_path: Path, commands: Callable[[Path], Run]
) -> None:
    _at_rest(tmp_path, 4)
    run = commands(tmp_path)
    for _ in range(3):
        (row,) = _usage(run)
        assert set(row) == _FIELDS
        assert (row["requests"], row["failed"], row["tokens_out"]) == (4, 1, 4000)
    assert "4,000" in run("usage").stdout
    assert list((tmp_path / "journal").iterdir()) == []


def test_days_reach_back_so_far_and_no_further(
    tmp_path: Path, commands: Callable[[Path], Run]
) -> None:
    run = commands(tmp_path)
    for days_ago in (0, 1, 3):
        _at_rest(tmp_path, 1, days_ago=days_ago)
    assert [len(_usage(run, "--days", str(days))) for days in (1, 2, 3, 4)] == [1, 2, 2, 3]


def test_nothing_used_is_told_in_words(offline: Run) -> None:
    assert _usage(offline) == []
    assert "Nothing was used in the last 7 days" in offline("usage", "--days", "7").stdout


def test_only_the_own_tenant_is_shown(tmp_path: Path, commands: Callable[[Path], Run]) -> None:
    _at_rest(tmp_path, 1)
    with reach.offline(Home(tmp_path)) as (store, _, _):
        store.add_tenant("ten_other", "other", 1)
    journal = Journal(tmp_path / "journal")
    asked = reservation(
        "req_x", tenant_id="ten_other", alias="secret-model",
        created_at_us=time.time_ns() // 1000,
    )  # fmt: skip
    journal.append(line(ledger._reserved(asked)) + line(ledger._settled(settlement("req_x"))))
    journal.close()
    run = commands(tmp_path)
    assert len(_usage(run)) == 1
    assert "secret-model" not in run("usage", "--json").stdout


@pytest.mark.parametrize("words", [("--days", "0"), ("--days", "x"), ("--days", "9999"), ("x",)])
def test_wrong_use_ends_with_two(offline: Run, words: tuple[str, ...]) -> None:
    assert offline("usage", *words).exit_code == 2
