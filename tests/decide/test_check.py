"""A recorded decision beside what became of it: each departure has its cause, and what is as
predicted has none."""

from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

import orjson
import pytest

from freehold.core.plan import Judged, Verdict, Way
from freehold.decide.outcome.check import OLD_DAYS, check
from freehold.decide.outcome.checked import Alternative, Checked, Kind, Now
from freehold.decide.outcome.measured import Measured, as_measured, measured, read
from tests.decide.offers import WORK

_DAY_S = 86_400.0
_OWNED = {"way": "owned", "id": "owned/small-8b/fp8/1xl4", "model": "small-8b"}
_API = {"way": "api", "id": "api/Seller/big", "a_month": 3000.0, "over_horizon": 36_000.0}
# 24,000 requests a day of 1,000 and 200 tokens, on machines for 876 a month: 876 million tokens.
_CONTENT: dict[str, Any] = {
    "option": _OWNED,
    "horizon_months": 12,
    "rules": [{"rule": "licence", "verdict": "pass", "why": "", "source": None}],
    "runners_up": [_API],
    "predicted": {
        "requests_a_day": 24_000.0, "growth_a_month": 0.0, "prompt_tokens": 1000.0,
        "answer_tokens": 200.0, "a_month": 1000.0, "machines_a_month": 876.0,
        "over_horizon": 15_000.0, "tokens_a_second_busy": 55.0, "tokens_a_second_full": 110.0,
        "ttft_p95_ms": 500.0, "tpot_p95_ms": 40.0,
    },
}  # fmt: skip
_PASSED = (Judged("licence", Verdict.PASS, "free", None),)
_NOW = Now(_PASSED, (Alternative(Way.API, "api/Seller/big", 3000.0, 2400.0),), 1.0, None, {})
# What was predicted, ten days long.
_CAME = Measured(
    0.0, 10 * _DAY_S, 240_000, 240_000_000, 48_000_000, 0, 55.0, (1000,), (200,), 200.0, 480.0,
    30.0, 39.0, None, None,
)  # fmt: skip


def _check(
    came: Measured = _CAME, content: Mapping[str, Any] = _CONTENT, now: Now = _NOW,
    months: float = 0.0, **targets: float,
) -> Checked:  # fmt: skip
    return check("dec_1", content, came, months, now, targets, 0.75)


def _kinds(found: Checked) -> set[Kind]:
    return {each.kind for each in found.departures}


def _figure(found: Checked, name: str) -> Any:
    return next(each for each in found.figures if each.name == name)


def test_what_is_as_predicted_holds_and_a_million_tokens_cost_what_was_said() -> None:
    found = _check()
    assert found.holds
    assert found.departures == ()
    reserved = _figure(found, "per_million_reserved")
    assert reserved.predicted == pytest.approx(876 / (24_000 * 365 / 12 * 1200 / 1e6))
    assert reserved.measured == pytest.approx(reserved.predicted)
    assert {each.within for each in found.figures if each.predicted is not None} == {True}
    assert orjson.loads(orjson.dumps(asdict(found)))["holds"] is True


def test_half_the_requests_make_each_token_dearer_on_machines_that_stand_there_anyway() -> None:
    came = replace(_CAME, requests=120_000, tokens_in=120_000_000, tokens_out=24_000_000,
                   tokens_a_second_busy=27.0)  # fmt: skip
    found = _check(came)
    assert _kinds(found) == {Kind.VOLUME, Kind.COST, Kind.UTILIZATION}
    reserved = _figure(found, "per_million_reserved")
    assert reserved.measured == pytest.approx(2 * reserved.predicted)
    cost = next(each for each in found.departures if each.kind is Kind.COST)
    assert "busy or not" in cost.what
    assert "more were planned" in cost.cause
    assert "--supersede dec_1" in cost.next_step


def test_growth_that_was_planned_is_no_departure_and_its_absence_is() -> None:
    predicted = _CONTENT["predicted"] | {"growth_a_month": 0.1, "tokens_a_second_full": 400.0}
    content = _CONTENT | {"predicted": predicted}
    grown = 1.1**6
    came = replace(
        _CAME, requests=int(240_000 * grown), tokens_in=int(240_000_000 * grown),
        tokens_out=int(48_000_000 * grown), tokens_a_second_busy=55 * grown,
    )  # fmt: skip
    assert _check(came, content, months=6).holds
    assert Kind.VOLUME in _kinds(_check(_CAME, content, months=6))


@pytest.mark.parametrize(
    ("changes", "kind", "cause"),
    [
        ({"tokens_a_second_busy": 100.0, "ttft_p95_ms": 900.0}, Kind.TTFT, "busier"),
        ({"ttft_p95_ms": 900.0}, Kind.TTFT, "slower than was computed"),
        ({"tokens_in": 480_000_000, "ttft_p95_ms": 900.0}, Kind.TTFT, "Prompts are longer"),
        ({"tpot_p95_ms": 70.0}, Kind.TPOT, "slower than was computed"),
        ({"tokens_out": 20_000_000}, Kind.ANSWERS, "below it"),
        ({"tokens_in": 480_000_000}, Kind.PROMPTS, "above it"),
        ({"tokens_a_second_busy": 100.0}, Kind.UTILIZATION, "More tokens are asked for"),
    ],
)
def test_a_departure_is_named_with_its_cause(
    changes: dict[str, Any], kind: Kind, cause: str
) -> None:
    found = _check(replace(_CAME, **changes))
    assert not found.holds
    (departed,) = [each for each in found.departures if each.kind is kind]
    assert cause in departed.cause
    assert departed.next_step


def test_a_target_bears_what_it_allows_and_no_more() -> None:
    slow = replace(_CAME, ttft_p95_ms=900.0)
    assert _check(slow, ttft_ms=1000.0).holds
    assert _kinds(_check(replace(_CAME, ttft_p95_ms=520.0), ttft_ms=510.0)) == {Kind.TTFT}


def test_too_little_is_not_judged_and_nothing_at_all_is_told() -> None:
    short = replace(_CAME, until_s=3600.0)
    found = _check(short)
    assert found.holds
    assert not found.is_judged
    assert {each.within for each in found.figures} == {None}
    none = replace(_CAME, requests=0, tokens_in=0, tokens_out=0, tokens_a_second_busy=0.0)
    (first, *_) = _check(none).departures
    assert first.what == "No request came in 10 days."


def _api(a_month: float) -> Now:
    return replace(_NOW, alternatives=(Alternative(Way.API, "api/Seller/big", a_month, 2400.0),))


def test_the_api_is_told_when_it_became_cheaper_with_moving_counted() -> None:
    assert _check(now=_api(760.0)).holds, "2,400 once are 200 a month, and 5 % move nobody"
    found = _check(now=_api(700.0))
    (cheaper,) = found.departures
    assert (cheaper.kind, cheaper.subject) == (Kind.API_CHEAPER, "api")
    assert "900.00 a month" in cheaper.what
    assert "3,000.00" in cheaper.what, "what it was when it was decided"
    assert "1,000.00 are paid" in cheaper.what


def test_what_was_cheaper_when_it_was_decided_has_not_become_so() -> None:
    content = _CONTENT | {"runners_up": [_API | {"over_horizon": 9000.0}]}
    assert _check(content=content, now=_api(100.0)).holds


def test_rent_that_rises_counts_before_it_is_compared() -> None:
    content = _CONTENT | {"option": _OWNED | {"way": "rented"}}
    now = replace(_api(1000.0), price_ratio=1.5)
    found = _check(content=content, now=now)
    assert found.a_month == pytest.approx(1000 + 876 / 2)
    assert _kinds(found) == {Kind.API_CHEAPER, Kind.COST}


@pytest.mark.parametrize(
    ("judged", "said"),
    [
        (Judged("licence", Verdict.FAIL, "Its licence ended.", "https://x"), "is broken"),
        (Judged("licence", Verdict.UNKNOWN, "Nobody says.", None), "not known"),
    ],
)
def test_a_rule_that_passed_and_does_not_now_is_told(judged: Judged, said: str) -> None:
    (departed,) = _check(now=replace(_NOW, judged=(judged, judged))).departures
    assert (departed.kind, departed.subject) == (Kind.RULES, "licence")
    assert said in departed.what
    assert judged.why in departed.what


def test_facts_that_are_old_or_lack_the_option_are_told() -> None:
    now = replace(_NOW, facts_days={"models": OLD_DAYS, "api_prices": OLD_DAYS + 1})
    (departed,) = _check(now=now).departures
    assert (departed.kind, departed.subject) == (Kind.FACTS_OLD, "api_prices")
    assert _kinds(_check(now=replace(_NOW, price_ratio=None))) == {Kind.GONE}


def test_an_api_costs_what_its_tokens_cost_today() -> None:
    predicted = _CONTENT["predicted"] | {"machines_a_month": None, "tokens_a_second_full": None}
    content = _CONTENT | {
        "option": {"way": "api", "id": "api/Seller/big"}, "predicted": predicted, "runners_up": [],
    }  # fmt: skip
    dearer = replace(_NOW, again=2000.0, alternatives=())
    found = _check(content=content, now=dearer)
    assert found.a_month == 2000.0
    assert _kinds(found) == {Kind.COST}
    assert _figure(found, "per_million_reserved").measured is None


def test_measuring_counts_the_busiest_hour_and_keeps_lengths_and_times() -> None:
    monday = 4 * 24  # hours from 1970 to the first Monday
    hours = [(monday + 9, 3, 300, 30, 100), (monday + 10, 1, 100, 7200, 0)]
    sample = [(100, 10, 50_000, 1_000_000), (100, 1, 150_000, 150_000), (7, 0, None, None)]
    found = measured(hours, sample, monday * 3600.0, (monday + 48) * 3600.0)
    assert (found.requests, found.tokens_in, found.tokens_cached) == (4, 400, 100)
    assert found.tokens_a_second_busy == 2.0
    assert found.requests_a_day == 2.0
    assert (found.prompts, found.answers) == ((7, 100, 100), (1, 1, 10))
    assert found.ttft_p50_ms == 100.0
    assert found.tpot_p95_ms == pytest.approx(950 / 9)
    assert found.hours is not None
    assert [hour for hour, count in enumerate(found.hours) if count] == [9, 10]
    assert found.weekdays is None, "less than a week"
    assert read(orjson.loads(orjson.dumps(asdict(found)))) == found
    came = as_measured(WORK, found)
    assert (came.requests_a_day, came.cached_share, came.rules) == (2.0, 0.25, WORK.rules)


def test_nothing_measured_leaves_the_plan_as_it_was() -> None:
    found = measured([], [], 0.0, 10 * _DAY_S)
    assert (found.requests, found.prompts, found.ttft_p95_ms) == (0, (), None)
    assert as_measured(WORK, found).prompt == WORK.prompt
