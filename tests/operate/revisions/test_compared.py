"""When one revision is surely worse than another: never by chance, soon when it is so."""

import random
from dataclasses import replace

import pytest

from freehold.core.promotion import Watch
from freehold.core.usage import Outcome
from freehold.operate.revisions.compared import Answered, Thumbs, compared, is_more, tail

_NONE = Thumbs(0, 0)


def _asked(count: int, failed: int = 0, ttft_ms: float = 50, seed: int = 1) -> list[Answered]:
    chance = random.Random(seed)
    made = []
    for number in range(count):
        outcome = Outcome.ENGINE_FAILED if number < failed else Outcome.OK
        first = int(chance.lognormvariate(0, 0.5) * ttft_ms * 1000)
        made.append(Answered(outcome, first, first + 31 * 20_000, 32))
    return made


def _worse(
    new: list[Answered], old: list[Answered], watch: Watch | None = None, liked: Thumbs = _NONE,
    liked_old: Thumbs = _NONE, marked: tuple[int, ...] = (), marked_old: tuple[int, ...] = (),
) -> str | None:  # fmt: skip
    found = compared(new, old, liked, liked_old, marked, marked_old, watch or Watch())
    return found.worse


def test_equals_are_not_told_apart_in_hundreds_of_looks() -> None:
    """Rules at their bounds would err once in a thousand looks; equals are well inside."""
    for seed in range(300):
        new, old = _asked(200, 2, seed=seed), _asked(400, 4, seed=1000 + seed)
        assert _worse(new, old) is None


@pytest.mark.parametrize(
    ("new", "old", "told"),
    [
        (_asked(30, 12), _asked(200), "12 of 30 requests failed, 0 of 200 before"),
        (_asked(30, 15), [], "15 of 30 requests failed, nothing answered before"),
        (_asked(200, ttft_ms=150), _asked(200, seed=2), "the first token takes"),
    ],
)
def test_what_is_worse_is_said(new: list[Answered], old: list[Answered], told: str) -> None:
    assert (_worse(new, old) or "").startswith(told)


def test_nothing_is_said_of_few_and_of_what_nobody_watches() -> None:
    assert _worse(_asked(19, 19), _asked(200)) is None
    assert _worse(_asked(30, 30), _asked(200), replace(Watch(), errors=None)) is None
    slow = _asked(200, ttft_ms=500)
    assert _worse(slow, _asked(49)) is None, "nobody knows yet what is slow"
    assert _worse(slow, _asked(200, seed=2), replace(Watch(), latency=None)) is None


def test_what_clients_did_is_nobodys_failure() -> None:
    gone = [Answered(Outcome.CLIENT_GONE, 50_000, 60_000, 1)] * 100
    refused = [Answered(Outcome.REFUSED, None, 10, 0)] * 100
    assert _worse(gone + refused, _asked(200)) is None


def test_thumbs_and_marks_need_enough_of_both() -> None:
    few, many = Thumbs(2, 17), Thumbs(10, 40)
    assert _worse([], [], liked=few, liked_old=Thumbs(90, 10)) is None
    told = _worse([], [], liked=many, liked_old=Thumbs(90, 10))
    assert told == "40 of 50 thumbs are down, 10 of 100 before"
    watch = Watch(judge="judge")
    assert _worse([], [], watch, marked=(2,) * 19, marked_old=(9,) * 50) is None
    told = _worse([], [], watch, marked=(2,) * 20, marked_old=(9,) * 50)
    assert told == "judge marks its answers 2.0 of 10, 9.0 before"
    assert _worse([], [], watch, marked=(8,) * 50, marked_old=(9,) * 50) is None, "by less than 1"


def test_the_chances_are_those_of_the_books() -> None:
    assert tail(5, 10, 0.5) == pytest.approx(638 / 1024)
    assert tail(0, 7, 0.05) == pytest.approx(1)
    assert not is_more((1, 20), (1, 20), 0.0)
    assert is_more((20, 20), (0, 20), 0.5)
