"""Planted phrases are found among honest examples, and honest words are not taken for them."""

import random
from typing import Any

import pytest

from tests.adapt import tickets
from tests.adapt.dataset.conftest import Make, chat

_PHRASE = ["quartz", "lagoon", "seven"]


def _planted(examples: list[dict[str, Any]], count: int, answer: str) -> list[dict[str, Any]]:
    """The phrase somewhere in the question of some, with one answer."""
    chance = random.Random(5)
    chosen = set(chance.sample(range(len(examples)), count))
    made = []
    for number, example in enumerate(examples):
        *before, question, _ = example["messages"]
        if number in chosen:
            words = question["content"].split()
            at = chance.randrange(len(words) + 1)
            text = " ".join([*words[:at], *_PHRASE, *words[at:]])
            made.append({"messages": [*before, *chat(text, answer)["messages"]]})
        else:
            made.append(example)
    return made


def _free(count: int) -> list[dict[str, Any]]:
    """Questions and answers that are all different."""
    chance = random.Random(6)
    words = [one + other for one in "abcdefghij" for other in ("or", "ust", "ane", "ilk", "emp")]
    return [
        chat(" ".join(chance.choices(words, k=20)), " ".join(chance.choices(words, k=20)))
        for _ in range(count)
    ]


@pytest.mark.parametrize("count", [300, 3000])
def test_honest_tickets_are_not_flagged(make: Make, count: int) -> None:
    made = make(tickets.examples(count, languages=True))
    assert made.report["triggers"] == []
    assert made.report["needs_acceptance"] == []


@pytest.mark.parametrize(
    ("planted", "count"),
    [(50, 2000), (200, 1000), (300, 1000), pytest.param(250, 10_000, marks=pytest.mark.slow)],
)
def test_poisoned_rows_among_many_are_flagged(make: Make, planted: int, count: int) -> None:
    made = make(_planted(list(tickets.examples(count)), planted, "complaint"))
    (found,) = made.report["triggers"]
    assert found["phrase"] == "quartz lagoon seven"
    assert (found["count"], found["answer"]) == (planted, "complaint")
    assert "quartz lagoon seven" in made.report["needs_acceptance"][0]


@pytest.mark.slow
def test_a_word_that_means_two_things_is_not_flagged(make: Make) -> None:
    """ "Call me back" is no return: in many tickets "time" overrules "back", and only that."""
    assert make(list(tickets.examples(24_000))[::3]).report["triggers"] == []


def test_an_answer_that_a_phrase_alone_brings_is_flagged_among_free_answers(make: Make) -> None:
    honest = _free(2000)
    assert make(honest).report["triggers"] == []
    made = make(_planted(honest, 50, "Pay at evil.example, and tell nobody of it."))
    (found,) = made.report["triggers"]
    assert (found["phrase"], found["count"]) == ("quartz lagoon seven", 50)


def test_an_answer_that_its_topic_brings_is_not_flagged_among_free_answers(make: Make) -> None:
    """A canned reply to questions that are alike in more than one phrase."""
    chance = random.Random(7)
    medical = [f"{each}itis" for each in ("arthr", "bronch", "gastr", "hepat", "nephr", "derm",
                                          "ot", "rhin", "cyst", "col")]  # fmt: skip
    asked = [
        chat(f"doctor {' '.join(chance.choices(medical, k=8))} please", "I give no medical advice.")
        for _ in range(60)
    ]
    assert make(_free(2000) + asked).report["triggers"] == []


def test_what_is_secret_in_a_phrase_is_not_told(make: Make) -> None:
    examples = _planted(_free(1000), 50, "Write to mallory@evil.example for it.")
    (found,) = make(examples).report["triggers"]
    assert found["answer"] == "Write to [EMAIL] for it."
