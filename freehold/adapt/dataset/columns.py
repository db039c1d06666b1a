"""Which columns of a table are what: rows become examples by it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from freehold.adapt.dataset.source import refused

_PROMPTS = ("prompt", "question", "input", "instruction", "text", "message", "ticket", "user")
_ANSWERS = ("answer", "completion", "output", "response", "label", "category", "class", "assistant")
_WHOLE = ({"messages"}, {"prompt", "chosen", "rejected"}, {"preferred_output"})


@dataclass(frozen=True, slots=True)
class Columns:
    """As a person names them; what is left out is found by usual names."""

    prompt: str | None = None
    answer: str | None = None
    system: str | None = None  # what each example begins with, if anything

    def example(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """In a form that `example.read` knows. Raises `UserError` naming the columns."""
        if self.prompt is None and self.answer is None:
            for whole in _WHOLE:
                if whole <= row.keys():
                    return self._with_system(dict(row))
        prompt, answer = str(row[self._prompt(row)]), str(row[self._answer(row)])
        messages = [
            {"role": "user", "content": prompt},
            {"role": "assistant", "content": answer.strip()},
        ]
        return self._with_system({"messages": messages})

    def _with_system(self, example: dict[str, Any]) -> dict[str, Any]:
        if self.system and isinstance(example.get("messages"), list):
            first = {"role": "system", "content": self.system}
            return {**example, "messages": [first, *example["messages"]]}
        return example

    def _prompt(self, row: Mapping[str, Any]) -> str:
        return _column(row, self.prompt, _PROMPTS, "--prompt-column")

    def _answer(self, row: Mapping[str, Any]) -> str:
        return _column(row, self.answer, _ANSWERS, "--answer-column")


def _column(row: Mapping[str, Any], named: str | None, usual: tuple[str, ...], option: str) -> str:
    by_name = {str(each).lower(): str(each) for each in row}
    if named is not None and named in row:
        return named
    found = None if named is not None else next((each for each in usual if each in by_name), None)
    if found is None:
        there = ", ".join(str(each) for each in list(row)[:12])[:200]
        raise refused(f"Say with `{option}` which of these columns it is: {there}")
    return by_name[found]
