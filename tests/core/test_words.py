"""Figures as people say them."""

import pytest

from freehold.core.words import counted, lasting, size


def test_one_thing_is_said_in_the_singular() -> None:
    assert [counted(each, "epoch") for each in (0, 1, 2, 1200)] == [
        "0 epochs", "1 epoch", "2 epochs", "1,200 epochs",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0.2, "0 s"), (89, "89 s"), (90, "2 min"), (4054, "68 min"), (7200, "2.0 h")],
)
def test_times_are_said_in_units_that_can_be_pictured(seconds: float, said: str) -> None:
    assert lasting(seconds) == said


@pytest.mark.parametrize(
    ("count", "said"), [(12, "12 B"), (1000, "1.0 kB"), (908_826_163, "908.8 MB"), (2e9, "2.0 GB")]
)
def test_sizes_are_said_in_decimal_units(count: float, said: str) -> None:
    assert size(count) == said
