"""A place in JSON, in the part of JSONPath that checks need: `$`, `.name`, `['name']`,
`[0]`, `[-1]`, and `[*]` or `.*` for each."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Any

_STEP = re.compile(
    r"""\.(?P<name>[^\W\d][\w-]*)|\[(?P<quote>['"])(?P<quoted>.*?)(?P=quote)\]"""
    r"""|\[(?P<index>-?\d{1,9})\]|(?P<each>\[\*\]|\.\*)"""
)
_MOST_STEPS = 32


class _Each(Enum):
    """No name is it, `*` neither."""

    EACH = 0


_EACH = _Each.EACH


@dataclass(frozen=True, slots=True)
class JsonPath:
    text: str
    steps: tuple[Any, ...]  # a name, an index, or `_EACH`

    def find(self, content: Any) -> list[Any]:
        """What is there, which may be nothing."""
        found = [content]
        for step in self.steps:
            found = [inner for each in found for inner in _inner(each, step)]
        return found


def parse(text: str) -> JsonPath:
    """Raises `ValueError` with why it is no path."""
    if not text.startswith("$"):
        raise ValueError("a path begins with `$`, as in `$.items[0].name`")
    steps: list[Any] = []
    at = 1
    while at < len(text):
        step = _STEP.match(text, at)
        if step is None:
            raise ValueError(
                f"`{text[at : at + 20]}` is no step: `.name`, `['name']`, `[0]`, `[*]`"
            )
        steps.append(_told(step))
        at = step.end()
    if len(steps) > _MOST_STEPS:
        raise ValueError(f"has more than {_MOST_STEPS} steps")
    return JsonPath(text, tuple(steps))


def _told(step: re.Match[str]) -> Any:
    if step["each"]:
        return _EACH
    if step["index"] is not None:
        return int(step["index"])
    return step["name"] if step["name"] is not None else step["quoted"]


def _inner(content: Any, step: Any) -> Iterator[Any]:
    if step is _EACH:
        if isinstance(content, dict):
            yield from content.values()
        elif isinstance(content, list):
            yield from content
    elif isinstance(step, int):
        if isinstance(content, list) and -len(content) <= step < len(content):
            yield content[step]
    elif isinstance(content, dict) and step in content:
        yield content[step]
