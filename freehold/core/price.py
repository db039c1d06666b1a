"""What tokens cost, and what a request did."""

from dataclasses import dataclass
from decimal import ROUND_CEILING, Decimal
from functools import cached_property

MILLION = 1_000_000


def micro(amount: Decimal) -> int:
    """Micro-units, rounded up."""
    return int((amount * MILLION).to_integral_value(ROUND_CEILING))


@dataclass(frozen=True, slots=True)
class Rates:
    """Micro-units of the configured currency per million tokens. `cached` is for those
    tokens of a prompt that were read from a cache."""

    input: int
    output: int
    cached: int

    def cost(self, tokens_in: int, tokens_cached: int, tokens_out: int) -> int:
        """Micro-units, rounded up, so that what was used is never free."""
        cached = min(tokens_cached, tokens_in)
        total = (tokens_in - cached) * self.input + cached * self.cached + tokens_out * self.output
        return -(-total // MILLION)


@dataclass(frozen=True)
class Price:
    """`tiers`: with so many tokens in and more, all tokens of a request cost these rates
    instead, ascending. `source` tells people where the price is from."""

    rates: Rates
    tiers: tuple[tuple[int, Rates], ...] = ()
    source: str = ""

    def cost(self, tokens_in: int, tokens_cached: int, tokens_out: int) -> int:
        rates = self.rates
        for start, dearer in self.tiers:
            if tokens_in >= start:
                rates = dearer
        return rates.cost(tokens_in, tokens_cached, tokens_out)

    def most(self, tokens_in: int, tokens_out: int) -> int:
        """What a request costs at most that has no more tokens than these."""
        candidates = [self.rates, *(rates for start, rates in self.tiers if tokens_in >= start)]
        return max(
            Rates(max(each.input, each.cached), each.output, 0).cost(tokens_in, 0, tokens_out)
            for each in candidates
        )

    @cached_property
    def written(self) -> str:
        """One line, as the ledger keeps it with each request."""
        steps = [(0, self.rates), *self.tiers]
        return ";".join(
            f"{start}:{rates.input}/{rates.output}/{rates.cached}" for start, rates in steps
        )


def read_price(text: str) -> Price:
    """What `written` wrote. Raises `ValueError`."""
    steps = []
    for step in text.split(";"):
        start, _, rates = step.partition(":")
        given, made, cached = map(int, rates.split("/"))
        steps.append((int(start), Rates(given, made, cached)))
    return Price(steps[0][1], tuple(steps[1:]))
