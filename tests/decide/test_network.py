from dataclasses import replace
from decimal import Decimal

from hypothesis import given, settings
from hypothesis import strategies as st

from freehold.decide.money import network
from freehold.decide.money.assumptions import Assumptions
from tests.decide.offers import EGRESS, economics

_NONE = Assumptions()


def test_each_gigabyte_costs_the_step_that_it_falls_into():
    # 730,000 requests × 0.02 GB = 14,600 GB: 100 free, 9,900 × 0.09 = 891.00,
    # 4,600 × 0.085 = 391.00.
    work = economics(egress_gb_a_request=0.02)
    [found] = network.egress(EGRESS, work, _NONE, provider="Cloud")
    assert found.a_month == 1282.00
    assert found.formula == (
        "14,600 GB a month: 100 GB free + 9,900 GB × 0.09 USD + 4,600 GB × 0.085 USD"
    )


def test_what_stays_below_the_free_amount_costs_nothing():
    work = economics(egress_gb_a_request=0.0001)  # 73 GB
    [found] = network.egress(EGRESS, work, _NONE, provider="Cloud")
    assert found.a_month == 0.0


def test_where_no_price_is_published_it_says_so_and_does_not_pretend():
    work = economics(egress_gb_a_request=0.02)
    for unknown in (None, replace(EGRESS, tiers=())):
        [found] = network.egress(unknown, work, _NONE, provider="Small")
        assert "not counted: no price is published" in found.formula


def test_between_zones_the_share_that_crosses_is_paid_out_and_in():
    # 730 GB, of three zones two thirds cross: 486.67 × 2 × 0.01 = 9.73.
    work = economics(egress_gb_a_request=0.001)
    [found] = network.between_zones(EGRESS, work, 3, _NONE)
    assert found.a_month == 9.73
    assert network.between_zones(EGRESS, work, 1, _NONE) == ()


@settings(max_examples=50)
@given(st.integers(0, 10**6), st.integers(0, 10**6))
def test_more_data_never_costs_less(less, more):
    less, more = sorted((less, more))
    costs = [
        sum(
            Decimal(str(each.a_month))
            for each in network.egress(
                EGRESS, economics(egress_gb_a_request=amount / 10**6), _NONE, provider="Cloud"
            )
        )
        for amount in (less, more)
    ]
    assert costs[0] <= costs[1]
