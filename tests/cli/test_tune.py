"""`freehold tune`: what a job takes is told and checked before it is begun, on a running gateway
and on a resting home."""

import contextvars
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from freehold.cli.at_rest import jobs
from freehold.cli.options.owner import Of
from freehold.config.home import Home
from freehold.core.job import Job, JobKind, JobState
from freehold.operate.jobs.process import RESULT
from freehold.store.sql import SqlStore
from tests.adapt import tickets
from tests.adapt.dataset.conftest import chat
from tests.catalog.making import peft_folder
from tests.cli.conftest import Run
from tests.cli.spoken import failed
from tests.installation import Installation, stock_tiny

_SAID = ("--licence", "LicenseRef-own", "--origin", "help desk")


@dataclass
class Place:
    run: Run
    home: Path

    def said(self, *words: str) -> Any:
        ended = self.run(*words, "--json")
        assert ended.exit_code == 0, ended.output
        return json.loads(ended.stdout)


def _with_data(place: Place, folder: Path) -> Place:
    file = tickets.write(folder / "tickets.jsonl", 80)
    place.said("data", "add", str(file), "--name", "help", *_SAID)
    return place


@pytest.fixture
def resting(tmp_path: Path, commands: Callable[[Path], Run]) -> Place:
    home = tmp_path / "home"
    home.mkdir()
    stock_tiny(home)
    return _with_data(Place(commands(home), home), tmp_path)


@pytest.fixture(params=["online", "offline"])
def place(
    request: pytest.FixtureRequest, tmp_path: Path, commands: Callable[[Path], Run]
) -> Iterator[Place]:
    if request.param == "offline":
        yield request.getfixturevalue("resting")
        return
    served: Installation = request.getfixturevalue("served")
    online = _with_data(Place(commands(served.home), served.home), tmp_path)
    yield online
    online.said("data", "rm", "help")


_TUNE = ("tune", "help", "--base", "tiny")


def test_an_estimate_says_what_it_takes_and_starts_nothing(place: Place) -> None:
    told = place.said(*_TUNE, "--estimate")
    assert (told["objective"], told["bits"], told["currency"]) == ("sft", None, "USD")
    assert told["name"].startswith("help-v")
    assert told["tokens"] > 80
    assert told["seconds"] > 10
    assert told["memory_bytes"] > 450 * 2**20
    assert told["cost"] == pytest.approx(told["seconds"] * _micro_per_s(), rel=0.05, abs=2)
    assert "computed: 0.25 of what the cores multiply" in told["rests_on"]
    twice = place.said(*_TUNE, "--estimate", "--epochs", str(2 * told["epochs"]))
    assert twice["tokens"] == 2 * told["tokens"]
    assert twice["seconds"] - 10 == pytest.approx(2 * (told["seconds"] - 10)), "but for the start"
    assert place.said(*_TUNE, "--estimate", "--method", "qlora")["bits"] == 4
    assert told["trainer"] == "freehold"
    shown = place.run(*_TUNE, "--estimate").stdout
    assert "It takes about" in shown
    assert "of memory, and costs" in shown
    assert place.said("tune", "list") == []


def test_what_is_wrong_with_the_data_is_told_before_time_is_spent_on_them(
    place: Place, tmp_path: Path
) -> None:
    path = tmp_path / "x.jsonl"
    long = "a " * 3000
    examples = [chat(f"{number} {long}", f"It is {number} apples") for number in range(9)]
    examples.append(chat("My key is ghp_" + "q7R8" * 9, "Thank you"))
    path.write_text("".join(json.dumps(each) + "\n" for each in examples))
    accepted = ("--accept-findings", "It was revoked.")
    place.said("data", "add", str(path), "--name", "odd", *_SAID, *accepted)
    notes = place.said("tune", "odd", "--base", "tiny", "--estimate")["notes"]
    first, few, long_ones, *missing = notes
    assert first == "The data hold api key × 1 (example 10), let in because “It was revoked.”."
    assert few.startswith("10 examples are few")
    assert "Half of the examples have more than " in long_ones
    shown = place.run("tune", "odd", "--base", "tiny", "--estimate").stdout
    assert shown.count("Note: ") == len(notes)
    assert ["needs PyTorch" in each for each in missing] == [True] * (find_spec("torch") is None)
    place.said("data", "rm", "odd")


def _micro_per_s() -> float:
    from freehold.engines.cores import usable_cores

    return usable_cores() * 50_400 / 3600


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (("tune", "nothing", "--base", "tiny"), "not_found", "There is no dataset 'nothing'"),
        (("tune", "help", "--base", "huge"), "model_not_found", "There is no stored model 'huge'"),
        ((*_TUNE, "--objective", "dpo"), "invalid_value", "from which sft learns"),
        ((*_TUNE, "--method", "lora", "--bits", "8"), "invalid_value", "choose --method qlora"),
        ((*_TUNE, "--bits", "5"), "invalid_value", "bits"),
        ((*_TUNE, "--trainer", "trl"), "invalid_value", "TRL trains on safetensors"),
        ((*_TUNE, "--trainer", "axolotl"), "invalid_value", "trainer"),
        ((*_TUNE, "--learning-rate", "nan"), "invalid_value", "should be"),
        ((*_TUNE, "--max-time", "soon"), "invalid_value", "write it as 2h or 90m"),
        ((*_TUNE, "--max-time", "0.000001s"), "limit_reached", "s, and may take 0 s"),
        ((*_TUNE, "--max-memory", "0.001MB"), "limit_reached", "MB of memory, and may take 1.0 kB"),
        ((*_TUNE, "--max-cost", "0.00000000001"), "limit_reached", "--max-cost"),
        ((*_TUNE, "--name", "a/b"), "invalid_value", "name"),
        (_TUNE, "invalid_value", "say --yes, or --estimate"),
        (("tune", "show", "job_x"), "not_found", "There is no job 'job_x'"),
        (("tune", "show", "job_\udcff"), "invalid_value", "not all UTF-8"),
        (("tune", "logs", "job_x"), "not_found", "freehold tune list` or `freehold eval list`"),
        (("tune", "cancel", "job_x"), "not_found", "There is no job 'job_x'"),
        (("tune", "resume", "job_x"), "not_found", "There is no job 'job_x'"),
    ],
)
def test_what_cannot_be_trained_is_told_before_anything_begins(
    place: Place, words: tuple[str, ...], code: str, says: str
) -> None:
    told = place.run(*words, "--json")
    failed(told, code)
    assert says in told.stdout
    assert place.said("tune", "list") == []


def test_a_budget_that_is_used_up_begins_nothing(resting: Place) -> None:
    limit = ("limit", "set", "money", "0.000001", "--per", "total")
    assert resting.run(*limit).exit_code == 0
    told = resting.run(*_TUNE, "--epochs", "1000", "--yes", "--json")
    failed(told, "budget_exceeded")
    assert "the budget of the total has 0.00 left" in told.stdout


def test_the_time_is_told_by_what_the_last_job_here_reached(resting: Place) -> None:
    with jobs.opened(Home(resting.home), Of()) as rest:
        job = rest.jobs.get(
            rest.owner, rest.added(rest.prepared({"dataset": "help", "base": "tiny"}))
        )
        contextvars.Context().run(_done, rest.rest.store, job)
    told = resting.said(*_TUNE, "--estimate")
    assert told["rests_on"] == f"measured by {job.id}"
    assert told["seconds"] - 10 == pytest.approx(told["tokens"] / 5)
    assert told["cost"] == pytest.approx(told["seconds"] * _micro_per_s(), rel=0.01)
    failed(resting.run(*_TUNE, "--max-cost", "0.0001", "--estimate", "--json"), "limit_reached")
    assert resting.said(*_TUNE, "--max-cost", "9", "--estimate")["max_seconds"] == pytest.approx(
        9e6 / _micro_per_s()
    )


def _done(store: SqlStore, job: Job, **made: str) -> None:
    """As a gateway leaves it: a thousand tokens in 200 seconds."""
    store.take_job(job.tenant_id, job.id, "gw", 1, 9)
    result = {"tokens": 1000, "seconds": 200, **made}
    store.end_job(job.tenant_id, job.id, "gw", JobState.DONE, 9, result)


def test_what_was_trained_just_so_before_is_told(resting: Place, tmp_path: Path) -> None:
    made = str(peft_folder(tmp_path / "made", 3))
    resting.said("adapter", "add", made, "--base", "tiny", "--name", "made")
    with jobs.opened(Home(resting.home), Of()) as rest:
        job = rest.jobs.get(
            rest.owner, rest.added(rest.prepared({"dataset": "help", "base": "tiny"}))
        )
        contextvars.Context().run(_done, rest.rest.store, job, adapter="made")
    told = resting.said(*_TUNE, "--estimate")["notes"]
    assert [each for each in told if f"made was trained just so by {job.id}" in each]
    other = resting.said(*_TUNE, "--seed", "1", "--estimate")["notes"]
    assert not [each for each in other if "just so" in each]


def test_a_job_is_listed_shown_and_cancelled_and_holds_its_name(resting: Place) -> None:
    with jobs.opened(Home(resting.home), Of()) as rest:
        job_id = rest.added(rest.prepared({"dataset": "help", "base": "tiny", "name": "helper"}))
    (listed,) = resting.said("tune", "list")
    shown = resting.said("tune", "show", job_id)
    assert listed == shown
    assert (shown["state"], shown["name"], shown["created_by"]) == ("queued", "helper", "local")
    spec = shown["spec"]
    assert Path(spec["train"]).is_file()
    assert Path(spec["base_path"]).exists()
    assert spec["licences"]["dataset"] == "LicenseRef-own"
    failed(resting.run(*_TUNE, "--name", "helper", "--estimate", "--json"), "conflict")
    assert resting.said("tune", "logs", job_id) == []
    page = resting.home / "job.html"
    assert "queued" in resting.run("tune", "show", job_id, "--html", str(page)).stdout
    assert "Training of helper" in page.read_text()
    assert f"tiny ({spec['base']})" in resting.run("tune", "show", job_id).stdout
    assert f"help@1 ({spec['dataset']})" in page.read_text()
    told = failed(resting.run("model", "rm", "tiny", "--json"), "conflict")
    assert f"{job_id} of tenant" in told, "its base stays while it is open"
    nowhere = resting.run("tune", "show", job_id, "--html", str(resting.home / "no" / "x.html"))
    assert (nowhere.exit_code, "there is no folder" in nowhere.output) == (1, True)
    assert resting.said("tune", "cancel", job_id)["state"] == JobState.CANCELLED
    assert resting.said("tune", "cancel", job_id)["state"] == JobState.CANCELLED
    assert resting.said(*_TUNE, "--name", "helper", "--estimate")["name"] == "helper"


def test_an_evaluation_is_listed_shown_and_removed_at_rest(resting: Place) -> None:
    with jobs.opened(Home(resting.home), Of()) as rest:
        trains = rest.added(rest.prepared({"dataset": "help", "base": "tiny"}))
        job = rest.jobs.add(rest.owner, JobKind.EVAL, "tiny on help", {}, "local")
        contextvars.Context().run(_done, rest.rest.store, job)
    work = resting.home / "jobs" / job.id
    work.mkdir(parents=True, exist_ok=True)
    (work / RESULT).write_text('{"summary": "well"}')
    (listed,) = resting.said("eval", "list")
    assert listed["id"] == job.id
    assert resting.said("eval", "show", job.id) == {"job": listed, "result": {"summary": "well"}}
    assert resting.said("eval", "logs", job.id) == []
    told = failed(resting.run("eval", "show", trains, "--json"), "not_found")
    assert f"{trains} is no evaluation" in told
    assert [each["id"] for each in resting.said("tune", "list")] == [trains]
    assert resting.said("eval", "cancel", job.id)["state"] == JobState.DONE
    failed(resting.run("eval", "resume", job.id, "--json"), "conflict")
    resting.said("eval", "rm", job.id)
    assert resting.said("eval", "list") == []
    assert not work.exists()
