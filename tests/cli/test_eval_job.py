"""`freehold eval` as a job: it outlives its terminal and the gateway, asks with a key of its own,
and decides whether a revision may serve."""

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.catalog.making import peft_folder
from tests.cli.conftest import Run
from tests.cli.test_eval import _data, _suite
from tests.installation import Installation, start, stock_tiny


def test_a_route_is_evaluated_beside_the_gateway_and_its_gate_kept(
    online: Run, served: Installation, tmp_path: Path
) -> None:
    page = tmp_path / "page.html"
    data = str(_data(tmp_path, 32))
    ended = online("eval", "tiny", "--data", data, "--html", str(page), "--json")
    assert ended.exit_code == 0, ended.output
    found = json.loads(ended.stdout)
    assert found["passed"] is True
    assert found["cost"] is not None
    assert "Whether it may serve" in page.read_text()
    (gate,) = [each for each in json.loads(online("gate", "list", "--json").stdout)
               if each["job"] == found["job"]]  # fmt: skip
    assert (gate["id"], gate["passed"]) == (found["gate"], True)
    assert gate["base_digest"] == found["candidate"]["model_digest"]
    assert gate["adapter_digest"] is None
    assert "passed: examples: needs 30 or more" in online("gate", "show", gate["id"]).stdout
    shown = online("eval", "show", found["job"])
    assert "accuracy" in shown.stdout
    assert found["job"] in online("eval", "list").stdout
    keys = [each for each in json.loads(online("key", "list", "--json").stdout)
            if found["job"] in each["name"]]  # fmt: skip
    assert [(each["scopes"], each["models"]) for each in keys] == [(["infer"], ["tiny"])]
    assert all(each["revoked_at"] for each in keys)
    used = json.loads(online("usage", "--json").stdout)
    assert keys[0]["id"] in json.dumps(used)
    kept = {path.name for path in (served.home / "jobs" / found["job"]).iterdir()}
    assert kept == {"log.jsonl", "process.json", "result.json"}


def test_what_is_not_good_enough_ends_with_one_and_has_no_passed_gate(
    online: Run, tmp_path: Path
) -> None:
    _data(tmp_path, 40, wrong=10)
    suite = _suite(tmp_path, "data: tickets.jsonl\ngate: {overall: {at_least: 0.9}}\n")
    ended = online("eval", "tiny", "--suite", suite)
    assert ended.exit_code == 1
    assert "NOT PASSED: accuracy: needs 90.0% or more, found 75.0%" in ended.stdout
    newest = json.loads(online("gate", "list", "--json").stdout)[0]
    assert newest["passed"] is False


def test_an_adapter_is_held_against_its_bare_base_where_nobody_is_named(
    online: Run, served: Installation, tmp_path: Path
) -> None:
    folder = peft_folder(tmp_path / "lora", 5)
    assert online("adapter", "add", str(folder), "--base", "tiny", "--name", "e5").exit_code == 0
    for alias, words in (("bot5", ("--adapter", "e5")), ("other5", ())):
        done = online("route", "set", alias, "--base", "tiny", *words)
        assert done.exit_code == 0, done.output
    ended = online("eval", "bot5", "--data", str(_data(tmp_path, 30)), "--json")
    assert ended.exit_code == 0, ended.output
    found = json.loads(ended.stdout)
    assert found["incumbent"]["adapter_digest"] is None
    gate = json.loads(online("gate", "show", found["gate"], "--json").stdout)
    assert gate["adapter_digest"] == found["candidate"]["adapter_digest"] is not None
    assert gate["incumbent_digest"] == gate["base_digest"]


def test_what_cannot_be_evaluated_is_refused_before_anything_is_asked(
    online: Run, tmp_path: Path
) -> None:
    data = str(_data(tmp_path, 20))
    for words, told in (
        (("nobody", "--data", data, "--few"), "There is no route 'nobody'"),
        (("tiny", "--data", data), "20 examples and should have 30"),
        (("tiny", "--data", "nothing-kept"), "There is no dataset 'nothing-kept'"),
        (("tiny", "--data", data, "--few", "--judge", "nobody"), "There is no route 'nobody'"),
    ):
        ended = online("eval", *words)
        assert ended.exit_code == 1, ended.output
        assert told in ended.stderr
        assert ended.stderr.count("\n") <= 2


def _wait(condition: Callable[[], bool]) -> None:
    until_s = time.monotonic() + 180
    while not condition():
        assert time.monotonic() < until_s
        time.sleep(0.1)


@pytest.mark.slow
def test_an_evaluation_goes_on_when_the_gateway_was_killed_and_started_again(
    tmp_path: Path,
) -> None:
    home = tmp_path / "home"
    stock_tiny(home)
    first = start(home, "--engine", "fake", "--model", "tiny")
    data = str(_data(tmp_path, 30, slow=" [[slow 0.1]]"))
    waiting = subprocess.Popen(
        [sys.executable, "-m", "freehold.cli.main", "eval", "tiny", "--data", data],
        stdout=subprocess.PIPE, text=True, env=first.environment,
    )  # fmt: skip
    answers = home / "jobs" / _begun(first) / "answers" / "answers.jsonl"
    _wait(lambda: answers.exists() and answers.read_bytes().count(b"\n") > 5)
    first.kill()
    second = start(home, "--engine", "fake", "--model", "tiny", "--port", first.url.split(":")[-1])
    try:
        _wait(lambda: not answers.exists())
        ended = json.loads(second.run("eval", "list", "--json").stdout)[0]
        assert ended["state"] == "done", ended["error"]
        assert ended["result"]["measures"][0]["candidate"]["passed"] == 30
        assert ended["result"]["passed"] is True
        shown, _ = waiting.communicate(timeout=60)
        assert waiting.returncode == 0
        assert ": passed." in shown
    finally:
        waiting.kill()
        second.stop()


def _begun(running: Installation) -> str:
    """The one evaluation there is, once it is."""

    def found() -> list[dict[str, str]]:
        listed: list[dict[str, str]] = json.loads(running.run("eval", "list", "--json").stdout)
        return listed

    _wait(lambda: bool(found()))
    return found()[0]["id"]
