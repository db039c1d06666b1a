"""What limits still allow: never more is granted than there is, and nothing is lost."""

from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from freehold.core.errors import Code, UserError
from freehold.core.limit import DAY_US, Limit, Measure, Period, Use, window
from freehold.secure.quota import Hold, Moment, Quota

_MIDDAY = 20_000 * DAY_US + DAY_US // 2


def _limit(measure: Measure, period: Period, amount: int, name: str = "lim_1") -> Limit:
    return Limit(name, "ten_a", None, None, measure, period, amount, False, 0)


def _now(wall_us: int = _MIDDAY, monotonic_s: float = 1000.0) -> Moment:
    return Moment(wall_us, monotonic_s)


def _open(quota: Quota, *limits: Limit, used: int = 0, at_us: int = _MIDDAY) -> None:
    for limit in quota.unknown(limits, at_us):
        quota.open(limit, at_us)
        quota.opened(limit, at_us, used, 0)


def _held(quota: Quota, limit: Limit, most: Use, now: Moment | None = None) -> Hold:
    return quota.hold("req_1", [limit], most, most, now or _now())


def _refusal(ask: Callable[[], object]) -> UserError:
    with pytest.raises(UserError) as refused:
        ask()
    return refused.value


def test_a_budget_says_what_is_left_and_when_it_frees() -> None:
    quota, limit = Quota("EUR"), _limit(Measure.MONEY, Period.MONTH, 10_000_000)
    _open(quota, limit, used=9_500_000)
    error = _refusal(lambda: _held(quota, limit, Use(1, 10, 700_000)))
    assert error.code is Code.BUDGET_EXCEEDED
    assert error.message == (
        "The tenant has a budget of 10.00 EUR a month (lim_1) with 0.50 EUR left, and this "
        "request may take up to 0.70 EUR; it frees at 2024-11-01T00:00:00Z: ask for fewer tokens "
        "with max_tokens, or ask your administrator."
    )
    assert error.retry_after_s is None


def test_what_running_requests_hold_is_worth_waiting_for() -> None:
    quota, limit = Quota("USD"), _limit(Measure.TOKENS, Period.TOTAL, 100)
    _open(quota, limit)
    held = _held(quota, limit, Use(1, 80))
    error = _refusal(lambda: _held(quota, limit, Use(1, 30)))
    assert (error.code, error.retry_after_s) == (Code.RATE_LIMITED, 1)
    quota.settle(held, [limit], Use(1, 10), 1)
    _held(quota, limit, Use(1, 90))
    assert _refusal(lambda: _held(quota, limit, Use(1, 91))).code is Code.BUDGET_EXCEEDED


def test_all_limits_hold_and_a_refusal_takes_nothing() -> None:
    quota = Quota("USD")
    wide, narrow = (
        _limit(Measure.TOKENS, Period.DAY, 1000, "lim_wide"),
        _limit(Measure.REQUESTS, Period.DAY, 1, "lim_narrow"),
    )
    _open(quota, wide, narrow)
    quota.hold("req_1", [wide, narrow], Use(1, 10), Use(1, 10), _now())
    for _ in range(200):
        _refusal(lambda: quota.hold("req_1", [wide, narrow], Use(1, 10), Use(1, 10), _now()))
    assert quota.standing(wide, _now()).held == 10


def test_a_price_that_nobody_knows_is_no_price_of_nothing() -> None:
    quota, limit = Quota("USD"), _limit(Measure.MONEY, Period.TOTAL, 10**12)
    _open(quota, limit)
    assert _refusal(lambda: _held(quota, limit, Use(1, 1, None))).code is Code.PRICE_UNKNOWN


def test_a_minute_is_any_sixty_seconds() -> None:
    quota, limit = Quota("USD"), _limit(Measure.REQUESTS, Period.MINUTE, 3)
    for second in (0.0, 20.0, 40.0):
        _held(quota, limit, Use(1), _now(monotonic_s=second))
    error = _refusal(lambda: _held(quota, limit, Use(1), _now(monotonic_s=59.9)))
    assert error.code is Code.RATE_LIMITED
    assert error.retry_after_s == pytest.approx(1)
    _held(quota, limit, Use(1), _now(monotonic_s=60.0))
    error = _refusal(lambda: _held(quota, limit, Use(1), _now(monotonic_s=60.5)))
    assert error.retry_after_s == pytest.approx(19.5)
    _held(quota, limit, Use(1), _now(monotonic_s=80.0))


def test_a_minute_of_tokens_is_corrected_by_what_was_really_used() -> None:
    quota, limit = Quota("USD"), _limit(Measure.TOKENS, Period.MINUTE, 100)
    held = _held(quota, limit, Use(1, 90))
    _refusal(lambda: _held(quota, limit, Use(1, 20)))
    quota.settle(held, [limit], Use(1, 5), 1)
    _held(quota, limit, Use(1, 95))
    error = _refusal(lambda: _held(quota, limit, Use(1, 101)))
    assert error.retry_after_s is None
    assert "send a shorter one" in error.message


def test_a_correction_that_comes_after_the_minute_changes_nothing() -> None:
    quota, limit = Quota("USD"), _limit(Measure.TOKENS, Period.MINUTE, 100)
    held = _held(quota, limit, Use(1, 90), _now(monotonic_s=0))
    _held(quota, limit, Use(1, 60), _now(monotonic_s=61))
    quota.settle(held, [limit], Use(1, 1), 1)
    assert quota.standing(limit, _now(monotonic_s=61)).used == 60


def test_so_many_run_at_once_and_no_more() -> None:
    quota, limit = Quota("USD"), _limit(Measure.CONCURRENCY, Period.AT_ONCE, 2)
    first = _held(quota, limit, Use(1))
    _held(quota, limit, Use(1))
    assert _refusal(lambda: _held(quota, limit, Use(1))).retry_after_s == 1
    quota.settle(first, [limit], Use(1), 1)
    quota.release(first)  # a second end changes nothing
    _held(quota, limit, Use(1))
    assert quota.standing(limit, _now()).held == 2


def test_a_new_day_begins_anew_and_the_last_ones_requests_count_for_theirs() -> None:
    quota, limit = Quota("USD"), _limit(Measure.REQUESTS, Period.DAY, 1)
    _open(quota, limit)
    late = _held(quota, limit, Use(1))
    tomorrow = _now(_MIDDAY + DAY_US)
    assert quota.unknown([limit], tomorrow.wall_us) == [limit]
    _open(quota, limit, at_us=tomorrow.wall_us)
    quota.settle(late, [limit], Use(1), 1)
    assert quota.standing(limit, tomorrow).used == 0
    _held(quota, limit, Use(1), tomorrow)
    assert quota.standing(limit, _now()).used == 1, "also after a clock that jumps back"


def test_what_is_settled_while_the_use_before_is_read_is_counted_once() -> None:
    quota, limit = Quota("USD"), _limit(Measure.TOKENS, Period.TOTAL, 1000)
    quota.open(limit, _MIDDAY)
    free = [quota.hold("req_1", [], Use(), Use(), _now()) for _ in range(3)]
    for place, hold in enumerate(free, 1):
        quota.settle(hold, [limit], Use(1, 10), place)
    quota.opened(limit, _MIDDAY, 120, 2)  # the database had the first two
    assert quota.standing(limit, _now()).used == 130
    quota.opened(limit, _MIDDAY, 999, 3)  # of another that asked, too
    assert quota.standing(limit, _now()).used == 130


def test_a_limit_that_came_later_counts_the_requests_that_were_running() -> None:
    quota, limit = Quota("USD"), _limit(Measure.TOKENS, Period.DAY, 1000)
    running = quota.hold("req_1", [], Use(1, 500), Use(1, 500), _now())
    _open(quota, limit)
    quota.settle(running, [limit], Use(1, 321), 7)
    assert quota.standing(limit, _now()).used == 321


def test_months_and_days_are_those_of_the_calendar() -> None:
    leap = 19_782 * DAY_US  # 2024-02-29
    assert (window(Period.MONTH, leap).first, window(Period.MONTH, leap).until) == (19_754, 19_783)
    december = 20_088 * DAY_US + DAY_US - 1  # 2024-12-31, the last microsecond
    assert window(Period.MONTH, december).until == 20_089
    assert window(Period.DAY, december).ends_at_us == 20_089 * DAY_US
    assert window(Period.TOTAL, december).ends_at_us is None


@dataclass
class _Model:
    """What a ledger of everything would say."""

    used: int = 0
    holds: list[tuple[Hold, int]] = field(default_factory=list)


@settings(max_examples=200, deadline=None)
@given(
    st.integers(0, 60),
    st.lists(
        st.tuples(st.sampled_from(["hold", "settle", "release"]), st.integers(0, 25)), max_size=60
    ),
)
def test_used_and_held_never_exceed_the_amount(amount: int, steps: list[tuple[str, int]]) -> None:
    """As long as no request uses more than it was to use at most."""
    quota, limit, model = Quota("USD"), _limit(Measure.TOKENS, Period.DAY, amount), _Model()
    _open(quota, limit)
    for place, (step, number) in enumerate(steps):
        fits = model.used + sum(most for _, most in model.holds) + number <= amount
        if step == "hold":
            try:
                model.holds.append((_held(quota, limit, Use(1, number)), number))
                assert fits
            except UserError:
                assert not fits
        elif model.holds:
            hold, most = model.holds.pop(number % len(model.holds))
            if step == "settle":
                quota.settle(hold, [limit], Use(1, min(number, most)), place)
                model.used += min(number, most)
            else:
                quota.release(hold)
        standing = quota.standing(limit, _now())
        assert (standing.used, standing.held) == (model.used, sum(most for _, most in model.holds))
        assert standing.used + standing.held <= amount
