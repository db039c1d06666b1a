"""What requests cost."""

from hypothesis import given
from hypothesis import strategies as st

from freehold.core.price import Price, Rates, read_price

_RATES = st.builds(Rates, *[st.integers(0, 10**9)] * 3)
_PRICES = st.builds(
    lambda base, steps: Price(base, tuple(sorted(steps.items()))),
    _RATES,
    st.dictionaries(st.integers(1, 10**6), _RATES, max_size=3),
)
_TOKENS = st.integers(0, 2 * 10**6)


def test_a_request_costs_what_its_tokens_do_and_is_rounded_up() -> None:
    price = Price(Rates(150_000, 600_000, 75_000))
    assert price.cost(1_000_000, 0, 1_000_000) == 750_000
    assert price.cost(1_000_000, 400_000, 0) == 120_000
    assert price.cost(1, 0, 0) == 1
    assert price.cost(0, 0, 0) == 0


def test_a_long_request_costs_its_tiers_rates_for_all_of_it() -> None:
    price = Price(Rates(100, 0, 0), ((200, Rates(300, 0, 0)), (400, Rates(500, 0, 0))))
    million = 1_000_000
    assert [price.cost(n * million, 0, 0) // n for n in (1,)] == [500]
    assert price.cost(199, 0, 0) == 1
    assert Price(Rates(10**6, 0, 0), ((200, Rates(2 * 10**6, 0, 0)),)).cost(200, 0, 0) == 400


@given(_PRICES)
def test_a_price_is_read_as_it_was_written(price: Price) -> None:
    assert read_price(price.written) == price


@given(_PRICES, _TOKENS, _TOKENS, _TOKENS, _TOKENS, _TOKENS)
def test_nothing_costs_more_than_the_most_that_was_held(
    price: Price, most_in: int, most_out: int, less_in: int, cached: int, less_out: int
) -> None:
    used_in = min(less_in, most_in)
    cost = price.cost(used_in, min(cached, used_in), min(less_out, most_out))
    assert cost <= price.most(most_in, most_out)
