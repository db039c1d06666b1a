"""`freehold eval --harness`: what lm-evaluation-harness measures is told and kept. In its place
stands a library that ends as the real one did."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from freehold.adapt.evaluate.asking import Gateway, Route
from freehold.adapt.evaluate.harness import Harness, measured
from freehold.cli.evaluation.harness import measured_here
from freehold.cli.reaching import reach
from freehold.config.home import Home
from freehold.core.errors import Code, UserError
from tests.cli.conftest import Run
from tests.installation import Installation, environment_of

_LIBRARY = Path(__file__).parents[1] / "adapt" / "evaluate" / "as_library"


@pytest.fixture(autouse=True)
def library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(_LIBRARY))
    monkeypatch.setenv("PYTHONPATH", str(_LIBRARY))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


def test_what_tasks_measured_is_told_with_how_sure_it_is_and_what_answered(online: Run) -> None:
    ended = online("eval", "tiny", "--harness", "local_sums", "--limit", "10")
    assert ended.exit_code == 0, ended.output
    head, row, *_ = ended.stdout.splitlines()
    assert head.split() == ["task", "version", "shots", "samples", "metric", "value", "±"]
    assert row.split() == ["local_sums", "1.0", "0", "10", "exact_match", "0.8000", "0.1333"]
    assert "tiny (sha256:" in ended.stdout
    assert "lm-evaluation-harness 0.4.13" in ended.stdout


def test_machines_get_it_too_and_it_is_kept_for_the_owner_of_the_home(online: Run) -> None:
    ended = online("eval", "tiny", "--harness", "groups", "--json")
    assert ended.exit_code == 0, ended.output
    found = json.loads(ended.stdout)
    kept = Path(found.pop("kept"))
    assert json.loads(kept.read_bytes()) == found
    assert {file.name for file in kept.parent.iterdir()} == {"result.json", "harness.json"}
    assert [file.stat().st_mode & 0o077 for file in (kept, kept.parent)] == [0, 0]
    assert found["candidate"]["model_digest"].startswith("sha256:")
    sums, group = found["tasks"]
    assert (sums["samples"], sums["samples_there"], sums["version"]) == (10, 12, 1.0)
    assert sums["metrics"][0]["higher_is_better"] is True
    assert group["samples"] is None
    assert group["metrics"] == [
        {"name": "perplexity", "filter": "x", "value": 2, "stderr": None, "higher_is_better": False}
    ]
    assert (
        "perplexity (x) (lower is better)" in online("eval", "tiny", "--harness", "groups").stdout
    )


@pytest.mark.parametrize(
    ("task", "code", "words"),
    [
        ("unknown", "invalid_value", "has no task unknown"),
        ("likely", "unsupported_endpoint", "how likely a given text is"),
        ("far", "source_unreachable", "The data of far is not on this machine"),
        ("odd", "unknown_parameter", "repetition_penalty_x"),
        ("broken", "invalid_value", "RuntimeError: Session is closed"),
        ("other", "file_invalid", "cannot be read"),
        (",", "invalid_value", "names no task"),
    ],
)
def test_why_nothing_was_measured_is_a_sentence(
    online: Run, task: str, code: str, words: str
) -> None:
    ended = online("eval", "tiny", "--harness", task, "--json")
    assert ended.exit_code == 1
    error = json.loads(ended.stdout)["error"]
    assert error["code"] == code
    assert words in error["message"]


def test_what_the_library_said_is_kept_without_the_key(online: Run, served: Installation) -> None:
    ended = online("eval", "tiny", "--harness", "broken", "--limit", "7")
    log = Path(ended.stderr.rpartition("see ")[2].strip().rstrip("."))
    assert "'Authorization': 'Bearer …'" in log.read_text()
    assert served.key not in log.read_text()
    assert log.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--harness", "local_sums", "--data", "tickets"), "--harness and --data exclude"),
        (("--harness", "local_sums", "--no-wait"), "--harness and --no-wait exclude"),
        (("--data", "tickets", "--limit", "3"), "--limit belongs to --harness"),
        (("--harness", "local_sums", "--harness-tasks", "/nowhere"), "/nowhere is no folder"),
    ],
)
def test_options_that_mean_nothing_together_are_refused(
    online: Run, words: tuple[str, ...], told: str
) -> None:
    ended = online("eval", "tiny", *words)
    assert ended.exit_code == 1
    assert told in ended.stderr


def test_without_the_library_it_is_said_how_to_install_it(
    online: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", [each for each in sys.path if each != str(_LIBRARY)])
    ended = online("eval", "tiny", "--harness", "local_sums")
    assert ended.exit_code == 1
    assert 'pip install "freehold[harness]"' in ended.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_whatever_ends_the_command_ends_the_library_too_and_keeps_nothing(
    served: Installation, tmp_path: Path, number: signal.Signals
) -> None:
    command = [sys.executable, "-m", "freehold.cli.main", "eval", "tiny", "--harness", "slow"]
    asking = subprocess.Popen(
        [*command, "--harness-tasks", str(tmp_path)],
        env=environment_of(served.home),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text():
        assert asking.poll() is None
        time.sleep(0.05)
    asking.send_signal(number)
    _, said = asking.communicate(timeout=30)
    assert asking.returncode != 0
    assert "nothing is kept" in said
    assert "Traceback" not in said
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


def test_a_gateway_whose_certificate_has_another_name_is_not_asked(tmp_path: Path) -> None:
    gateway = reach.RunningGateway("https://127.0.0.1:1", "key", os.getpid())
    with pytest.raises(UserError, match="--url https://NAME"):
        measured_here(Home(tmp_path), gateway, "tiny", "local_sums", None, None, 1, True)


async def test_a_route_that_moves_meanwhile_has_no_result(
    served: Installation, tmp_path: Path
) -> None:
    class Moved(Gateway):
        times = 0

        async def route(self, alias: str) -> Route:
            self.times += 1
            return Route(alias, "sha256:a", f"sha256:{self.times}")

    asked = Harness(("local_sums",), None, None, 1)
    async with Moved(served.url, served.key, True, 1) as gateway:
        with pytest.raises(UserError, match="led elsewhere") as refused:
            await measured(gateway, served.url, served.key, "tiny", asked, tmp_path / "kept")
    assert refused.value.code is Code.CONFLICT
    assert list((tmp_path / "kept").iterdir()) == []
