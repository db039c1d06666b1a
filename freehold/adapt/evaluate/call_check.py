"""Whether the model called what it should, with the arguments that it should."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from freehold.adapt.evaluate.example import Answer, Example
from freehold.adapt.evaluate.json_checks import NoJson, content_of, same


@dataclass(frozen=True, slots=True)
class Called:
    """One of the calls has the function's name and these arguments, which may have more
    beside them. Without a name, the calls are those that the example expects, whatever their
    order, with all their arguments and no other."""

    function: str | None = None
    arguments: Mapping[str, Any] | None = None

    @property
    def name(self) -> str:
        return f"calls {self.function}" if self.function else "calls as expected"

    def wrong(self, example: Example, answer: Answer) -> str | None:
        if self.function is None:
            return _differ(example, answer)
        named = [call for call in answer.calls if call.name == self.function]
        if not named:
            return f"does not call {self.function}"
        if self.arguments is None:
            return None
        given = [_arguments(call.arguments) for call in named]
        if any(_has(each, self.arguments) for each in given):
            return None
        return f"calls {self.function} with other arguments: {named[0].arguments[:200]}"


def _differ(example: Example, answer: Answer) -> str | None:
    left = [(call.name, _arguments(call.arguments)) for call in answer.calls]
    for call in example.expected_calls:
        wanted = (call.name, _arguments(call.arguments))
        found = next((e for e in left if e[0] == wanted[0] and same(e[1], wanted[1])), None)
        if found is None:
            return f"does not call {call.name} with {call.arguments[:200]}"
        left.remove(found)
    return f"also calls {left[0][0]}" if left else None


def _arguments(text: str) -> Any:
    try:
        return content_of(text or "{}")
    except NoJson:
        return None


def _has(given: Any, wanted: Mapping[str, Any]) -> bool:
    return isinstance(given, dict) and all(
        name in given and same(given[name], value) for name, value in wanted.items()
    )
