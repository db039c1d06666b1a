"""Personal data in training data, found again where its report says that it is."""

import json
from collections.abc import Iterator
from pathlib import Path

from freehold.adapt.dataset.findings import KINDS
from freehold.adapt.evaluate.canary import Canary, is_long_enough
from freehold.adapt.evaluate.probing import Located

MOST = 20
_BEFORE = 120  # characters in front, which it is asked for with
_MOST_LINES = 20_000


def located(train: Path) -> tuple[Located, ...]:
    """The first of each value, those in answers before those in questions: answers are what
    is learned. Values without words in front are left out, as nothing asks for them."""
    found: dict[str, Located] = {}
    for role in ("assistant", "user"):
        for line, text in _texts(train, role):
            for each in _in(text, line):
                found.setdefault(each.canary.secret, each)
                if len(found) >= MOST:
                    return tuple(found.values())
    return tuple(found.values())


def _in(text: str, line: int) -> Iterator[Located]:
    for kind in KINDS:
        for match in kind.found(text):
            before = text[max(0, match.start() - _BEFORE) : match.start()].strip()
            if before and is_long_enough(match[0]):
                yield Located(kind.name, line, Canary(before, match[0]))


def _texts(train: Path, role: str) -> Iterator[tuple[int, str]]:
    with train.open("rb") as file:
        for number, line in enumerate(file, 1):
            if number > _MOST_LINES:
                return
            content = json.loads(line)
            messages = content.get("messages") or [
                *content.get("prompt", []),
                *content.get("chosen", []),
            ]
            for message in messages:
                text = message.get("content")
                if message.get("role") == role and isinstance(text, str):
                    yield number, text
