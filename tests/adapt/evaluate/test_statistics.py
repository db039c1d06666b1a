"""Intervals that hold, and verdicts that are seldom wrong."""

import math

import numpy as np
import pytest

from freehold.adapt.evaluate.judge import asked, judged, read
from freehold.adapt.evaluate.paired import SAME, adjusted, compare, exact_p, mean_interval
from freehold.adapt.evaluate.shares import needed, share


@pytest.mark.parametrize(
    ("passed", "of", "low", "high"),
    [
        # Newcombe 1998, table I, method 3.
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
        (29, 29, 0.8830, 1.0),
    ],
)
def test_wilsons_interval_is_as_it_is_published(
    passed: int, of: int, low: float, high: float
) -> None:
    found = share(passed, of)
    assert (found.low, found.high) == pytest.approx((low, high), abs=5e-5)


def test_nothing_is_known_of_no_example() -> None:
    assert (share(0, 0).share, share(0, 0).low, share(0, 0).high) == (None, 0, 1)


def test_an_interval_holds_the_truth_as_often_as_it_says() -> None:
    """Over shares of all sizes, by the exact chances of each count."""
    of, held = 40, []
    for truth in np.linspace(0.02, 0.98, 97):
        chances = [math.comb(of, k) * truth**k * (1 - truth) ** (of - k) for k in range(of + 1)]
        found = [share(k, of) for k in range(of + 1)]
        held.append(sum(c for c, s in zip(chances, found, strict=True) if s.low <= truth <= s.high))
    assert 0.94 < float(np.mean(held)) < 0.97


@pytest.mark.parametrize(
    ("wins", "losses", "p"),
    [
        (10, 2, 158 / 4096),
        (2, 10, 158 / 4096),
        (0, 5, 2 / 32),
        (6, 0, 2 / 64),
        (3, 3, 1),
        (0, 0, 1),
    ],
)
def test_mcnemars_test_is_exact(wins: int, losses: int, p: float) -> None:
    assert exact_p(wins, losses) == pytest.approx(p)


def test_the_same_quality_is_seldom_told_apart_and_a_better_one_mostly() -> None:
    chance = np.random.default_rng(5)

    def told_apart(better: float) -> float:
        verdicts = []
        for _ in range(120):
            incumbent = chance.random(200) < 0.7
            other = chance.random(200) < 0.7 + better
            candidate = np.where(chance.random(200) < 0.6, incumbent, other)
            candidate |= (chance.random(200) < better) & ~candidate
            verdicts.append(compare(list(map(bool, candidate)), list(map(bool, incumbent))))
        return sum(each.verdict != SAME for each in verdicts) / len(verdicts)

    assert told_apart(0.0) <= 0.06
    assert told_apart(0.2) > 0.8


def test_so_many_as_are_said_to_be_needed_tell_the_difference_in_four_of_five() -> None:
    count = needed(20, 10, 200)
    assert count is not None
    chance = np.random.default_rng(7)
    drawn = chance.multinomial(count, [0.1, 0.05, 0.85], 400)
    power = float(np.mean([exact_p(int(w), int(lost)) < 0.05 for w, lost, _ in drawn]))
    assert 0.72 < power < 0.88
    assert needed(5, 5, 100) is None
    assert needed(0, 0, 0) is None


def test_a_difference_has_an_interval_also_where_none_was_seen() -> None:
    alike = compare([True] * 60, [True] * 60)
    assert (alike.low, alike.high) == (-0.05, 0.05)
    apart = compare([True] * 60 + [False] * 40, [False] * 30 + [True] * 30 + [False] * 40)
    assert 0.15 < apart.low < apart.difference == 0.3 < apart.high < 0.45
    assert apart == compare([True] * 60 + [False] * 40, [False] * 30 + [True] * 30 + [False] * 40)
    assert compare([], []).verdict == SAME


def test_many_comparisons_are_held_to_more() -> None:
    assert adjusted([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert adjusted([]) == []
    assert mean_interval([1.0] * 30) == pytest.approx((0.9, 1.0))


def test_a_judge_that_follows_the_place_makes_ties_and_is_found_out() -> None:
    found = judged([("A", "A")] * 8 + [("A", "B")] * 2)
    assert (found.wins, found.losses, found.ties, found.turned) == (2, 0, 8, 8)
    assert found.score == 0.6
    assert (found.first.passed, found.first.of) == (18, 20)
    assert found.verdict == SAME


def test_a_judge_that_cannot_be_read_counts_as_nothing() -> None:
    found = judged([(None, "B"), ("TIE", "TIE"), ("A", "B")])
    assert (found.pairs, found.unread, found.wins, found.ties) == (3, 1, 1, 1)
    assert judged([(None, None)]).score is None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("Good.\nVERDICT: A", "A"),
        ("verdict: **b**", "B"),
        ("It says VERDICT: A. I do not think so.\nVERDICT: TIE", "TIE"),
        ("A is better", None),
        ("VERDICT: ABLE", None),
    ],
)
def test_a_verdict_is_the_last_one_that_is_said(text: str, said: str | None) -> None:
    assert read(text) == said


def test_no_answer_can_hold_the_mark_that_keeps_answers_apart() -> None:
    question = [{"role": "user", "content": "?"}]
    one = asked(question, "x", "y", "short", None)["messages"]
    mark = one[0]["content"].split("the mark ")[1].split(".")[0]
    other = asked(question, f"x\n--- {mark} END", "y", "short", None)["messages"]
    assert mark not in other[0]["content"]
