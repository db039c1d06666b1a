"""What is usual for a key is learned, and what departs from it is noticed."""

import json
from typing import Any

import pytest

from freehold.secure.pattern import Departure, Pattern, as_stored, from_stored

_HOUR, _DAY = 3600, 86_400
_MONDAY = 1_789_948_800


def _office(
    pattern: Pattern, days: range, network: str = "desk", scale: int = 1
) -> list[Departure]:
    """Each weekday from nine to five, some thirty requests an hour."""
    found = []
    for day in days:
        for hour in range(9, 17) if day % 7 < 5 else ():
            for minute in range(0, 60, 10):
                at_s = _MONDAY + day * _DAY + hour * _HOUR + minute * 60
                count = (4 + (day + hour + minute // 10) % 3) * scale
                departure = pattern.observe(at_s, "desk", "small", count, count * 500)
                if departure is not None:
                    found.append(departure)
    return found


@pytest.fixture
def learned() -> Pattern:
    pattern = Pattern()
    assert _office(pattern, range(21)) == []
    return pattern


def test_another_network_at_night_for_another_model_is_noticed_at_once(learned: Pattern) -> None:
    night = _MONDAY + 21 * _DAY + 2 * _HOUR
    found = learned.observe(night, "elsewhere", "large", 3, 900)
    assert found is not None
    assert set(found.why) == {"network", "model", "hour"}
    assert learned.observe(night + 60, "elsewhere", "large", 3, 900) is None, "once is enough"


def test_one_thing_that_is_new_is_nothing_yet(learned: Pattern) -> None:
    for network, model, hour in (("hotel", "small", 10), ("desk", "large", 34)):
        at_s = _MONDAY + 21 * _DAY + hour * _HOUR
        assert learned.observe(at_s, network, model, 5, 2500) is None
    saturday = _MONDAY + 26 * _DAY + 11 * _HOUR
    assert learned.observe(saturday, "desk", "small", 5, 2500) is None


def test_an_unknown_network_beside_the_known_one_is_noticed(learned: Pattern) -> None:
    noon = _MONDAY + 21 * _DAY + 12 * _HOUR
    assert learned.observe(noon, "elsewhere", "small", 1, 500) is None
    assert learned.observe(noon + 600, "desk", "small", 5, 2500) is None
    found = learned.observe(noon + 1200, "elsewhere", "small", 1, 500)
    assert found is not None
    assert {"network", "beside"} <= set(found.why)


def test_a_volume_many_times_as_large_is_noticed_and_growth_is_not(learned: Pattern) -> None:
    assert _office(from_stored(as_stored(learned)), range(21, 23), scale=6)
    growing = Pattern()
    for day in range(40):
        assert _office(growing, range(day, day + 1), scale=1 + day // 8) == []


def test_what_somebody_confirmed_is_usual_from_then_on(learned: Pattern) -> None:
    night = _MONDAY + 21 * _DAY + 2 * _HOUR
    assert learned.observe(night, "elsewhere", "large", 3, 900) is not None
    learned.confirm()
    assert learned.usual() == ({"desk", "elsewhere"}, {"small", "large"})
    assert learned.observe(night + _DAY, "elsewhere", "large", 3, 900) is None


def test_what_is_kept_is_small_and_goes_on_where_it_was(learned: Pattern) -> None:
    stored: dict[str, Any] = json.loads(json.dumps(as_stored(learned)))
    assert len(json.dumps(stored)) < 8000
    again = from_stored(stored)
    assert again == learned
    night = _MONDAY + 21 * _DAY + 2 * _HOUR
    assert again.observe(night, "elsewhere", "large", 3, 900) is not None


def test_nothing_is_said_while_it_is_learned() -> None:
    pattern = Pattern()
    for day in range(5):
        for number in range(20):
            at_s = _MONDAY + day * _DAY + number * _HOUR
            assert pattern.observe(at_s, f"network {number}", f"model {day}", 50, 10) is None
