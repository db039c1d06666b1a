from dataclasses import replace
from decimal import Decimal

from hypothesis import given, settings
from hypothesis import strategies as st

from freehold.core.plan import Economics, Way
from freehold.decide.money import machines, money
from freehold.decide.money.assumptions import Assumptions
from tests.decide.offers import BOARD, CARD, RENT, WORK, hosted

_OPTION = hosted(Way.RENTED).option
_ROUND = Assumptions().given(
    {
        "price.l4": 3000,
        "server_price": 6000,
        "server_w": 428,
        "power_share": 0.5,
        "hosting_per_kw": 100,
        "spare_share": 0.1,
    }
)


def test_a_rented_replica_costs_each_hour_of_the_month():
    # Three × 730 hours × 0.80.
    [found] = machines.rented(_OPTION, RENT, WORK, 3, Assumptions())
    assert found.a_month == 1752.00
    assert found.formula == "3 × 730 hours × 0.8 USD (on_demand) for 3 replicas of 1 l4"


def test_replicas_share_an_instance_that_holds_several():
    # Five replicas of two cards on instances of four: two a piece, so three × 730 × 4 USD.
    four = replace(RENT, count=4, usd_per_hour=4.0)
    [found] = machines.rented(
        replace(_OPTION, accelerators_a_replica=2), four, WORK, 5, Assumptions()
    )
    assert found.a_month == 8760.00


def test_an_instance_that_does_not_hold_a_replica_is_no_offer():
    option = replace(_OPTION, accelerators_a_replica=2)
    assert machines.rented(option, RENT, WORK, 1, Assumptions()) == ()


def test_spot_capacity_has_a_replica_more_and_says_why():
    # Three needed and one spare: 4 × 730 × 0.30.
    spot = replace(RENT, term="spot", usd_per_hour=0.3)
    [found] = machines.rented(_OPTION, spot, WORK, 3, Assumptions())
    assert found.a_month == 876.00
    assert "can be taken away within minutes" in found.formula


def test_what_scales_to_zero_is_paid_in_the_hours_that_it_is_asked_in():
    # Eight hours of five days: 40 hours a week × 730 ÷ 168 = 173.81 a month × 2 replicas × 0.80.
    office = replace(
        WORK, hours=(0.0,) * 9 + (1.0,) * 8 + (0.0,) * 7, weekdays=(1.0,) * 5 + (0.0,) * 2
    )
    scaled = replace(RENT, term=machines.SCALED_TO_ZERO)
    [found] = machines.rented(_OPTION, scaled, office, 2, Assumptions())
    assert found.a_month == 278.10


def test_own_servers_are_written_off_powered_and_housed():
    # Two cards and one server: 2 × 3,000 + 6,000 = 12,000 over 24 months without interest: 500.
    # They draw 2 × 72 + 428 = 572 W; × 0.5 × 730 h × 1.5 × 0.20 = 62.63. Hosting 0.572 × 100.
    # Spare parts a tenth of 12,000, once.
    economics = Economics(
        power_per_kwh=0.2, power_usage_effectiveness=1.5, discount_rate=0.0, amortization_months=24
    )
    found = {
        each.name: (each.a_month, each.once)
        for each in machines.owned(hosted(Way.OWNED).option, CARD, 2, economics, _ROUND)
    }
    assert found == {
        "Servers, written off": (500.00, 0.0),
        "Spare parts": (0.0, 1200.00),
        "Power": (62.63, 0.0),
        "Hosting": (57.20, 0.0),
    }


def test_money_in_servers_has_its_interest():
    # 12,000 at 8 % a year: i = 1.08^(1/12) − 1 = 0.00643403, 36 payments of
    # 12,000 × i ÷ (1 − 1.08^−3) = 77.20836 ÷ 0.20616776 = 374.49.
    assert money.cents(money.annuity(Decimal(12_000), Decimal("0.08"), 36)) == Decimal("374.49")


def test_boards_come_in_eights():
    # One replica of two: still eight of them, and the server around them.
    kit = machines.bought(BOARD.id, 2)
    assert (kit.accelerators, kit.servers) == (8, 1)
    kit = machines.bought(BOARD.id, 9)
    assert (kit.accelerators, kit.servers) == (16, 2)
    assert machines.bought(CARD.id, 9) == machines.Bought(9, 2, board=False)


def test_figures_of_ours_say_that_they_are_assumed_until_they_are_yours():
    economics = Economics()
    option = hosted(Way.OWNED).option
    ours = machines.owned(option, CARD, 1, economics, Assumptions())[0]
    yours = machines.owned(option, CARD, 1, economics, _ROUND)[0]
    assert "2,800 USD (assumed)" in ours.formula
    assert "assumed" not in yours.formula


def test_what_nobody_sells_has_no_cost_but_is_no_offer():
    rented_only = replace(CARD, id="a10g")
    assert machines.owned(hosted(Way.OWNED).option, rented_only, 1, Economics(), _ROUND) == ()


def test_the_machine_at_hand_costs_its_power_alone():
    # 72 + 428 = 500 W × 0.5 × 730 h × 1.4 × 0.20.
    [found] = machines.at_hand(CARD, 1, Economics(), _ROUND)
    assert (found.a_month, found.once) == (51.10, 0.0)


@settings(max_examples=60)
@given(st.integers(1, 200), st.integers(1, 200), st.sampled_from(["l4", "h100_sxm"]))
def test_more_replicas_never_cost_less(fewer, more, name):
    fewer, more = sorted((fewer, more))
    card = CARD if name == CARD.id else BOARD
    for parts in (
        [machines.owned(_OPTION, card, each, Economics(), _ROUND) for each in (fewer, more)],
        [machines.rented(_OPTION, RENT, WORK, each, _ROUND) for each in (fewer, more)],
    ):
        assert money.whole(parts[0], 12) <= money.whole(parts[1], 12)


@settings(max_examples=40)
@given(st.integers(1, 10**6), st.integers(1, 30), st.integers(1, 120))
def test_what_is_paid_back_is_worth_the_price(price, percent, months):
    """The payments, each discounted to today, are the price: what an annuity is."""
    rate = Decimal(percent) / 100
    monthly = money.annuity(Decimal(price), rate, months)
    step = (1 + rate) ** (Decimal(1) / 12)
    worth = sum(monthly / step**month for month in range(1, months + 1))
    assert abs(worth - price) < Decimal("0.0001")
