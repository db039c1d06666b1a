"""`freehold decide FILE`: the ranked ways of a workload, for people and for machines."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from freehold.catalog.pull import pull
from freehold.catalog.store import ModelStore
from freehold.cli.main import app
from freehold.deploy.probe import read_machine
from freehold.deploy.speed import Speed, Speeds

TINY = Path(__file__).parents[1] / "engines/openvino/reference/tiny/llama"

_SMALL = "requests_per_day: 20k\nprompt: 800\nanswer: 250\nregion: de\n"


def run(*arguments: str) -> tuple[int, str, str]:
    found = CliRunner().invoke(app, ["decide", *arguments])
    return found.exit_code, found.stdout, found.stderr


@pytest.fixture
def small(tmp_path: Path) -> Path:
    file = tmp_path / "small.yaml"
    file.write_text(_SMALL)
    return file


def test_a_file_alone_is_planned_and_told_with_what_it_costs_and_what_is_left_out(
    small: Path,
) -> None:
    code, told, _ = run(str(small), "--top", "3")
    assert code == 0
    assert told.startswith("small: buy ")
    assert "days to deliver" in told
    assert "20,000 requests a day" in told, "the formula of a part"
    assert "left out" in told
    for unsaid in ("rules.least_mmlu", "rules.residency ([de])", "economics.team_per_month"):
        assert unsaid in told


def test_machines_get_every_option_s_parts_rules_and_reasons(small: Path) -> None:
    code, told, _ = run("plan", str(small), "--top", "2", "--json")
    assert code == 0
    found = json.loads(told)
    first, second = found["ranked"]
    assert len(found["unsaid"]) == 3
    assert first["is_llm"]["verdict"] == "unknown"
    assert "GPT-3" in first["is_llm"]["why"]
    assert first["over_horizon"] <= second["over_horizon"]
    assert first["a_month"] == pytest.approx(sum(each["a_month"] for each in first["parts"]))
    assert {each["verdict"] for each in first["rules"]} == {"pass"}
    assert all(each["why"] or each["judged"] for each in found["rejected"])
    points = found["break_even"]["points"]
    assert points[0]["requests_a_day"] == 200
    assert points[0]["by_way"]["api"]["a_month"] < points[-1]["by_way"]["api"]["a_month"]
    assert found["sensitivity"]["base"]["model"] == first["option"]["model"]
    assert {each["name"] for each in found["sensitivity"]["effects"]} >= {"Prices of APIs"}


def test_where_nothing_passes_it_is_said_what_excludes_what_and_what_is_nearest(
    tmp_path: Path,
) -> None:
    file = tmp_path / "w.yaml"
    file.write_text(_SMALL + "rules: {least_mmlu: 99}\n")
    code, told, _ = run(str(file))
    assert code == 1
    first, nearest, *reasons = told.splitlines()
    assert first == "w: Nothing does the work with an MMLU of 99, all else as it is."
    assert nearest.startswith("  With an MMLU of 9")
    assert " instead of 99, " in nearest
    assert nearest.endswith(" a month.")
    assert any("left out" in each and "99" in each for each in reasons)


def test_machines_get_what_is_nearest_too(tmp_path: Path) -> None:
    file = tmp_path / "w.yaml"
    file.write_text(_SMALL + "deadline: 30 days\nrules: {certifications: [fedramp]}\n")
    code, told, _ = run(str(file), "--json")
    assert code == 1
    found = json.loads(told)
    assert found["ranked"] == []
    assert found["conflict"].endswith("exclude each other.")
    assert {tuple(each["fields"]) for each in found["nearest"]} >= {("rules.certifications",)}
    assert all(each["option"]["a_month"] > 0 for each in found["nearest"])


def test_a_model_that_nobody_knows_is_told_with_those_that_are_like_it(tmp_path: Path) -> None:
    file = tmp_path / "w.yaml"
    file.write_text(_SMALL + "models: [gpt-5-nanoo]\n")
    code, _, said = run(str(file))
    assert code == 1
    assert "line 5: models: " in said
    assert "near it are gpt-5-nano" in said


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("embeddings: {model: bge}", "line 5: embeddings.model: No embedding model 'bge'"),
        ("assumptions: {price.l40: 7k}", "line 5: assumptions.price.l40: No accelerator 'l40'"),
        ("assumptions: {day_prize: 9}", "line 5: assumptions.day_prize: There is no assumption"),
    ],
)
def test_other_names_that_nobody_knows_are_told_with_their_line(
    tmp_path: Path, line: str, told: str
) -> None:
    file = tmp_path / "w.yaml"
    file.write_text(_SMALL + line)
    code, _, said = run(str(file))
    assert code == 1
    assert told in said


def test_a_model_that_is_named_is_told_of_first_where_it_is_left_out(tmp_path: Path) -> None:
    file = tmp_path / "w.yaml"
    file.write_text(_SMALL + "models: [llama-4-scout]\nrules: {residency: [de]}\n")
    code, told, _ = run(str(file))
    assert code == 1
    reasons = told.partition("What keeps options out:\n")[2].splitlines()
    assert reasons[0].startswith("  llama-4-scout: ")
    assert "leaves companies in the EU out" in reasons[0]


def test_a_file_that_is_not_there_is_told_in_a_sentence(tmp_path: Path) -> None:
    code, _, said = run(str(tmp_path / "none.yaml"))
    assert code == 1
    assert "cannot be read" in said


def test_this_machine_is_an_option_once_something_was_measured_on_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home, file = tmp_path / "home", tmp_path / "w.yaml"
    monkeypatch.setenv("FREEHOLD_HOME", str(home))
    monkeypatch.setenv("FREEHOLD_PRICES__MACHINE__PER_HOUR", "0.1")
    file.write_text(
        "requests_per_day: 300\nprompt: 100\nanswer: 50\nmodels: [smollm2-360m, tiny]\n"
    )
    store = ModelStore(home)
    reference = f"file:{TINY / 'llama-Q8_0.gguf'}"
    pull(store, home, reference, progress=lambda *_: None, name="tiny", accept_licence="ours")
    code, told, _ = run(str(file))
    assert code == 0
    assert "this machine: Nothing was measured" in told

    Speeds(home / "cache", read_machine()).keep(
        store.get("tiny"), "openvino", Speed(8e6, 4e6, 8, 1)
    )
    code, told, _ = run(str(file), "--json")

    assert code == 0
    here = json.loads(told)["best_of_each_way"]["at_hand"]
    assert here["option"]["model"] == "smollm2-360m"
    assert here["predicted"]["basis"] == "simulated"
    assert here["predicted"]["ttft_ms"] > 0
    assert "computed from those of tiny with openvino" in here["notes"][-1]
    assert [part["a_month"] for part in here["parts"] if "This machine" in part["name"]] == [73.0]


def test_what_the_busiest_hour_is_like_is_told_with_what_that_rests_on(small: Path) -> None:
    code, told, _ = run(str(small), "--top", "1")
    assert code == 0
    assert "In the busiest hour, at p95 (assumed): the first token after 1,000 ms" in told
    assert "simulated" in told, "the best of the ways that host"
