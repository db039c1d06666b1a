"""What is remembered of each example while its dataset is made; the text stays on the disk."""

import hashlib
from collections import Counter
from dataclasses import dataclass, field

from freehold.adapt.dataset import alike, labels
from freehold.adapt.dataset.example import Example, words
from freehold.adapt.dataset.findings import Findings
from freehold.adapt.dataset.language import language_of

_LONG_OPENING = 8  # words; "Hello" and "How can I help you?" make no two conversations one


@dataclass(slots=True)
class Index:
    numbers: list[int] = field(default_factory=list)
    digests: list[bytes] = field(default_factory=list)
    lengths: list[int] = field(default_factory=list)
    languages: Counter[str] = field(default_factory=Counter)
    findings: Findings = field(default_factory=Findings)
    dropped: Counter[str] = field(default_factory=Counter)
    repeated: int = 0
    unlearned: int = 0
    _known: set[bytes] = field(default_factory=set)
    _questions: list[bytes] = field(default_factory=list)
    _openings: list[bytes | None] = field(default_factory=list)
    _signatures: list[alike.Signature] = field(default_factory=list)
    _answers: list[str] | None = field(default_factory=list)

    def add(self, number: int, example: Example, line: bytes, length: int) -> bool:
        """Whether it is new."""
        digest = _digest(line)
        if digest in self._known:
            self.repeated += 1
            return False
        self._known.add(digest)
        self.numbers.append(number)
        self.digests.append(digest)
        self.lengths.append(length)
        self.unlearned += not example.is_learned
        question, answer = example.question, example.answer
        found = words(question)
        self._questions.append(_digest(" ".join(found).encode() or question.encode()))
        opening = words(example.opening)
        is_long = len(opening) >= _LONG_OPENING
        self._openings.append(_digest(" ".join(opening).encode()) if is_long else None)
        self._signatures.append(alike.signature(question))
        self.languages[language_of(f"{question}\n{answer}")] += 1
        if self._answers is not None:
            self._answers.append(answer)
            if len(answer) > labels.MAX_LABEL:
                self._answers = None
        return True

    def labelled(self) -> list[str] | None:
        return labels.labels_of(self._answers) if self._answers is not None else None

    def joined(self) -> alike.Groups:
        """Joins those whose questions are the same or nearly so."""
        groups = alike.Groups(len(self.numbers))
        _join_equal(groups, self._questions)
        for one, other in alike.pairs(self._signatures):
            groups.join(one, other)
        return groups

    def join_conversations(self, groups: alike.Groups) -> None:
        _join_equal(groups, self._openings)


def _join_equal(groups: alike.Groups, keys: "list[bytes] | list[bytes | None]") -> None:
    first: dict[bytes, int] = {}
    for each, key in enumerate(keys):
        if key is not None:
            groups.join(first.setdefault(key, each), each)


def _digest(text: bytes) -> bytes:
    return hashlib.blake2b(text, digest_size=16).digest()
