"""Wishes that nothing meets: what excludes what, and what is nearest to them."""

from dataclasses import replace
from datetime import date

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from freehold.catalog.facts import load_facts
from freehold.core.plan import Lengths, Rules, Targets, Tuning, Workload
from freehold.decide.compared.nearest import Nothing, nearest
from freehold.decide.compared.wishes import wishes
from freehold.decide.ways.planner import Plan, is_feasible, plan
from freehold.decide.ways.sizing import Sizing

_FACTS = load_facts()
_SIZING = Sizing(_FACTS)
_START = date(2026, 12, 1)
_RULES = Rules(users_a_month=1000)
_WORK = Workload(
    "work",
    20_000,
    Lengths((800,)),
    Lengths((250,)),
    region="de",
    models=("mistral-7b-v0.1", "qwen3-8b", "mistral-small-2603", "gpt-5-mini"),
    rules=_RULES,
)


def planned(work: Workload) -> Plan:
    return plan(work, _FACTS, _SIZING, start=_START)


def feasible(work: Workload) -> bool:
    return is_feasible(work, _FACTS, _SIZING, start=_START)


def near(**told: object) -> Nothing:
    work = replace(_WORK, **told)  # type: ignore[arg-type]
    assert not planned(work).ranked
    return nearest(work, planned, feasible)


# What is wished for, what excludes it, and what would do.
IMPOSSIBLE = {
    "sooner than anything is there": (
        {"deadline_days": 3}, "Nothing does the work with a deadline of 3 days",
        "With a deadline of 27 days",
    ),
    "faster than the hardware with one request": (
        {"targets": Targets(tpot_ms=0.5)}, "Nothing does the work with a TPOT p95 of 0.5 ms",
        "ms instead of 0.5",
    ),
    "a first token before a prompt is read": (
        {"targets": Targets(ttft_ms=2.0), "prompt": Lengths((6000,))},
        "TTFT p95 of 2 ms", "With a TTFT p95 of",
    ),
    "up for longer than places are": (
        {"targets": Targets(availability=0.9999999999)}, "an availability of 99.99999999 %",
        "With an availability of 99.9999 % instead of",
    ),
    "more context than any model has": (
        {"context_length": 50_000_000, "models": ()}, "a context of 50,000,000 tokens",
        "tokens instead of 50,000,000",
    ),
    "a longer prompt than any model reads": (
        {"prompt": Lengths((100, 9_000_000)), "models": ("gpt-5-mini", "qwen3-8b")},
        "prompts of up to 9,000,000 tokens", "With prompts of",
    ),
    "better than any model": (
        {"rules": replace(_RULES, least_mmlu=99.0), "models": ()}, "an MMLU of 99",
        "instead of 99",
    ),
    "a certificate that nobody has": (
        {"rules": replace(_RULES, certifications=frozenset({"fedramp"})), "deadline_days": 40},
        "A deadline of 40 days and a provider with fedramp exclude each other.",
        "Without asking for fedramp",
    ),
    "where nobody is": (
        {"rules": replace(_RULES, residency=frozenset({"bg"})), "region": None},
        "Nothing does the work with data only in bg", "With region said (bg, say)",
    ),
    "a licence that nobody has": (
        {"models": ("mpt-30b-chat",)}, "mpt-30b-chat as the model", "With another model than",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", IMPOSSIBLE)
def test_what_is_impossible_is_said_with_what_is_nearest(name: str) -> None:
    told, conflict, instead = IMPOSSIBLE[name]
    found = near(**told)
    assert conflict in found.conflict
    assert found.conflict.endswith(".")
    assert any(instead in each.sentence for each in found.near), found.near
    assert all(each.sentence.endswith(" a month.") for each in found.near)


def test_what_is_nearest_would_do_and_a_step_less_would_not() -> None:
    [found] = near(targets=Targets(tpot_ms=0.5)).near
    assert planned(found.workload).ranked[0] == found.best
    wish = next(each for each in wishes(_WORK_FAST) if each.field == "targets.tpot_p95")
    assert wish.steps[found.steps - 1][1](_WORK_FAST) == found.workload
    assert not feasible(wish.steps[found.steps - 2][1](_WORK_FAST))


_WORK_FAST = replace(_WORK, targets=Targets(tpot_ms=0.5))


def test_what_is_easy_to_give_way_in_comes_first() -> None:
    found = near(deadline_days=40, rules=replace(_RULES, certifications=frozenset({"fedramp"})))
    assert [each.fields[0] for each in found.near] == ["deadline", "rules.certifications"]


def test_two_wishes_that_nothing_meets_either_of_give_way_together() -> None:
    found = near(deadline_days=1, models=(), rules=replace(_RULES, least_mmlu=99.0))
    [both] = found.near
    assert both.fields == ("deadline", "rules.least_mmlu")
    assert "giving way in one of them is not enough" in found.conflict
    assert planned(both.workload).ranked[0] == both.best


_CHANGES = (
    {"deadline_days": 20},
    {"targets": Targets(tpot_ms=2.0)},
    {"targets": Targets(ttft_ms=40.0, availability=0.9999)},
    {"rules": replace(_RULES, residency=frozenset({"de"}), data_class="personal")},
    {"rules": replace(_RULES, least_mmlu=95.0)},
    {"tuning": Tuning(1, 10**6)},
    {"context_length": 3_000_000},
    {"tenants_with_adapters": 100_000},
)


@settings(max_examples=12, deadline=None)
@given(st.lists(st.sampled_from(_CHANGES), min_size=1, max_size=3, unique_by=str))
def test_steps_of_a_wish_never_take_an_option_away(some: list[dict[str, object]]) -> None:
    """What halving rests on: once a step is enough, so are all after it."""
    work = _WORK
    for each in some:
        work = replace(work, **each)  # type: ignore[arg-type]
    for wish in wishes(work):
        tried = [wish.steps[at] for at in {0, len(wish.steps) // 2, len(wish.steps) - 1}]
        order = sorted(tried, key=wish.steps.index)
        could = [feasible(change(work)) for _, change in order]
        assert could == sorted(could)
