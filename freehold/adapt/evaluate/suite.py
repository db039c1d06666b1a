"""What is asked in an evaluation, and how many answers it needs to say anything."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from freehold.adapt.evaluate.canary import Canary
from freehold.adapt.evaluate.example import Example
from freehold.adapt.evaluate.gate import Rules
from freehold.adapt.evaluate.judge import CRITERION
from freehold.adapt.evaluate.shares import widest_half
from freehold.core.errors import Code, UserError
from freehold.core.words import counted

LEAST = 30


@dataclass(frozen=True, slots=True)
class Sampling:
    """As little chance as there can be, so that two runs differ by the models. None leaves
    the field out, for routes that do not take it."""

    temperature: float | None = 0.0
    seed: int | None = 1
    max_tokens: int | None = None  # None: as many as the longest expected answer may need

    def fields(self) -> dict[str, Any]:
        told = {"temperature": self.temperature, "seed": self.seed, "max_tokens": self.max_tokens}
        return {name: value for name, value in told.items() if value is not None}


@dataclass(frozen=True, slots=True)
class Suite:
    name: str
    digest: str  # of everything in it
    examples: tuple[Example, ...]
    labels: tuple[str, ...] = ()  # the classes, where answers are of some
    sampling: Sampling = Sampling()
    least: int = LEAST
    must_refuse: tuple[str, ...] = ()
    must_answer: tuple[str, ...] = ()
    canaries: tuple[Canary, ...] = ()
    triggers: tuple[str, ...] = ()
    criterion: str = CRITERION
    gate: Rules = field(default_factory=Rules)
    notes: tuple[str, ...] = field(default=(), compare=False)

    def named(self) -> "Suite":
        """With the digest of all that is asked and checked, whatever files it came from."""
        told: list[Any] = [repr(self.sampling), self.labels, self.must_refuse, self.must_answer]
        told += [repr(self.canaries), self.triggers, self.criterion, self.least, repr(self.gate)]
        for each in self.examples:
            checks = [repr(check) for check in each.checks]
            calls = [repr(call) for call in each.expected_calls]
            told.append([each.id, each.messages, each.expected, calls, each.tools, checks])
        digest = hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()
        return replace(self, digest=f"sha256:{digest}")


ALL = "all checks"


def measure_names(suite: Suite) -> list[str]:
    """The rows of the report: all checks together, then each kind of them."""
    names = list(dict.fromkeys(check.name for each in suite.examples for check in each.checks))
    if len(names) == 1:
        return ["accuracy" if suite.labels and names == ["exact"] else names[0]]
    return [ALL, *names]


def check_size(suite: Suite, *, few: bool) -> list[str]:
    """What must be said of so few examples. Raises `UserError` unless they are wanted so."""
    count = len(suite.examples)
    if count == 0 or count >= suite.least:
        return []
    told = (
        f"{suite.name} has {counted(count, 'example')} and should have {suite.least}: a share "
        f"is only known to ±{widest_half(count) * 100:.0f} points then"
    )
    if not few:
        raise UserError(
            Code.INVALID_VALUE,
            f"{told}; add examples, or say --few, with which no gate is passed.",
            param="few",
        )
    return [f"{told}."]


def room(examples: Sequence[Example]) -> int:
    """Tokens for four times the longest expected answer, at three letters a token."""
    longest = max((len(e.expected or "x" * 384) for e in examples), default=384)
    calls = any(each.expected_calls or each.tools for each in examples)
    return min(2048, max(512 if calls else 32, longest * 4 // 3))
