from dataclasses import replace
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from freehold.core.errors import UserError
from freehold.core.plan import Embedding, Rules, Tuning, Way
from freehold.decide.money import demand, people
from freehold.decide.money.assumptions import Assumptions
from freehold.decide.money.cost import Sized, base_load, cost, idle_hours
from tests.decide.offers import API, EGRESS, EMBEDDING, RENT, WORK, around, bought, hosted

# A day of one busy hour with 300 requests, and 100 in each of the others: 2,600 a day.
_PEAKY = replace(WORK, requests_a_day=2600, hours=(3.0, *(1.0,) * 23))


def _names(found):
    return [each.name for each in found.parts]


def _amount(found, name):
    return next(each.a_month for each in found.parts if each.name == name)


def test_an_api_is_paid_by_the_token_and_somebody_watches_it():
    team = replace(WORK, economics=replace(WORK.economics, team_a_month=20_000))
    found = cost(bought(), team, around())
    assert _names(found) == ["Prompts", "Answers", "Team", "Setting up"]
    assert _amount(found, "Team") == 2000.00  # a tenth
    # 1,460.00 + 1,168.00 + 2,000.00, and 3 days × 800 once; of twelve months.
    assert found.over(12) == Decimal("4628.00") * 12 + 2400


def test_a_rented_way_has_its_machines_its_data_and_its_people():
    work = replace(WORK, economics=replace(WORK.economics, egress_gb_a_request=0.001))
    found = cost(hosted(Way.RENTED), work, around(egress=EGRESS), Sized(2, 4, zones=2))
    # Four × 730 × 0.8; 730 GB: 630 × 0.09; half of 730 crosses, × 2 × 0.01.
    assert _amount(found, "one-l4 at Cloud in eu-1") == 2336.00
    assert _amount(found, "Data out of Cloud") == 56.70
    assert _amount(found, "Data between zones") == 7.30


def test_a_mix_keeps_the_base_load_and_buys_the_peak():
    # Three replicas meet 300 an hour, so one meets 100: all but 200 of 2,600 a day.
    split = base_load(_PEAKY, Sized(at_peak=3, replicas=1))
    assert (split.own, split.bought, split.hours_above) == (Fraction(12, 13), Fraction(1, 13), 7)
    offer = replace(hosted(Way.MIXED), api=API)
    found = cost(offer, _PEAKY, around(), Sized(3, 1))
    # 200 a day × 730 ÷ 24 × 1,000 tokens = 6.083 M × 2 = 12.17; × 200 × 8 = 9.73.
    assert (_amount(found, "Prompts"), _amount(found, "Answers")) == (12.17, 9.73)
    assert "Servers, written off" in _names(found)


def test_with_all_replicas_a_mix_buys_nothing():
    found = cost(replace(hosted(Way.MIXED), api=API), _PEAKY, around(), Sized(3, 3))
    assert _amount(found, "Prompts") == 0.0


def test_training_uses_the_hours_in_which_own_machines_are_idle():
    work = replace(_PEAKY, tuning=Tuning(1, 1_000_000, method="qlora"))
    # 2,600 of 24 × 300 are busy: 36.1 %, so 63.9 % of 730 hours are not.
    assert round(idle_hours(work, Sized(3, 3)), 2) == Decimal("466.39")
    found = cost(hosted(Way.OWNED), work, around(), Sized(3, 3))
    assert _amount(found, "Training (qlora)") == 0.0
    assert "that the own machines are idle" in found.parts[-3].formula


def test_training_that_own_machines_have_no_hours_for_is_rented():
    # 1,000 runs of 6 × 8e9 × 1e7 × 0.754 × 1.346 ÷ (121e12 × 0.25) = 4.47 hours.
    work = replace(_PEAKY, tuning=Tuning(1000, 10_000_000, method="qlora"))
    offer = hosted(Way.OWNED)
    found = cost(offer, work, around(training=(offer.accelerator, RENT)), Sized(3, 3))
    hours = Decimal("4.8e17") * Decimal("32.5") / Decimal("43.1") * 7 / Decimal("5.2")
    hours /= Decimal("121e12") * Decimal("0.25") * 3600
    expected = round(hours * 1000 * Decimal("0.8"), 2)
    assert Decimal(str(_amount(found, "Training (qlora)"))) == expected


def test_embeddings_are_bought_where_somebody_sells_them_under_the_rules():
    work = replace(WORK, embedding=Embedding(6_000_000))
    assert _amount(cost(bought(), work, around(embedding=EMBEDDING)), "Embeddings") == 3.65
    told = cost(bought(), work, around())
    assert "no provider of them passes the rules" in told.parts[2].formula


def test_emissions_are_told_and_cost_only_where_they_have_a_price():
    # (72 + 400) W × 0.7 × 730 h = 241.192 kWh × 1.4 × 0.45 = 151.95 kg.
    free = cost(hosted(Way.OWNED), WORK, around(), Sized(1, 1))
    assert round(free.emitted.kilograms_a_month, 2) == Decimal("151.95")
    assert "Emissions" not in _names(free)
    priced = Assumptions().given({"carbon_price_a_tonne": 100})
    found = cost(hosted(Way.OWNED), WORK, around(priced), Sized(1, 1))
    assert _amount(found, "Emissions") == 15.20
    assert cost(bought(), WORK, around()).emitted is None


def test_it_takes_as_long_as_the_longest_way_through():
    # Approval 10, cards 60 (beside them data 15), 30 person-days by two, evaluation 5.
    own = people.delivery(hosted(Way.OWNED).option, WORK, Assumptions())
    assert own.days == 10 + 60 + 15 + 5
    # An API: approval 10 + 10, 3 person-days by two, evaluation 5; 26.5 days are 27.
    api = bought().option
    assert people.delivery(api, WORK, Assumptions()).days == 27
    tuned = replace(WORK, tuning=Tuning(1, 1), rules=Rules(data_class="health"))
    assert people.delivery(api, tuned, Assumptions()).days == 27 + 15 + 15
    sooner = Assumptions().given({"days.approval": 0, "days.evaluation": 0.5})
    assert people.delivery(api, WORK, sooner).days == 12


def test_an_assumption_that_is_none_is_named_with_those_that_are():
    with pytest.raises(UserError, match=r"no assumption 'server_prize'; near it are server_price"):
        Assumptions().given({"server_prize": 1})
    with pytest.raises(UserError, match="cannot be below zero"):
        Assumptions().given({"server_price": -1})
    assert Assumptions().given({"price.my_card": 7}).price("my_card").value == 7


@settings(max_examples=40)
@given(st.integers(1, 20), st.floats(0.2, 5))
def test_another_currency_only_changes_what_is_quoted_in_dollars(replicas, rate):
    """Power and the team are in the plan's own; what is left is so many times as much."""
    work = replace(WORK, economics=replace(WORK.economics, team_a_month=1000, power_per_kwh=0.3))
    other = Assumptions().given({"for_a_dollar": rate})
    for offer, sized in ((hosted(Way.OWNED), Sized(replicas, replicas)), (bought(), None)):
        dollars = cost(offer, work, around(), sized)
        changed = cost(offer, work, around(other), sized)
        for before, after in zip(dollars.parts, changed.parts, strict=True):
            factor = 1 if before.name in {"Team", "Power"} else rate
            assert after.a_month == pytest.approx(before.a_month * factor, abs=0.01 * (1 + rate))
            assert after.once == pytest.approx(before.once * factor, abs=0.01 * (1 + rate))


@settings(max_examples=60)
@given(
    st.lists(st.integers(0, 50), min_size=24, max_size=24).filter(any),
    st.integers(1, 9),
    st.integers(1, 9),
)
def test_a_split_shares_everything_out_and_more_capacity_never_buys_more(hours, few, more):
    few, more = sorted((few, more))
    work = replace(WORK, hours=tuple(float(each) for each in hours))
    small, large = (base_load(work, Sized(9, each)) for each in (few, more))
    assert small.own + small.bought == 1
    assert small.bought >= large.bought >= 0
    assert sum(demand.hourly(work)) == 7 * 24_000
