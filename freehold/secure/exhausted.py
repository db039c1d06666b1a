"""What people are told when a limit does not allow a request: which one, and when it frees."""

from dataclasses import dataclass
from datetime import UTC, datetime

from freehold.core.errors import Code, UserError
from freehold.core.limit import Limit, Measure, Period

_SOON_S = 1.0
_PERIODS = {Period.DAY: "a day", Period.MONTH: "a month", Period.TOTAL: "in total"}


@dataclass(frozen=True, slots=True)
class Exhausted:
    """`wanted` is None where nobody knows what the request would cost."""

    limit: Limit
    used: int
    held: int
    wanted: int | None
    frees_at_us: int | None = None
    retry_after_s: float | None = None


def refusal(found: Exhausted, currency: str) -> UserError:
    """429 where waiting for seconds helps, and `BUDGET_EXCEEDED` where it does not."""
    limit, wanted = found.limit, found.wanted
    whose = _whose(limit)
    if wanted is None:
        return UserError(
            Code.PRICE_UNKNOWN,
            f"{whose} has a budget in {currency}, and nobody said what this model costs: its "
            "operator sets `prices` in the settings.",
            param="model",
        )
    if limit.period is Period.AT_ONCE:
        return UserError(
            Code.RATE_LIMITED,
            f"{whose} may have {limit.amount} requests running at once ({limit.id}): try again "
            "when one has ended.",
            retry_after_s=_SOON_S,
        )
    if limit.period is Period.MINUTE:
        return _too_fast(found, whose)
    amount = f"{shown(limit.amount, limit.measure, currency)} {_PERIODS[limit.period]}"
    if found.used + wanted <= limit.amount:
        return UserError(
            Code.RATE_LIMITED,
            f"Running requests hold the rest of {whose[0].lower()}{whose[1:]}'s budget of {amount} "
            f"({limit.id}): try again when they have ended.",
            retry_after_s=_SOON_S,
        )
    left = max(0, limit.amount - found.used)
    frees = f"; it frees at {_when(found.frees_at_us)}" if found.frees_at_us is not None else ""
    told = f"{shown(left, limit.measure, currency)} left"
    if limit.measure is not Measure.REQUESTS and left:
        told += f", and this request may take up to {shown(wanted, limit.measure, currency)}"
    hint = "ask for fewer tokens with max_tokens, or " if left else ""
    return UserError(
        Code.BUDGET_EXCEEDED,
        f"{whose} has a budget of {amount} ({limit.id}) with {told}{frees}: {hint}ask your "
        "administrator.",
    )


def _too_fast(found: Exhausted, whose: str) -> UserError:
    limit, what = found.limit, found.limit.measure.value
    if found.retry_after_s is None:
        return UserError(
            Code.RATE_LIMITED,
            f"This request takes about {found.wanted:,} {what}, and {whose[0].lower()}{whose[1:]} "
            f"may use {limit.amount:,} a minute ({limit.id}): send a shorter one.",
        )
    return UserError(
        Code.RATE_LIMITED,
        f"{whose} may use {limit.amount:,} {what} a minute ({limit.id}), and {found.used:,} are "
        f"used: try again in {max(1, round(found.retry_after_s))} s.",
        retry_after_s=max(_SOON_S, found.retry_after_s),
    )


def shown(amount: int, measure: Measure, currency: str) -> str:
    """Money to the cent where it has no smaller parts."""
    if measure is not Measure.MONEY:
        return f"{amount:,} {measure.value}"
    whole, parts = divmod(amount, 1_000_000)
    digits = f"{parts:06d}".rstrip("0").ljust(2, "0")
    return f"{whole:,}.{digits} {currency}"


def _whose(limit: Limit) -> str:
    if limit.subject is not None:
        return "This key" if limit.subject.startswith("key_") else "This person"
    if limit.environment is not None:
        return f"The environment {limit.environment.value}"
    return "The tenant"


def _when(at_us: int) -> str:
    return datetime.fromtimestamp(at_us / 1e6, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
