"""`freehold decide FILE --html PAGE`: a page that nothing in can run, of everything decided."""

import base64
import hashlib
import html
import json
import re
from dataclasses import replace
from datetime import date
from pathlib import Path

import pytest
from typer.testing import CliRunner

from freehold.catalog.facts import load_facts
from freehold.cli.main import app
from freehold.cli.pages.decision import page
from freehold.cli.pages.file import write_page
from freehold.config.workload import parse_workload
from freehold.core.errors import UserError
from freehold.core.facts import Facts, Source
from freehold.core.plan import Workload
from freehold.decide.compared.weighed import Weighed, weighed
from freehold.decide.ways.planner import Rejected, plan
from freehold.decide.ways.sizing import Sizing

_START = date(2026, 12, 1)
_HOSTILE = 'Help <script>alert(1)</script> & "more" \''
_FILE = """
requests_per_day: 300k
prompt: {p50: 500, p95: 1500}
answer: 200
region: us
models: [llama-3.1-8b, mistral-7b-v0.1, gpt-5-mini]
rules: {users_a_month: 1000}
economics: {team_per_month: 3000}
"""


def _weigh(workload: Workload, facts: Facts) -> Weighed:
    sizing = Sizing(facts)
    found = plan(workload, facts, sizing, start=_START)
    return weighed(found, workload, facts, sizing, start=_START)


@pytest.fixture(scope="module")
def facts() -> Facts:
    return load_facts()


@pytest.fixture(scope="module")
def workload() -> Workload:
    return replace(parse_workload(_FILE), name=_HOSTILE)


@pytest.fixture(scope="module")
def found(workload: Workload, facts: Facts) -> Weighed:
    return _weigh(workload, facts)


@pytest.fixture(scope="module")
def made(found: Weighed, workload: Workload, facts: Facts) -> str:
    return page(found, workload, facts, _START)


def _words(made: str) -> str:
    return html.unescape(re.sub(r"<[^>]+>", " ", made.partition("<body>")[2]))


def test_the_answer_is_a_sentence_with_the_best_of_each_other_way(
    made: str, found: Weighed
) -> None:
    best = found.plan.ranked[0]
    answer = re.search(r'<p class="answer">(.*?)</p>', made)
    assert answer is not None
    assert best.option.model in answer[1]
    assert f"{best.over_horizon:,.0f}" in answer[1]
    words = _words(made)
    for way in ("Rent", "Own", "Managed endpoint", "Mix"):
        assert way in words


def test_what_others_wrote_is_text_and_nothing_else(made: str) -> None:
    assert "<script" not in made.lower()
    assert "Help &lt;script&gt;alert(1)&lt;/script&gt; &amp;" in made


def test_nothing_is_fetched_and_its_own_policy_says_so(made: str) -> None:
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', made)
    style = re.search(r"<style>(.*?)</style>", made, re.S)
    assert policy is not None
    assert style is not None
    digest = base64.b64encode(hashlib.sha256(style[1].encode()).digest()).decode()
    assert html.unescape(policy[1]).split("; ")[:2] == [
        "default-src 'none'",
        f"style-src 'sha256-{digest}'",
    ]
    assert not re.search(r"\s(src|srcset|style|on\w+)=", made.partition("<body>")[2])
    assert not re.search(r"<link|@import|url\(", made)


def test_a_source_that_is_no_web_page_is_no_link(
    found: Weighed, workload: Workload, facts: Facts
) -> None:
    first = found.plan.ranked[0]
    part = replace(first.cost.parts[0], source="javascript:alert(1)")
    hostile = replace(first, cost=replace(first.cost, parts=(part, *first.cost.parts[1:])))
    ranked = (hostile, *found.plan.ranked[1:])
    made = page(replace(found, plan=replace(found.plan, ranked=ranked)), workload, facts, _START)
    assert "javascript:alert(1)" in made
    assert 'href="javascript' not in made


def test_every_point_of_the_curves_and_every_value_tried_is_in_a_table(
    made: str, found: Weighed
) -> None:
    words = " ".join(_words(made).split())
    for point in found.break_even.points:
        for cheapest in point.by_way.values():
            assert f"{cheapest.a_month:,.0f}" in words
    assert found.sensitivity is not None
    for effect in found.sensitivity.effects:
        assert effect.name in words
    for crossing in found.break_even.crossings:
        assert crossing.why in words
    assert "requests a day (logarithmic)" in words
    assert "USD a month (logarithmic)" in words


def test_an_option_has_its_parts_rules_and_sources(made: str, found: Weighed) -> None:
    words = " ".join(_words(made).split())
    for each in found.plan.ranked[:20]:
        assert each.option.id in words
        for part in each.cost.parts:
            assert " ".join(part.formula.split()) in words
        for judged in each.judged:
            assert judged.why in words
    assert "is above" in words or "not known" in words, "whether it is an LLM"
    assert "by a formula" in words


def test_figures_say_whose_they_are_and_facts_how_old(
    made: str, found: Weighed, workload: Workload, facts: Facts
) -> None:
    words = " ".join(_words(made).split())
    told, _, assumed = words.partition("Assumed until you say otherwise")
    assert "team a month 3,000" in told
    assert "power per kwh 0.2 the usual, until you say otherwise 5 days" in assumed
    first = found.plan.ranked[0]
    price = first.offer.api or first.offer.rent
    assert price is not None
    kind = "api" if first.offer.api else "rent"
    for at, said in (
        (date(2026, 11, 1), "https://a.example 30 days "),
        (date(2020, 1, 1), "https://a.example 2,526 days old "),
        (None, "https://a.example no date "),
    ):
        changed = replace(price, source=Source("https://a.example", at))
        dated = replace(first, offer=replace(first.offer, **{kind: changed}))
        plan_ = replace(found.plan, ranked=(dated, *found.plan.ranked[1:]))
        later = page(replace(found, plan=plan_), workload, facts, _START)
        assert said in " ".join(_words(later).split())


def test_thousands_that_are_left_out_are_counted_and_not_listed(
    found: Weighed, workload: Workload, facts: Facts
) -> None:
    many = tuple(
        Rejected(f"option {number}", f"An instance has {number % 7} cards.")
        for number in range(30_000)
    )
    many += tuple(Rejected(f"other {n}", f"Reason{'x' * n}.") for n in range(100))
    plan_ = replace(found.plan, rejected=many)
    made = page(replace(found, plan=plan_), workload, facts, _START)
    assert len(made) < 400_000
    words = _words(made)
    assert "30,000 An instance has … cards." in " ".join(words.split())
    assert "29,975 more" in words
    assert "option 24" in words
    assert "option 25 " not in words
    assert "and 61 more reasons" in " ".join(words.split())


def test_where_nothing_is_possible_the_page_says_what_keeps_all_out(
    workload: Workload, facts: Facts
) -> None:
    strict = replace(workload, rules=replace(workload.rules, least_mmlu=99.9))
    words = _words(page(_weigh(strict, facts), strict, facts, _START))
    assert "Nothing is possible" in words
    assert "quality: does not pass" in words
    assert "99.9 is wanted" in words
    assert "At other volumes" not in words


def test_a_currency_of_one_s_own_is_not_called_dollars(workload: Workload, facts: Facts) -> None:
    own = replace(workload, assumptions=(("for_a_dollar", 0.9),), models=("gpt-5-mini",))
    made = page(_weigh(own, facts), own, facts, _START)
    assert "of your currency a month (logarithmic)" in made


def test_a_page_is_written_over_a_file_and_keeps_its_rights(tmp_path: Path) -> None:
    file, link = tmp_path / "page.html", tmp_path / "link.html"
    file.write_text("before")
    file.chmod(0o640)
    link.symlink_to(file)
    write_page(link, "after")
    assert file.read_text() == "after"
    assert file.stat().st_mode & 0o777 == 0o640
    assert link.is_symlink()
    assert sorted(each.name for each in tmp_path.iterdir()) == ["link.html", "page.html"]


@pytest.mark.parametrize(
    ("name", "why"),
    [
        (".", "it is a folder"),
        ("none/page.html", "there is no folder"),
        ("/dev/null", "it is no ordinary file"),
        ("/proc/page.html", "No page can be written"),
    ],
)
def test_where_no_page_can_be_is_told_in_a_sentence(tmp_path: Path, name: str, why: str) -> None:
    with pytest.raises(UserError, match=why) as told:
        write_page(tmp_path / name, "page")
    assert told.value.message.endswith("Name another file.")


def test_the_command_writes_the_page_and_the_json_of_one_decision(tmp_path: Path) -> None:
    file, out = tmp_path / "work.yaml", tmp_path / "page.html"
    file.write_text(_FILE)
    ran = CliRunner().invoke(app, ["decide", str(file), "--html", str(out), "--json"])
    assert ran.exit_code == 0, ran.stderr
    told = json.loads(ran.stdout)
    written = out.read_text()
    assert told["ranked"][0]["option"]["id"] in written
    for crossing in told["break_even"]["crossings"]:
        assert crossing["why"] in written
    refused = CliRunner().invoke(app, ["decide", str(file), "--html", str(tmp_path)])
    assert refused.exit_code == 1
    assert "is a folder" in refused.stderr


def test_where_nothing_does_it_the_page_is_made_and_says_what_is_nearest(tmp_path: Path) -> None:
    file, out = tmp_path / "work.yaml", tmp_path / "page.html"
    file.write_text(_FILE.replace("rules: {", "rules: {least_mmlu: 99.9, "))
    ran = CliRunner().invoke(app, ["decide", str(file), "--html", str(out), "--json"])
    assert ran.exit_code == 1
    told, words = json.loads(ran.stdout), " ".join(_words(out.read_text()).split())
    assert told["conflict"] in words
    assert told["nearest"]
    for near in told["nearest"]:
        assert near["sentence"] in words
