"""What providers ask for their models."""

from decimal import Decimal

from freehold.core.price import Rates
from freehold.operate.prices.published import look_up

_OPENAI, _ANTHROPIC = "https://api.openai.com/v1", "https://api.anthropic.com/v1"


def test_published_prices_are_found_by_address_with_their_tiers() -> None:
    mini, sonnet = (_OPENAI, "gpt-4o-mini"), (_ANTHROPIC, "claude-sonnet-4-5")
    elsewhere, unknown = ("https://llm.example.com/v1", "gpt-4o-mini"), (_OPENAI, "no-such-model")
    found = look_up([mini, sonnet, elsewhere, unknown], Decimal(2))
    assert set(found) == {mini, sonnet}
    assert found[mini].rates == Rates(300_000, 1_200_000, 150_000)
    assert found[mini].source.startswith("genai-prices ")
    long = found[sonnet]
    assert [start for start, _ in long.tiers] == [200_000]
    assert long.cost(200_000, 0, 0) == 2 * long.cost(199_999, 0, 0) + 12


def test_without_the_price_of_a_dollar_nothing_has_a_price() -> None:
    assert look_up([(_OPENAI, "gpt-4o-mini")], None) == {}
