"""What a workload says changes what is planned, each field as it must."""

from dataclasses import replace
from datetime import date

import pytest

from freehold.catalog.facts import load_facts
from freehold.core.errors import UserError
from freehold.core.plan import Carbon, Lengths, Rules, Workload
from freehold.decide.planner import Plan, plan
from freehold.decide.sizing import Sizing

_FACTS = load_facts()
_SIZING = Sizing(_FACTS)
_WORK = Workload(
    "work",
    30_000,
    Lengths((500, 1500)),
    Lengths((200,)),
    region="us",
    models=("mistral-7b-v0.1", "gpt-5-mini", "mistral-small-2603"),
    rules=Rules(users_a_month=1000),
)


def planned(**told: object) -> Plan:
    work = replace(_WORK, **told)  # type: ignore[arg-type]
    return plan(work, _FACTS, _SIZING, start=date(2026, 12, 1))


def a_month(found: Plan, words: str) -> float:
    """Of the cheapest option with these words in its id."""
    best = next(each for each in found.ranked if words in each.option.id)
    return sum(part.a_month for part in best.cost.parts)


def part_names(found: Plan, words: str) -> list[str]:
    best = next(each for each in found.ranked if words in each.option.id)
    return [part.name for part in best.cost.parts]


def test_what_a_tonne_costs_is_a_part_of_what_machines_cost_and_of_no_api() -> None:
    plain, priced = planned(), planned(carbon=Carbon(100))
    assert "Emissions" not in part_names(plain, "owned/")
    assert "Emissions" in part_names(priced, "owned/")
    assert "Emissions" not in part_names(priced, "api/")
    best = next(each for each in priced.ranked if each.option.id.startswith("owned/"))
    emitted = best.cost.emitted
    assert emitted is not None
    [part] = [each for each in best.cost.parts if each.name == "Emissions"]
    assert part.a_month == pytest.approx(float(emitted.kilograms_a_month) / 10, abs=0.01)


def test_emissions_go_by_the_grid_that_is_said_and_cost_nothing_without_a_price() -> None:
    clean, dirty = planned(carbon=Carbon(0, 0.05)), planned(carbon=Carbon(0, 0.5))
    one, other = (
        next(e.cost.emitted for e in found.ranked if e.option.id.startswith("owned/"))
        for found in (clean, dirty)
    )
    assert one is not None
    assert other is not None
    assert other.kilograms_a_month == 10 * one.kilograms_a_month
    assert "assumed" not in one.formula
    assert a_month(clean, "owned/") == a_month(planned(), "owned/")


def test_own_figures_stand_in_place_of_those_that_are_assumed() -> None:
    cheap = planned(assumptions=(("price.l4", 100.0),))
    assert a_month(cheap, "1xl4") < a_month(planned(), "owned/")
    in_euros = planned(assumptions=(("for_a_dollar", 0.5),))
    assert a_month(in_euros, "api/") == pytest.approx(a_month(planned(), "api/") / 2, abs=0.02)


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("api_ttft", 1.0, "near it are api_ttft_ms"),
        ("api_availability", 99.8, "is a share: it is one at most"),
        ("zones", 1e12, "20 at most"),
        ("for_a_dollar", 0.0, "is zero"),
    ],
)
def test_a_figure_that_is_none_is_refused(name: str, value: float, told: str) -> None:
    with pytest.raises(UserError, match=told):
        planned(assumptions=((name, value),))
