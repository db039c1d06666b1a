"""`freehold decide --record`: a decision is kept as it was made, on a home that is served and on
one that rests."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx2
import pytest

from freehold.cli.reaching import reach
from freehold.config.home import Home
from freehold.core.plan import Workload
from freehold.decide.ways.planner import Plan
from freehold.operate.decisions import planning
from tests.cli.conftest import Run
from tests.installation import start, stock_tiny

_WORKLOAD = "requests_per_day: 20k\nprompt: 800\nanswer: 250\nmodels: [gpt-5-nano, qwen3-0.6b]\n"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    found = tmp_path / "help desk.yaml"
    found.write_text(_WORKLOAD)
    return found


def _recorded(run: Run, file: Path, *more: str) -> dict[str, Any]:
    told = run("decide", str(file), "--record", "--json", *more)
    assert told.exit_code == 0, told.output
    found: dict[str, Any] = json.loads(told.stdout)
    return found


def test_a_recorded_decision_is_shown_and_listed_as_it_was_made(run: Run, file: Path) -> None:
    made = _recorded(run, file)
    assert made["id"].startswith("dec_")
    assert made["rank"] == 1
    assert made["option"]["id"] == "api/OpenAI/gpt-5-nano"
    assert made["workload"]["written"]["requests_per_day"] == "20k"
    assert made["name"] == "help desk"
    predicted = made["predicted"]
    assert predicted["requests_a_day"] == 20_000
    assert predicted["a_month"] == pytest.approx(sum(each["a_month"] for each in made["parts"]))
    tokens = 20_000 * 1050 * 365 / 12
    assert predicted["per_million"] == pytest.approx(
        predicted["over_horizon"] / 12 / tokens * 1e6, rel=1e-5
    )
    assert predicted["per_million_reserved"] is None, "nothing is hosted"
    assert {each["what"] for each in made["prices"]} >= {"prompts of gpt-5-nano at OpenAI"}
    assert made["facts"]["digest"].startswith("sha256:")
    assert made["rules"]
    assert made["assumptions"]["team_share.api"]["assumed"]
    shown = json.loads(run("decide", "show", made["id"], "--json").stdout)
    assert shown == made
    listed = json.loads(run("decide", "list", "--json").stdout)
    assert listed[0]["id"] == made["id"]
    told = run("decide", "show", made["id"]).stdout
    assert "option 1 of" in told
    assert "requests a day: 20,000" in told


def test_an_option_is_chosen_by_its_rank_or_id_and_hosting_is_costed_as_reserved(
    run: Run, file: Path
) -> None:
    plan = json.loads(run("decide", str(file), "--top", "500", "--json").stdout)
    own = next(each for each in plan["ranked"] if each["option"]["way"] == "owned")
    made = _recorded(run, file, "--option", own["option"]["id"])
    assert made["option"]["id"] == own["option"]["id"]
    again = _recorded(run, file, "--option", str(made["rank"]))
    assert again["option"] == made["option"]
    predicted = made["predicted"]
    assert predicted["machines_a_month"] > 0
    assert predicted["per_million_reserved"] == pytest.approx(
        predicted["machines_a_month"] / predicted["tokens_a_month"] * 1e6, rel=1e-5
    )
    assert predicted["tokens_a_second_full"] > predicted["tokens_a_second_busy"] > 0
    assert predicted["ttft_p95_ms"] > 0
    assert predicted["tpot_p95_ms"] > 0
    assert "api" in {each["way"] for each in made["runners_up"]}
    assert made["machine"]["purchase"] > 0
    assert 0 < made["machine"]["busy"] <= 1


def test_a_decision_is_superseded_by_a_new_one_and_never_changed(run: Run, file: Path) -> None:
    old = _recorded(run, file)
    new = _recorded(run, file, "--supersede", old["id"], "--alias", "bot")
    assert (new["supersedes"], new["aliases"]) == (old["id"], ["bot"])
    shown = json.loads(run("decide", "show", old["id"], "--json").stdout)
    assert shown == old | {"superseded_by": new["id"]}
    twice = run("decide", str(file), "--record", "--supersede", old["id"])
    assert twice.exit_code == 1
    assert new["id"] in twice.output


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--record", "--option", "x"), "No possible option has the id 'x'"),
        (("--record", "--option", "99999999"), "There is no option 99999999"),
        (("--record", "--supersede", "dec_x"), "There is no decision 'dec_x'"),
        (("--record", "--tenant", "nobody"), "There is no tenant 'nobody'"),
        (("--alias", "x"), "add it"),
    ],
)
def test_what_cannot_be_recorded_is_told_in_a_sentence(
    run: Run, file: Path, words: tuple[str, ...], said: str
) -> None:
    told = run("decide", str(file), *words)
    assert told.exit_code == 1
    assert said in told.output


def test_a_file_with_a_mistake_is_told_with_its_line(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "w.yaml"
    file.write_text(_WORKLOAD + "region: 5\n")
    told = run("decide", str(file), "--record")
    assert told.exit_code == 1
    assert "line 5" in told.output


def test_nothing_that_passes_is_nothing_to_decide_for(
    offline: Run, tmp_path: Path, commands: Callable[[Path], Run]
) -> None:
    file = tmp_path / "w.yaml"
    file.write_text(_WORKLOAD + "rules: {least_mmlu: 99}\n")
    told = offline("decide", str(file), "--record")
    assert told.exit_code == 1
    assert "Nothing passes" in told.output


def test_a_check_of_what_was_just_decided_holds_and_says_how_little_it_knows(
    run: Run, file: Path
) -> None:
    made = _recorded(run, file, "--alias", "nobody's")
    told = run("decide", "check", made["id"], "--json")
    assert told.exit_code == 0, told.output
    found = json.loads(told.stdout)
    assert found["holds"]
    (checked,) = found["data"]
    assert (checked["id"], checked["requests"], checked["is_judged"]) == (made["id"], 0, False)
    assert {each["name"] for each in checked["figures"]} >= {"requests_a_day", "ttft_p95_ms"}
    assert "holds." in run("decide", "check", made["id"]).stdout


def test_a_check_of_what_does_not_hold_ends_with_one(
    offline: Run, file: Path, tmp_path: Path
) -> None:
    """By facts of the home that say something else now."""
    made = _recorded(offline, file)
    facts = tmp_path / "home" / "facts"
    facts.mkdir()
    (facts / "api_prices.yaml").write_text(
        "models:\n  - {provider: OpenAI, model: gpt-5-nano, input_usd_per_mtok: 900}\n"
    )
    told = offline("decide", "check", made["id"], "--json")
    assert told.exit_code == 1, told.output
    (checked,) = json.loads(told.stdout)["data"]
    kinds = {each["kind"] for each in checked["departures"]}
    assert kinds == {"other_cheaper"}
    said = offline("decide", "check")
    assert said.exit_code == 1
    assert "does not hold any more" in said.stdout
    assert "Next: decide again" in said.stdout


@pytest.mark.parametrize(
    ("words", "said"), [(("dec_x",), "There is no decision"), (("--since", "5h"), "write days")]
)
def test_a_check_of_nothing_is_told_in_a_sentence(
    run: Run, words: tuple[str, ...], said: str
) -> None:
    told = run("decide", "check", *words)
    assert told.exit_code == 1
    assert said in told.output


def test_a_decision_is_written_as_settings_from_a_plan_or_a_record(
    run: Run, file: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out.yaml"
    told = run("decide", str(file), "--deployment", str(out))
    assert told.exit_code == 0, told.output
    assert "/run/secrets/openai_api_key" in told.stdout
    assert "a plan that was not recorded" in out.read_text()
    again = run("decide", str(file), "--deployment", str(out))
    assert again.exit_code == 1
    assert "is there already" in again.output
    made = _recorded(run, file, "--deployment", str(tmp_path / "both.yaml"))
    assert made["deployment"]["decision"] == made["id"]
    other = tmp_path / "other.yaml"
    told = run("decide", "deploy", made["id"], str(other), "--json")
    assert told.exit_code == 0, told.output
    assert json.loads(told.stdout)["text"] == other.read_text()
    assert other.read_text() == (tmp_path / "both.yaml").read_text()
    absent = run("decide", "deploy", "dec_x", str(tmp_path / "x.yaml"))
    assert (absent.exit_code, (tmp_path / "x.yaml").exists()) == (1, False)


def test_a_record_and_its_page_are_of_one_plan(
    offline: Run, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plans: list[str] = []
    plan = planning.plan

    def counted(workload: Workload, *rest: Any, **more: Any) -> Plan:
        plans.append(workload.name)
        return plan(workload, *rest, **more)

    monkeypatch.setattr(planning, "plan", counted)
    page = tmp_path / "page.html"

    made = _recorded(offline, file, "--html", str(page))

    assert plans == ["help desk"]
    assert made["option"]["id"] == "api/OpenAI/gpt-5-nano"
    assert "gpt-5-nano" in page.read_text()


def test_that_a_plan_is_in_dollars_is_said_where_the_settings_count_in_another(
    offline: Run, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "In dollars" not in offline("decide", str(file)).stdout

    monkeypatch.setenv("FREEHOLD_CURRENCY", "EUR")

    assert "In dollars" in offline("decide", str(file)).stdout
    file.write_text(_WORKLOAD + "assumptions: {for_a_dollar: 0.9}\n")
    assert "In dollars" not in offline("decide", str(file)).stdout


def test_what_was_decided_is_started_from_its_file_and_answers(
    offline: Run, file: Path, tmp_path: Path
) -> None:
    """For a small model on the machine at hand, served by the fake engine."""
    home = tmp_path / "home"
    stock_tiny(home)
    made = _recorded(offline, file)
    with reach.offline(Home(home)) as (store, _, tenant_id):
        kept = store.decision(tenant_id, made["id"])
        assert kept is not None
        option = kept.content["option"] | {
            "way": "at_hand", "id": "at_hand/tiny", "model": "tiny", "provider": None,
            "precision": "int8", "accelerator": "this", "accelerators_a_replica": 1,
        }  # fmt: skip
        content = dict(kept.content) | {
            "option": option, "sized": {"at_peak": 1, "replicas": 1, "zones": 1},
            "accelerator": {"kind": "cpu", "has_bf16": False},
            "machine": {"busy": 0.25, "per_hour": 0.5},
        }  # fmt: skip
        store.add_decision(tenant_id, replace(kept, id="dec_here", content=content))
    out = tmp_path / "here.yaml"
    assert offline("decide", "deploy", "dec_here", str(out)).exit_code == 0
    running = start(home, "-f", str(out), "--engine", "fake")
    try:
        body = {"model": "tiny", "messages": [{"role": "user", "content": "hello"}]}
        headers = {"authorization": f"Bearer {running.key}"}
        answer = httpx2.post(
            f"{running.url}/v1/chat/completions", json=body, headers=headers, timeout=60,
            trust_env=False,
        )  # fmt: skip
        assert answer.status_code == 200, answer.text
        prices = json.loads(offline("price", "list", "--json").stdout)
        assert prices["machine"]["per_hour"] == 500_000
    finally:
        running.stop()
