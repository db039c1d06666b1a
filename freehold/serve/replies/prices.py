from pydantic import BaseModel

from freehold.serve.replies.fields import Count


class PriceRates(BaseModel):
    """Micro-units for a million tokens, for requests with so many tokens in or more."""

    from_tokens_in: Count
    input: Count
    output: Count
    cached: Count


class ModelPrice(BaseModel):
    model: str
    upstream: str | None
    source: str
    rates: list[PriceRates]


class MachineCost(BaseModel):
    """Micro-units. `billed` in these hours, beside what the machine `cost`; `busy_enough` is
    the share of busy time at which these prices would have paid for it."""

    per_hour: Count
    source: str
    assumed: bool
    busy: float
    hours: float
    cost: Count
    billed: Count
    busy_enough: float | None


class PriceList(BaseModel):
    currency: str
    data: list[ModelPrice]
    machine: MachineCost | None
