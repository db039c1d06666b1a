import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from freehold.decide.money.assumptions import Assumptions
from freehold.decide.money.availability import at_least, spread

_ASSUMED = Assumptions().given({"replica_availability": 0.99, "zone_availability": 1})


def test_one_of_two_is_up_unless_both_are_down():
    assert at_least(1, 2, 0.99) == pytest.approx(0.9999, abs=1e-12)
    # Two of three: 0.99³ + 3 × 0.99² × 0.01 = 0.970299 + 0.029403.
    assert at_least(2, 3, 0.99) == pytest.approx(0.999702, abs=1e-12)
    assert at_least(0, 0, 0.5) == at_least(3, 3, 1.0) == 1.0
    assert at_least(3, 2, 0.99) == 0.0
    # Of a thousand, each up for half of the time, some 500 are: 1 / √(2π · 250) is 0.0252.
    assert at_least(500, 1000, 0.5) == pytest.approx(0.5 + 0.0252 / 2, abs=1e-3)


def test_one_more_than_is_needed_reaches_what_one_alone_does_not():
    assert spread(1, 0.99, 3, _ASSUMED).replicas == 1
    assert spread(1, 0.999, 3, _ASSUMED).replicas == 2
    assert spread(2, 0.9998, 3, _ASSUMED).replicas == 4


def test_above_what_a_zone_has_there_must_be_another():
    # Replicas that are always up, zones up for 99.9 %: two of them 99.9999 %.
    zoned = Assumptions().given({"replica_availability": 1, "zone_availability": 0.999})
    assert spread(1, 0.999, 3, zoned).zones == 1
    found = spread(3, 0.9999, 3, zoned)
    # Any two of three zones must have three: two each are six; two zones of three are six too.
    assert (found.replicas, found.zones) == (6, 2)


def test_in_one_place_there_is_no_more_than_the_place_has():
    one_room = Assumptions().given({"zone_availability": 0.999})
    assert spread(1, 0.9999, 1, one_room) is None
    assert spread(1, 0.998, 1, one_room) is not None


def test_without_a_target_it_is_what_is_needed():
    assert spread(3, None, 3, _ASSUMED).replicas == 3


@settings(max_examples=40)
@given(st.integers(1, 12), st.sampled_from([0.9, 0.99, 0.999, 0.9999]))
def test_what_is_found_is_enough_and_a_higher_target_never_needs_fewer(needed, target):
    found, lower = spread(needed, target, 3, Assumptions()), spread(needed, 0.9, 3, Assumptions())
    assert found.reached >= target - 1e-12
    assert found.replicas >= lower.replicas >= needed
