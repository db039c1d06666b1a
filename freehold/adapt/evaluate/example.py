"""What a route is asked, what it said, and what tells a right answer from a wrong one."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol


@dataclass(frozen=True, slots=True)
class Call:
    """A function as the model called it; the arguments are the text that it wrote."""

    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class Answer:
    text: str = ""
    calls: tuple[Call, ...] = ()
    finish: str = ""
    tokens_in: int = 0
    tokens_out: int = 0
    request_id: str = ""
    made_by: str = ""  # the weights and the adapter that the gateway says made it
    error: str | None = None  # the code of what kept it from being made


class Check(Protocol):
    @property
    def name(self) -> str:
        """Checks of the same name are one row of the report."""
        ...

    def wrong(self, example: "Example", answer: Answer) -> str | None:
        """Why the answer does not pass, in words for people; None when it does."""
        ...


@dataclass(frozen=True, slots=True)
class Example:
    id: str
    messages: tuple[Mapping[str, Any], ...]
    expected: str | None = None
    expected_calls: tuple[Call, ...] = ()
    tools: tuple[Mapping[str, Any], ...] = ()
    checks: tuple[Check, ...] = ()
    must_pass: bool = False

    @property
    def question(self) -> str:
        """The last thing that the user says."""
        said = [str(m.get("content") or "") for m in self.messages if m.get("role") == "user"]
        return said[-1] if said else ""


def problems(example: Example, answer: Answer) -> Sequence[tuple[str, str | None]]:
    """Each check's name with why the answer fails it. No answer passes nothing."""
    if answer.error is not None:
        return [(check.name, f"no answer: {answer.error}") for check in example.checks]
    return [(check.name, check.wrong(example, answer)) for check in example.checks]
