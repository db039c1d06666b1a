"""How an adapter is trained: what was asked for, and what is chosen where nothing was said.

The defaults depend on the model's width, on how many examples there are and on how long
these are, so that nobody has to know any of the words to get a sound adapter.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from freehold.core.errors import Code, UserError

Objective = Literal["sft", "dpo"]
Trainer = Literal["freehold", "trl"]
LINEARS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
_RANK = 16
_EXAMPLES_A_STEP = 8  # of usual length
_EXAMPLES_TO_SEE = {"sft": 1500, "dpo": 600}  # repeated ones counted again
_MOST_EPOCHS = {"sft": 10, "dpo": 3}
# Narrow models take, and need, larger steps.
_RATES = {"sft": 1.1, "dpo": 0.11}
_WARM_UP = 0.05
BETA = 0.1  # of DPO: how far answers may move from the base's
# What a token keeps for the way back, in bytes for each value of a layer's width; measured.
_KEPT_A_TOKEN = 34
_PROCESS_BYTES = 450 * 1024 * 1024  # Python, PyTorch and what it sets aside
_TOKENS_AT_ONCE = 1024


@dataclass(frozen=True, slots=True)
class Recipe:
    """Everything that makes the adapter what it is, but for base and data; goes into its
    manifest. `bits`: of the base while training, None for 16."""

    objective: Objective
    bits: int | None
    rank: int
    alpha: float
    targets: tuple[str, ...]
    learning_rate: float
    epochs: int
    max_tokens: int
    batch_tokens: int
    seed: int
    trainer: Trainer

    def plain(self) -> dict[str, Any]:
        return {**asdict(self), "targets": list(self.targets)}


@dataclass(frozen=True, slots=True)
class Sizes:
    """What a default depends on: of the base, and of the examples in tokens. `linears`: by their
    names in PEFT, in the order in which they are computed."""

    hidden: int
    context: int
    examples: int
    tokens: int
    linears: tuple[str, ...] = LINEARS


def recipe_of(spec: Mapping[str, Any], sizes: Sizes, trainer: Trainer = "freehold") -> Recipe:
    """Of a job's spec, where what is missing or null is chosen here. Raises `INVALID_VALUE`
    naming what cannot be."""
    objective: Objective = _one_of(spec, "objective", ("sft", "dpo"), "sft")
    rank = _whole(spec, "rank", _RANK, 1, 512)
    per_example = max(1, round(sizes.tokens / max(1, sizes.examples)))
    epochs = math.ceil(_EXAMPLES_TO_SEE[objective] / max(1, sizes.examples))
    return Recipe(
        objective=objective,
        bits=_one_of(spec, "bits", (None, 8, 4), None),
        rank=rank,
        alpha=_number(spec, "alpha", 2.0 * rank, 0, 1_000_000),
        targets=_targets(spec.get("targets"), sizes.linears),
        learning_rate=_number(spec, "learning_rate", rate(objective, sizes.hidden), 0, 1),
        epochs=_whole(spec, "epochs", min(epochs, _MOST_EPOCHS[objective]), 1, 1000),
        max_tokens=max_tokens(spec, sizes.context),
        batch_tokens=_whole(spec, "batch_tokens", _EXAMPLES_A_STEP * per_example, 1, 10_000_000),
        seed=_whole(spec, "seed", 0, 0, 2**63 - 1),
        trainer=trainer,
    )


def max_tokens(spec: Mapping[str, Any], context: int) -> int:
    """Of an example; the model reads no more than its context."""
    return min(context, _whole(spec, "max_tokens", min(2048, context), 8, 10_000_000))


def rate(objective: Objective, hidden: int) -> float:
    """Two digits of it, as nobody knows it better."""
    return float(f"{_RATES[objective] / hidden**0.78 * 0.16:.1e}")


def rate_at(recipe: Recipe, step: int, steps: int) -> float:
    """The learning rate of a step, counted from 0: up at first, then down along a cosine."""
    warm = max(1, round(steps * _WARM_UP))
    if step < warm:
        return recipe.learning_rate * (step + 1) / warm
    done = (step - warm) / max(1, steps - warm)
    return recipe.learning_rate * 0.5 * (1 + math.cos(math.pi * done))


def memory_bytes(base_bytes: int, hidden: int, layers: int, adapter_values: int, part: int) -> int:
    """About what training takes at most, with parts of `part` tokens."""
    adapter = adapter_values * 4 * 6  # values, gradient, two moments, the best so far, a copy
    return _PROCESS_BYTES + base_bytes + adapter + part * hidden * layers * _KEPT_A_TOKEN


def part_tokens(most_bytes: int | None, base: tuple[int, int, int, int], longest: int) -> int:
    """How many tokens are computed together: no more than there is memory for. `base`:
    bytes, width, layers, values of the adapter. Raises `LIMIT_REACHED` when the longest
    example does not fit."""
    if most_bytes is None:
        return max(_TOKENS_AT_ONCE, longest)
    part = max(_TOKENS_AT_ONCE, longest)
    while part > longest and memory_bytes(*base, part) > most_bytes:
        part = max(longest, part // 2)
    needed = memory_bytes(*base, part)
    if needed > most_bytes:
        raise UserError(
            Code.LIMIT_REACHED,
            f"Training needs about {_mib(needed)} and may use {_mib(most_bytes)}: allow more "
            f"memory, allow fewer than {longest} tokens an example, or train with the base in "
            "4 bits.",
        )
    return part


def _mib(count: int) -> str:
    return f"{count / 2**20:,.0f} MiB"


def _targets(told: Any, linears: tuple[str, ...]) -> tuple[str, ...]:
    if told in (None, "all-linear"):
        return linears
    if not isinstance(told, list | tuple) or not told or not set(told) <= set(linears):
        raise UserError(
            Code.INVALID_VALUE,
            f"targets is neither 'all-linear' nor some of {', '.join(linears)}: name these.",
            param="targets",
        )
    return tuple(name for name in linears if name in told)


def _one_of(spec: Mapping[str, Any], name: str, known: tuple[Any, ...], default: Any) -> Any:
    value = spec.get(name, default)
    if not any(value is each or (value == each and type(value) is type(each)) for each in known):
        named = ", ".join(str(each) for each in known if each is not None)
        raise UserError(
            Code.INVALID_VALUE, f"{name} is not one of {named}: choose one.", param=name
        )
    return default if value is None else value


def _whole(spec: Mapping[str, Any], name: str, default: int, least: int, most: int) -> int:
    value = spec.get(name)
    if value is None:
        return max(least, default)
    if type(value) is not int or not least <= value <= most:
        raise UserError(
            Code.INVALID_VALUE,
            f"{name} is no whole number from {least} to {most}: choose one.",
            param=name,
        )
    return value


def _number(spec: Mapping[str, Any], name: str, default: float, over: float, most: float) -> float:
    value = spec.get(name)
    if value is None:
        return default
    if type(value) not in (int, float) or not over < value <= most:
        raise UserError(
            Code.INVALID_VALUE,
            f"{name} is no number above {over} and up to {most}: choose one.",
            param=name,
        )
    return float(value)
