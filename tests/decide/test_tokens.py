from dataclasses import replace
from datetime import date
from decimal import Decimal

from hypothesis import given, settings
from hypothesis import strategies as st

from freehold.core.plan import Embedding, Lengths
from freehold.decide.money import money, tokens
from freehold.decide.money.assumptions import Assumptions
from tests.decide.offers import API, EMBEDDING, START, WORK

_NONE = Assumptions()


def _by_name(parts):
    return {each.name: each.a_month for each in parts}


def test_prompts_and_answers_cost_their_tokens():
    # 730,000 requests: 730 M tokens read × 2 = 1,460.00; 146 M written × 8 = 1,168.00.
    found = tokens.api(API, WORK, _NONE, start=START)
    assert _by_name(found) == {"Prompts": 1460.00, "Answers": 1168.00}
    assert found[0].formula == ("24,000 requests a day × 30.4167 days; 730 M tokens × 2 USD")
    assert found[0].source == "https://prices.example"


def test_what_is_found_again_has_its_own_price():
    # 40 % of 730 M are 292 M × 0.5 = 146.00; the other 438 M × 2 = 876.00.
    found = tokens.api(API, replace(WORK, cached_share=0.4), _NONE, start=START)
    assert _by_name(found) == {"Prompts": 876.00, "Cached prompts": 146.00, "Answers": 1168.00}


def test_without_a_price_for_what_is_found_again_it_costs_what_prompts_cost():
    work = replace(WORK, cached_share=0.4)
    found = _by_name(tokens.api(replace(API, cached_usd=None), work, _NONE, start=START))
    assert found["Prompts"] + found["Cached prompts"] == 1460.00


def test_a_prompt_above_a_step_costs_that_steps_prices_and_its_answer_too():
    # Half of the prompts have 1,000 tokens, half 300,000. 365,000 requests each:
    # 365 M × 2 = 730.00 and 109,500 M × 4 = 438,000.00; 73 M × 8 = 584.00 and 73 M × 12 = 876.00.
    stepped = replace(API, long_context=((200_000, 4.0, 1.0, 12.0),))
    work = replace(WORK, prompt=Lengths((1000, 300_000)))
    found = tokens.api(stepped, work, _NONE, start=START)
    assert _by_name(found) == {"Prompts": 438_730.00, "Answers": 1460.00}
    assert "109,500 M tokens × 4 USD for prompts above 200,000 tokens" in found[0].formula


def test_a_prompt_of_just_the_step_is_not_above_it():
    stepped = replace(API, long_context=((1000, 4.0, 1.0, 12.0),))
    assert tokens.api(stepped, WORK, _NONE, start=START) == tokens.api(
        API, WORK, _NONE, start=START
    )


def test_a_price_that_rises_on_a_day_counts_from_the_month_that_begins_then():
    # Twelve months from December: one at 2 and 8, eleven at 4 and 16.
    # 730 M ÷ 12 × (2 + 11 × 4) = 60.8333 × 46 = 2,798.33; 146 ÷ 12 × (8 + 11 × 16) = 2,238.67.
    rising = replace(API, later=((date(2027, 1, 1), 4.0, 16.0),))
    found = tokens.api(rising, WORK, _NONE, start=START)
    assert _by_name(found) == {"Prompts": 2798.33, "Answers": 2238.67}
    assert "USD from 2027-01-01" in found[0].formula


def test_growth_costs_the_mean_month_of_the_horizon():
    # Two months, the second twice the first: 1.5 × 1,460.00.
    work = replace(WORK, growth_a_month=1.0, horizon_months=2)
    assert _by_name(tokens.api(API, work, _NONE, start=START))["Prompts"] == 2190.00


def test_what_a_provider_adds_for_a_region_and_the_currency_are_factors():
    euros = Assumptions().given({"for_a_dollar": 0.5})
    found = tokens.api(API, WORK, euros, start=START, surcharge=Decimal("0.1"))
    assert _by_name(found) == {"Prompts": 803.00, "Answers": 642.40}  # × 1.1 × 0.5


def test_embeddings_are_paid_once_for_the_documents_and_then_by_the_day():
    # 500 M × 0.02 = 10.00 once; 6 M a day × 730 ÷ 24 = 182.5 M × 0.02 = 3.65.
    found = tokens.embeddings(EMBEDDING, Embedding(6_000_000, 500_000_000), _NONE)
    assert [(each.once, each.a_month) for each in found] == [(10.00, 0.0), (0.0, 3.65)]
    assert all(f"handed to {EMBEDDING.provider}" in each.formula for each in found)


@settings(max_examples=60)
@given(st.integers(1, 10**7), st.integers(1, 10**7), st.integers(1, 400_000), st.integers(1, 9_000))
def test_more_requests_never_cost_less(fewer, more, prompt, answer):
    fewer, more = sorted((fewer, more))
    stepped = replace(API, long_context=((200_000, 4.0, 1.0, 12.0),))
    costs = [
        money.a_month(
            tokens.api(
                stepped,
                replace(
                    WORK,
                    requests_a_day=count,
                    prompt=Lengths((prompt,)),
                    answer=Lengths((answer,)),
                ),
                _NONE,
                start=START,
            )
        )
        for count in (fewer, more)
    ]
    assert costs[0] <= costs[1]


@settings(max_examples=40)
@given(st.integers(1, 10**6), st.integers(2, 50))
def test_so_many_times_the_requests_cost_so_many_times_as_much(count, times):
    one, many = (
        money.a_month(tokens.api(API, replace(WORK, requests_a_day=each), _NONE, start=START))
        for each in (count, count * times)
    )
    assert abs(many - one * times) <= Decimal("0.01") * times  # two parts, each to half a cent


@settings(max_examples=40)
@given(st.floats(0, 1), st.floats(0, 1))
def test_finding_more_again_never_costs_more(some, more):
    some, more = sorted((some, more))
    costs = [
        money.a_month(tokens.api(API, replace(WORK, cached_share=each), _NONE, start=START))
        for each in (some, more)
    ]
    assert costs[1] <= costs[0] + Decimal("0.01")
