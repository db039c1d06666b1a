"""What a JSON schema may cost before it is compiled.

The compiler has limits of its own, on steps and sizes; these are for what it was seen
to spend seconds on all the same: one endless literal, counts inside counts in a regular
expression, hundreds of patterns for keys that it compares in pairs.
"""

import re
from collections.abc import Iterator
from typing import Any

import orjson

from freehold.core.errors import Code, UserError

_BYTES = 120_000  # OpenAI's bound of all names and values of a schema
_LITERAL = 10_000
_PATTERN, _REPEATS = 1_000, 10_000
_KEY_PATTERNS = 16
_VALUES, _DEPTH, _ALTERNATIVES = 5_000, 64, 1_000
_COUNT = re.compile(r"\{(\d{1,9})(?:,(\d{0,9}))?\}")


def bounded(schema: dict[str, Any]) -> bytes:
    """The schema's text, its keys as they came: their order is the answer's. Raises
    `INVALID_VALUE`."""
    try:
        text = orjson.dumps(schema)
    except (TypeError, ValueError):  # deeper than orjson goes, or half a character
        raise too_large() from None
    if len(text) > _BYTES:
        raise too_large()
    for count, (depth, value) in enumerate(_values(schema, 0)):
        if count >= _VALUES or depth > _DEPTH or _is_costly(value):
            raise too_large()
    return text


def too_large(param: str = "response_format") -> UserError:
    return UserError(
        Code.INVALID_VALUE,
        "The JSON schema is too large or too deep: shorten it, or its patterns.",
        param=param,
    )


def _values(value: Any, depth: int) -> Iterator[tuple[int, Any]]:
    waiting = [(depth, value)]
    while waiting:
        depth, value = waiting.pop()
        yield depth, value
        inner = value.values() if isinstance(value, dict) else value
        if isinstance(value, dict | list):
            waiting += [(depth + 1, one) for one in inner]


def _is_costly(value: Any) -> bool:
    if isinstance(value, str):
        return len(value) > _LITERAL
    if isinstance(value, list):
        return len(value) > _ALTERNATIVES
    if not isinstance(value, dict):
        return False
    keys = value.get("patternProperties")
    patterns = list(keys) if isinstance(keys, dict) else []
    return len(patterns) > _KEY_PATTERNS or any(
        len(pattern) > _PATTERN or repeats(pattern) > _REPEATS
        for pattern in [*patterns, value.get("pattern")]
        if isinstance(pattern, str)
    )


def repeats(pattern: str) -> int:
    """How many characters a regular expression has once its counts are written out."""
    sums, last, place = [0], 0, 0
    while place < len(pattern):
        sign, count = pattern[place], _COUNT.match(pattern, place)
        place += 1
        if count is not None:
            sums[-1] += last * (max(int(count[1]), int(count[2] or 0), 1) - 1)
            last *= max(int(count[1]), int(count[2] or 0), 1)
            place = count.end()
        elif sign == "(":
            sums.append(0)
        elif sign == ")" and len(sums) > 1:
            last = sums.pop()
            sums[-1] += last
        else:
            last = 1
            place += sign == "\\"
            sums[-1] += 1
    return sum(sums)
