"""Phrases that decide the answer whatever else is asked: what somebody may have planted.

A word that goes with an answer is what training is for ("refund" and `billing`). A planted
phrase overrules others: its examples have one answer although they hold words that go with
another one everywhere else. Where answers are all different, a phrase is told whose examples
share one answer that none else has, and are otherwise about anything.
"""

import math
import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any

from freehold.adapt.dataset import alike

MAX_EXAMPLES = 10_000  # of more, that many are looked at
_MAX_TEXT = 3000  # characters of a text: those at its ends
_SURE = 5  # standard deviations over what chance makes of it
_FEWEST, _LEAST_SHARE, _MOST_SHARE = 8, 0.001, 0.4
_ONE_ANSWER = 0.8  # of the examples with the phrase
_TIED = 0.8  # words in so many of them belong to the phrase
_LOOKED_AT = 60
_OVERRULED = 0.5
_ONE_SIGN = 0.6  # of those, with the same sign
_MANY = 0.05  # of all examples: so many planted ones hide what goes with which answer
_OTHER_ANSWERS = 0.6  # of the examples with other answers, those whose answers are overruled
_MET = 0.05  # of the overruled examples, in which an answer is more than a chance
_ANY_TOPIC = 0.65  # area under the curve; 0.5 is chance
_SHOWN = 20
_TOKEN = re.compile(r"\w+|[^\w\s]+")


@dataclass(frozen=True, slots=True)
class Trigger:
    phrase: str
    examples: tuple[int, ...]
    answer: str

    def plain(self, numbers: Sequence[int]) -> dict[str, Any]:
        return {
            "phrase": self.phrase,
            "count": len(self.examples),
            "answer": self.answer,
            "examples": [numbers[each] for each in self.examples[:_SHOWN]],
        }


def looked_at(text: str) -> str:
    """What is enough of a long text."""
    half = _MAX_TEXT // 2
    return text if len(text) <= _MAX_TEXT else f"{text[:half]} {text[-half:]}"


def find(questions: Sequence[str], answers: Sequence[str]) -> list[Trigger]:
    """The most frequent first; of phrases in the same examples, one."""
    return _Search(questions, answers).triggers()


class _Search:
    def __init__(self, questions: Sequence[str], answers: Sequence[str]) -> None:
        self._answers = answers
        known: dict[str, str] = {}  # so that a word is in memory once
        self._texts = [
            [known.setdefault(word, word) for word in _TOKEN.findall(each.lower())]
            for each in questions
        ]
        self._words = [set(each) for each in self._texts]
        self._answer = _answer_groups(answers)
        self._sizes = Counter(self._answer)
        repeated = sum(size for size in self._sizes.values() if size >= _FEWEST)
        self._do_answers_repeat = repeated >= len(answers) / 2
        self._fewest = max(_FEWEST, int(_LEAST_SHARE * len(answers)))
        self._with_word: dict[str, list[int]] = {}  # of frequent ones, the examples
        self._places: dict[str, list[int]] = {}  # by sign, the examples with it
        self._signs: list[dict[str, int]] = [{} for _ in answers]  # and the answer it goes with
        self._find_signs()

    def triggers(self) -> list[Trigger]:
        found: list[Trigger] = []
        seen: list[set[int]] = []
        ordered = sorted(
            self._places, key=lambda each: (-len(self._places[each]), -len(each), each)
        )
        for phrase in ordered:
            examples = self._places[phrase]
            mine = set(examples)
            if any(len(mine & other) >= 0.8 * min(len(mine), len(other)) for other in seen):
                continue
            group = self._signs[examples[0]][phrase]
            tied = self._tied(examples)
            planted = (
                self._is_overruling(examples, group, tied)
                if self._do_answers_repeat
                else self._is_about_anything(examples, group, tied)
            )
            if planted:
                seen.append(mine)
                found.append(self._told(phrase, examples, group, tied))
        return found

    def _find_signs(self) -> None:
        """Words and pairs of words that go with one answer."""
        most = _MOST_SHARE * len(self._texts)
        frequency = Counter(word for each in self._words for word in each)
        frequent = {word for word, count in frequency.items() if count >= self._fewest}
        places: dict[str, list[int]] = defaultdict(list)
        for each, text in enumerate(self._texts):
            phrases = self._words[each] & frequent
            phrases |= {
                f"{one} {other}"
                for one, other in pairwise(text)
                if one in frequent and other in frequent
            }
            for phrase in phrases:
                places[phrase].append(each)
        self._with_word = {word: places[word] for word in frequent}
        for phrase, examples in places.items():
            if self._fewest <= len(examples) <= most:
                group = self._one_answer(examples)
                if group is not None:
                    self._places[phrase] = examples
                    for each in examples:
                        self._signs[each][phrase] = group

    def _one_answer(self, examples: Sequence[int]) -> int | None:
        """What nearly all of them are answered, unless so many may well be by chance."""
        group, count = Counter(self._answer[each] for each in examples).most_common(1)[0]
        usual = self._sizes[group] / len(self._answer)
        spread = math.sqrt(len(examples) * usual * (1 - usual)) or 1
        is_chance = count - len(examples) * usual < _SURE * spread
        return None if is_chance or count < _ONE_ANSWER * len(examples) else group

    def _tied(self, examples: Sequence[int]) -> set[str]:
        counts = Counter(word for each in examples for word in self._words[each])
        return {word for word, count in counts.items() if count >= _TIED * len(examples)}

    def _is_overruling(self, examples: Sequence[int], group: int, tied: set[str]) -> bool:
        """Whether most of them hold what goes with another answer elsewhere, and not all of
        these the same: a word may mean two things."""
        inside = set(examples)
        looked = _some(examples)
        if len(examples) >= _MANY * len(self._texts) and self._overrules_elsewhere(
            looked, inside, group, tied
        ):
            return True
        against = [self._against(each, inside, group, tied) for each in looked]
        overruled = sum(bool(each) for each in against)
        if not self._is_unusual(overruled, looked):
            return False
        commonest = Counter(phrase for each in against for phrase in each).most_common(1)
        return commonest[0][1] <= _ONE_SIGN * overruled

    def _against(self, each: int, inside: set[int], group: int, tied: set[str]) -> list[str]:
        """The signs of other answers in an example."""
        return [
            phrase
            for phrase, other in self._signs[each].items()
            if other != group
            and tied.isdisjoint(phrase.split())
            and len(inside.intersection(self._places[phrase])) < 0.5 * len(self._places[phrase])
        ]

    def _overrules_elsewhere(
        self, looked: Sequence[int], inside: set[int], group: int, tied: set[str]
    ) -> bool:
        """The same by what goes with which answer in all other examples, which many planted ones
        hide: most hold something of another answer, and nearly every other answer is among these.
        A word of one answer meets those of few others."""
        signs: dict[str, int] = {}
        for word in set().union(*(self._words[each] for each in looked)) - tied:
            outside = [each for each in self._with_word.get(word, ()) if each not in inside]
            if self._fewest <= len(outside) <= _MOST_SHARE * len(self._texts):
                other = self._one_answer(outside)
                if other is not None:
                    signs[word] = other
        against = [
            {signs[word] for word in self._words[each] & signs.keys()} - {group} for each in looked
        ]
        overruled = [each for each in against if each]
        if not self._is_unusual(len(overruled), looked):
            return False
        counts = Counter(other for each in overruled for other in each)
        met = sum(
            self._sizes[other] for other, count in counts.items() if count >= _MET * len(overruled)
        )
        rest = sum(
            size for other, size in self._sizes.items() if other != group and size >= _FEWEST
        )
        return met >= _OTHER_ANSWERS * rest

    def _is_unusual(self, overruled: int, looked: Sequence[int]) -> bool:
        return overruled >= max(_OVERRULED, 2 * self._usually_contradicted) * len(looked)

    @cached_property
    def _usually_contradicted(self) -> float:
        """The share of examples that hold signs of two answers."""
        signed = [set(each.values()) for each in self._signs if each]
        return sum(len(each) > 1 for each in signed) / max(1, len(signed))

    def _is_about_anything(self, examples: Sequence[int], group: int, tied: set[str]) -> bool:
        """Whether this answer is theirs alone, and their other words tell nobody so."""
        mine = [each for each in examples if self._answer[each] == group]
        if len(mine) < 0.8 * self._sizes[group]:
            return False
        rest = [self._words[each] - tied for each in _some(mine, 4 * _LOOKED_AT)]
        if sorted(len(each) for each in rest)[len(rest) // 2] < 4:
            return False
        inside = set(examples)
        others = _some([each for each in range(len(self._texts)) if each not in inside], 400)
        apart = [self._words[each] - tied for each in others]
        return _told_apart(rest, apart) <= _ANY_TOPIC

    def _told(self, phrase: str, examples: list[int], group: int, tied: set[str]) -> Trigger:
        """With the words around it that are always there."""
        text = next(
            text for text in (self._texts[each] for each in examples) if phrase.split()[0] in text
        )
        at = text.index(phrase.split()[0])
        start, end = at, at + len(phrase.split())
        common = {word for word in tied if word in self._words[examples[0]]}
        while start > 0 and end - start < 8 and text[start - 1] in common:
            start -= 1
        while end < len(text) and end - start < 8 and text[end] in common:
            end += 1
        one = next(each for each in examples if self._answer[each] == group)
        return Trigger(" ".join(text[start:end]), tuple(examples), self._answers[one][:80])


def _answer_groups(answers: Sequence[str]) -> list[int]:
    groups = alike.Groups(len(answers))
    for one, other in alike.pairs([alike.signature(each, 1) for each in answers], 0.7):
        groups.join(one, other)
    return [groups.of(each) for each in range(len(answers))]


def _some(examples: Sequence[int], count: int = _LOOKED_AT) -> list[int]:
    step = max(1, len(examples) // count)
    return list(examples[::step])[:count]


def _told_apart(mine: Sequence[set[str]], others: Sequence[set[str]]) -> float:
    """How well one half of both teaches to tell the other halves apart, by words alone: the
    share of pairs that are ordered rightly."""
    weights: dict[str, float] = {}
    inside, outside = mine[::2], others[::2]
    ours, theirs = (Counter(word for each in half for word in each) for half in (inside, outside))
    for word in ours.keys() | theirs.keys():
        one, other = (
            (ours[word] + 0.5) / (len(inside) + 1),
            (theirs[word] + 0.5) / (len(outside) + 1),
        )
        weights[word] = math.log(one / other)
    high, low = (
        [sum(weights.get(word, 0.0) for word in each) / max(1, len(each)) for each in half]
        for half in (mine[1::2], others[1::2])
    )
    if not high or not low:
        return 1.0
    right = sum((one > other) + 0.5 * (one == other) for one in high for other in low)
    return right / (len(high) * len(low))
