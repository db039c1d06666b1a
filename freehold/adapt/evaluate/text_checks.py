"""Checks that read the answer as text."""

import math
import re
from dataclasses import dataclass

from freehold.adapt.evaluate.example import Answer, Example
from freehold.adapt.evaluate.normal import normal

_SHOWN = 80
_NUMBER = re.compile(r"[-+]?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?(?:[eE][-+]?\d{1,3})?")


@dataclass(frozen=True, slots=True)
class Exact:
    """The expected answer and nothing else: normalised (`normal.py`), or as it is written."""

    as_written: bool = False
    text: str | None = None  # instead of the example's own

    @property
    def name(self) -> str:
        return "exact, as written" if self.as_written else "exact"

    def wrong(self, example: Example, answer: Answer) -> str | None:
        wanted = self.text if self.text is not None else example.expected
        if wanted is None:
            return "the example says no expected answer"
        said = answer.text
        same = said == wanted if self.as_written else normal(said) == normal(wanted)
        return None if same else f"is not {short(wanted)}"


@dataclass(frozen=True, slots=True)
class Contains:
    """Case and white space make no difference."""

    text: str
    is_wanted: bool = True

    @property
    def name(self) -> str:
        return f"{'contains' if self.is_wanted else 'does not contain'} {short(self.text)}"

    def wrong(self, example: Example, answer: Answer) -> str | None:
        if (normal(self.text) in normal(answer.text)) is self.is_wanted:
            return None
        return f"{'lacks' if self.is_wanted else 'contains'} {short(self.text)}"


@dataclass(frozen=True, slots=True)
class Matches:
    pattern: re.Pattern[str]
    is_wanted: bool = True

    @property
    def name(self) -> str:
        return f"{'matches' if self.is_wanted else 'does not match'} {short(self.pattern.pattern)}"

    def wrong(self, example: Example, answer: Answer) -> str | None:
        if (self.pattern.search(answer.text) is not None) is self.is_wanted:
            return None
        told = "nothing matches" if self.is_wanted else "something matches"
        return f"{told} {short(self.pattern.pattern)}"


@dataclass(frozen=True, slots=True)
class Number:
    """The last number of the answer, beside the last of the expected one. It may differ by
    `absolute`, or by the share `relative` of the expected one, whichever is more."""

    value: float | None = None  # instead of the example's own
    absolute: float = 0.0
    relative: float = 0.0

    @property
    def name(self) -> str:
        return "number"

    def wrong(self, example: Example, answer: Answer) -> str | None:
        wanted = self.value if self.value is not None else last_number(example.expected or "")
        if wanted is None:
            return "the example says no expected number"
        found = last_number(answer.text)
        if found is None:
            return "has no number"
        if math.isclose(found, wanted, rel_tol=0, abs_tol=self._room(wanted)):
            return None
        return f"{found:g} is not {wanted:g}"

    def _room(self, wanted: float) -> float:
        # Decimal fractions are not exact in binary: 0.3 - 0.2 is a little less than 0.1.
        return max(self.absolute, self.relative * abs(wanted)) * (1 + 1e-12)


def last_number(text: str) -> float | None:
    """With commas between thousands, as a point is what ends whole numbers."""
    found = _NUMBER.findall(text)
    return float(found[-1].replace(",", "")) if found else None


def short(text: str) -> str:
    flat = " ".join(text.split())
    return f"“{flat}”" if len(flat) <= _SHOWN else f"“{flat[:_SHOWN]}…”"
