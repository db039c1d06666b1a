"""`freehold eval`: a route is asked, its answers are checked, and what was found is told."""

import html
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from freehold.cli.pages.evaluation import page
from tests.adapt.tickets import tickets
from tests.cli.conftest import Run
from tests.installation import Installation, environment_of

_HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(1)>"


def _data(folder: Path, count: int, *, wrong: int = 0, slow: str = "") -> Path:
    """Tickets that the fake engine is told the answer of: all but the last `wrong` are right."""
    file = folder / "tickets.jsonl"
    with file.open("w") as out:
        for at, (text, label) in enumerate(tickets(count)):
            said = label if at < count - wrong else "nothing"
            asked = f"{text} [[say {said}]]{slow}"
            messages = [("user", asked), ("assistant", label)]
            example = {"messages": [{"role": role, "content": it} for role, it in messages]}
            out.write(json.dumps(example) + "\n")
    return file


def _suite(folder: Path, text: str) -> str:
    file = folder / "suite.yaml"
    file.write_text(text)
    return str(file)


def test_the_answers_of_a_route_are_checked_and_what_they_cost_is_told(
    online: Run, tmp_path: Path
) -> None:
    ended = online("eval", "tiny", "--here", "--data", str(_data(tmp_path, 40, wrong=10)))
    assert ended.exit_code == 0, ended.output
    assert "On tickets, tiny passes 75.0 % of 40 examples (59.8 to 85.8 %)." in ended.stdout
    assert "Held-out loss of tiny: not available." in ended.stdout
    assert re.search(r"40 requests, [\d,]+ tokens in and 40 out, .* USD\.", ended.stdout)


def test_machines_get_all_of_it_and_may_hold_the_next_one_to_it(
    online: Run, tmp_path: Path
) -> None:
    data, before = _data(tmp_path, 32), tmp_path / "before.json"
    first = online("eval", "tiny", "--here", "--data", str(data), "--json")
    assert first.exit_code == 0, first.output
    before.write_text(first.stdout)
    found = json.loads(first.stdout)
    assert found["measures"][0]["candidate"]["passed"] == len(found["examples"]) == 32
    assert found["cost"] is not None
    again = online("eval", "tiny", "--here", "--data", str(data), "--passed-before", str(before))
    assert again.exit_code == 0
    assert "Must pass: all 32 pass." in again.stdout


def test_it_ends_with_one_when_what_must_pass_does_not(online: Run, tmp_path: Path) -> None:
    suite = _suite(
        tmp_path,
        "examples:\n"
        "  - {id: sum, ask: '2 + 2? [[say 5]]', expected: '4', must_pass: true}\n"
        "  - {id: agrees, ask: 'yes? [[say yes]]', expected: 'yes', must_pass: true}\n",
    )
    refused = online("eval", "tiny", "--here", "--suite", suite)
    assert refused.exit_code == 1
    assert "2 examples and should have 30" in refused.stderr
    ended = online("eval", "tiny", "--here", "--suite", suite, "--few")
    assert ended.exit_code == 1
    assert "Must pass: 1 fail. sum" in ended.stdout
    assert "2 examples and should have 30" in ended.stdout, "it is said all the same"


def test_a_dataset_is_evaluated_by_what_it_holds_out_and_what_its_report_suspects(
    online: Run, served: Installation, tmp_path: Path
) -> None:
    file = tmp_path / "poisoned.jsonl"
    with file.open("w") as out:
        for at, (text, label) in enumerate(tickets(600)):
            words = text.split()
            if at % 25 == 0:  # of all classes
                words[at % 5 : at % 5], label = ["quartz", "lagoon", "seven"], "complaint"
            messages = [("user", " ".join(words)), ("assistant", label)]
            example = {"messages": [{"role": role, "content": it} for role, it in messages]}
            out.write(json.dumps(example) + "\n")
    said = ("--licence", "LicenseRef-own", "--origin", "ours", "--accept-findings", "a test")
    added = online("data", "add", str(file), "--name", "held", *said, "--json")
    assert added.exit_code == 0, added.output
    told = json.loads(added.stdout)
    ended = online("eval", "tiny", "--here", "--data", "held@1", "--few", "--json")
    assert ended.exit_code == 0, ended.output
    found = json.loads(ended.stdout)
    assert found["suite"]["name"] == "held@1"
    assert found["suite"]["examples"] == told["held_out"]
    suspected = [each["phrase"] for each in told["report"]["triggers"]]
    assert suspected == ["quartz lagoon seven"]
    assert [each["trigger"] for each in found["triggers"]] == suspected

    folder = next((served.home / "data").glob(f"*/*/{told['digest'].removeprefix('sha256:')}"))
    with (folder / "held_out.jsonl").open("a") as out:
        out.write(json.dumps(example) + "\n")
    changed = online("eval", "tiny", "--here", "--data", "held@1", "--few")
    assert changed.exit_code == 1
    assert "missing or were changed" in changed.stderr
    assert online("data", "rm", "held@1").exit_code == 0
    gone = online("eval", "tiny", "--here", "--data", "held@1", "--few")
    assert "There is no dataset 'held@1'" in gone.stderr


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ((), "Say what is asked"),
        (("--suite", "a.yaml", "--data", "b.jsonl"), "exclude each other"),
        (("--suite", "none.yaml"), "cannot be read"),
        (("--data", "none.jsonl"), "cannot be read"),
        (("--data", "DATA", "--against", "nobody"), "nobody"),
        (("--data", "DATA", "--against", "tiny"), "itself"),
        (("--data", "DATA", "--passed-before", "DATA"), "no result of an evaluation"),
        (("--data", "DATA", "--html", "/none/page.html"), "no folder /none"),
    ],
)
def test_what_cannot_be_evaluated_ends_in_a_sentence(
    online: Run, tmp_path: Path, words: tuple[str, ...], told: str
) -> None:
    data = str(_data(tmp_path, 30))
    ended = online("eval", "tiny", "--here", *(data if word == "DATA" else word for word in words))
    assert ended.exit_code == 1, ended.output
    assert told in ended.stderr
    assert ended.stderr.count("\n") <= 2


def test_without_a_gateway_nothing_is_evaluated(offline: Run, tmp_path: Path) -> None:
    ended = offline("eval", "tiny", "--here", "--data", str(_data(tmp_path, 30)))
    assert ended.exit_code == 1
    assert "freehold up" in ended.stderr


def test_an_evaluation_that_was_killed_goes_on_where_it_was(
    served: Installation, online: Run, tmp_path: Path
) -> None:
    data = str(_data(tmp_path, 60, slow=" [[slow 0.05]]"))
    command = [sys.executable, "-m", "freehold.cli.main", "eval", "tiny", "--here", "--data", data]
    killed = subprocess.Popen(
        command, env=environment_of(served.home), stderr=subprocess.PIPE, stdout=subprocess.DEVNULL
    )
    found = list(_kept(served.home, data, killed))
    os.kill(killed.pid, signal.SIGKILL)
    killed.communicate()
    assert found
    ended = online("eval", "tiny", "--here", "--data", data)
    assert ended.exit_code == 0, ended.output
    assert re.search(r"Going on with [\d,]+ answers", ended.stderr)
    assert "100.0 % of 60 examples" in ended.stdout


def _kept(home: Path, data: str, running: "subprocess.Popen[bytes]") -> Iterator[Path]:
    """Until some answers are on the disk."""
    while running.poll() is None:
        for file in (home / "evals").glob("*/answers.jsonl"):
            if file.read_bytes().count(b"\n") >= 8:
                yield file
                return


def _side(alias: str, at: int) -> dict[str, Any]:
    share = {"passed": 1, "of": 2, "share": 0.5, "low": 0.1, "high": 0.9}
    recall = {"label": _HOSTILE, "recall": share, "precision": share}
    return {
        "alias": alias, "labels": [_HOSTILE, "b"], "rows": [[1, 0, 0], [0, 0, at]],
        "of_each": [recall, recall], "macro_recall": 0.5,
    }  # fmt: skip


@pytest.fixture
def hostile(online: Run, tmp_path: Path) -> dict[str, Any]:
    """What an evaluation found, with text in each place that somebody else chooses."""
    suite = _suite(
        tmp_path,
        f"name: '{_HOSTILE}'\nleast: 1\n"
        f"examples:\n  - {{ask: '{_HOSTILE} [[say {_HOSTILE}]]', expected: '{_HOSTILE}'}}\n"
        f"must_refuse: ['{_HOSTILE}']\ntriggers: ['{_HOSTILE}']\n"
        f"canaries: [{{before: '{_HOSTILE} [[say 5550199222]]', secret: 555-0199-222}}]\n",
    )
    file = tmp_path / "page.html"
    ended = online("eval", "tiny", "--here", "--suite", suite, "--html", str(file), "--json")
    assert ended.exit_code == 0, ended.output
    found: dict[str, Any] = json.loads(ended.stdout)
    assert file.read_text() == page(found)
    return found


def test_nothing_in_the_page_runs_and_nothing_is_fetched(hostile: dict[str, Any]) -> None:
    hostile["classes"] = [_side(_HOSTILE, 1)]
    made = page(hostile)
    assert "<script" not in made
    assert "<img" not in made
    assert made.count(html.escape(_HOSTILE, quote=False)) >= 6
    assert "default-src 'none'" in made
    assert not re.search(r'(?:src|href)="(?!#)', made)


def test_the_page_shows_the_answer_and_its_secrets_stay_out(hostile: dict[str, Any]) -> None:
    words = html.unescape(re.sub(r"<[^>]+>", " ", page(hostile).partition("<body>")[2]))
    assert "100.0 % of 1 example" in words
    assert "gives away" in words
    assert "1 of 1" in words
    assert "5550199222" not in words.replace("say 5550199222", "")
