"""PEFT's `rank_pattern` and `alpha_pattern`: values by patterns of module names.

The first key that matches `(.*\\.)?(key)$` as a regular expression gives the value
(PEFT's `get_pattern_key`). The keys come from strangers and Python's matcher takes
exponential time for some, so only expressions of bounded cost are followed.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

# Names, dots, classes, alternatives, and * + ? after a single character.
_PLAIN = re.compile(r"(?:[A-Za-z0-9_.|^$()*+?-]|\\[.d_-]|\[\^?[A-Za-z0-9_.-]+\])*\Z")
_COSTLY = re.compile(r"\(\?|\)[*+?]|--")
_MAX_LENGTH, _MAX_MATCHERS, _MAX_KEYS = 200, 256, 4096
_MAX_COST = 50_000  # steps of the matcher for one name, over all patterns
_LONGEST_NAME = 60


class Patterns:
    def __init__(self, values: Mapping[str, Any], modules: Sequence[str]) -> None:
        """`modules` are all full names; keys that are such names need no matcher."""
        full = set(modules)
        self._values = values
        self._places = {key: place for place, key in enumerate(values) if key in full}
        self._matchers = [
            (place, re.compile(rf"(?:.*\.)?(?:{key})$"), key)
            for place, key in enumerate(values)
            if key not in full
        ]

    @classmethod
    def of(cls, values: Mapping[str, Any], modules: Sequence[str]) -> "Patterns | None":
        """None when a key is no regular expression, or one that may cost too much."""
        matchers = values.keys() - set(modules)
        if len(values) > _MAX_KEYS or len(matchers) > _MAX_MATCHERS:
            return None
        if not all(map(_is_plain, values)) or sum(map(_cost, matchers)) > _MAX_COST:
            return None
        try:
            return cls(values, modules)
        except re.error:
            return None

    def find(self, module: str, default: Any) -> Any:
        own_place = self._places.get(module, len(self._values))
        for place, matcher, key in self._matchers:
            if place > own_place:
                break
            if matcher.match(module):
                return self._values[key]
        return self._values.get(module, default)


def _is_plain(key: str) -> bool:
    return len(key) <= _MAX_LENGTH and bool(_PLAIN.match(key)) and not _COSTLY.search(key)


def _cost(key: str) -> int:
    """At most so many ways lead through the expression."""
    ways: int = (1 + key.count("|")) ** max(1, key.count("("))
    repeats: int = _LONGEST_NAME ** sum(map(key.count, "*+?"))
    return ways * repeats
