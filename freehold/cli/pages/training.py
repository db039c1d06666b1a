"""A training job as one page: how its loss went, what it was asked for and what came of it."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from math import ceil, floor
from typing import Any

from freehold.cli.pages.charts import Tick, short, step_of
from freehold.cli.pages.file import rendered
from freehold.cli.words.job import named
from freehold.core.words import size

_LEFT, _RIGHT, _TOP, _BOTTOM = 58, 14, 14, 44  # margins, for ticks and titles
_MOST_POINTS = 600  # of a line: more than a screen has places for
_RECIPE = (
    ("objective", "objective"), ("base in bits", "bits"), ("rank", "rank"),
    ("learning rate", "learning_rate"), ("epochs", "epochs"), ("seed", "seed"),
    ("longest example, tokens", "max_tokens"), ("trainer", "trainer"),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Losses:
    """By step, in nats a token: of the examples of each step, and of those held out as they were
    looked at. `before` is what the bare base has on these."""

    trained: Sequence[tuple[int, float]]
    held_out: Sequence[tuple[int, float]]
    before: float | None


@dataclass(frozen=True, slots=True)
class Chart:
    width: int
    height: int
    left: float
    right: float
    top: float
    bottom: float
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    trained: str  # as polylines have it
    held_out: str
    dots: tuple[tuple[float, float, int, float], ...]  # of what is held out: place, step, loss
    before: float | None


def page(job: Mapping[str, Any], log: Iterable[Mapping[str, Any]]) -> str:
    """All text in it is escaped by the template."""
    return rendered("training", _View(job, losses(job, log)))


def losses(job: Mapping[str, Any], log: Iterable[Mapping[str, Any]]) -> Losses:
    """A job that went on from a checkpoint says some steps again: the last saying counts."""
    trained: dict[int, float] = {}
    looked: dict[int, float] = {}
    last = None
    for line in log:
        told = line.get("progress") or {}
        step, loss, held_out = (told.get(name) for name in ("step", "loss", "held_out_loss"))
        if not isinstance(step, int) or not isinstance(loss, int | float):
            continue
        trained = {at: each for at, each in trained.items() if at < step} | {step: loss}
        looked = {at: each for at, each in looked.items() if at < step}
        if isinstance(held_out, int | float) and held_out != last:
            looked[step] = held_out
        last = held_out
    before = (job["result"] or {}).get("held_out_loss_before")
    return Losses(sorted(trained.items()), sorted(looked.items()), before)


def chart(found: Losses, steps: int, width: int, height: int) -> Chart | None:
    """None for a job that has not made a step."""
    if not found.trained:
        return None
    values = [loss for _, loss in (*found.trained, *found.held_out)]
    values += [] if found.before is None else [found.before]
    left, right, top, bottom = _LEFT, width - _RIGHT, _TOP, height - _BOTTOM
    by = step_of((max(values) or 1.0) / 4)
    high = max(by, ceil(max(values) / by) * by)
    last = max(steps, found.trained[-1][0])
    x, y = _linear(0, last, left, right), _linear(0, high, bottom, top)
    every = max(1, floor(step_of(last / 5)))
    return Chart(
        width, height, left, right, top, bottom,
        tuple(Tick(x(at), f"{at:,}") for at in range(0, last + 1, every)),
        tuple(Tick(y(at * by), short(at * by)) for at in range(round(high / by) + 1)),
        _points(_thinned(found.trained), x, y),
        _points(found.held_out, x, y),
        tuple((x(step), y(loss), step, loss) for step, loss in found.held_out),
        None if found.before is None else y(found.before),
    )  # fmt: skip


def _linear(low: float, high: float, begin: float, end: float) -> Callable[[float], float]:
    return lambda value: round(begin + (value - low) / ((high - low) or 1) * (end - begin), 2)


def _points(
    told: Sequence[tuple[int, float]], x: Callable[[float], float], y: Callable[[float], float]
) -> str:
    return " ".join(f"{x(step)},{y(loss)}" for step, loss in told)


def _thinned(told: Sequence[tuple[int, float]]) -> Sequence[tuple[int, float]]:
    """The mean of so many steps beside each other as make no more points than a line needs."""
    of = ceil(len(told) / _MOST_POINTS)
    parts = [told[at : at + of] for at in range(0, len(told), of)]
    return [(part[len(part) // 2][0], sum(loss for _, loss in part) / len(part)) for part in parts]


class _View:
    """What the template asks for."""

    def __init__(self, job: Mapping[str, Any], found: Losses) -> None:
        self.job = job
        self.losses = found
        steps = int(job["progress"].get("steps") or 0)
        self.wide = chart(found, steps, 860, 320)
        self.narrow = chart(found, steps, 360, 300)
        self.made = datetime.now(UTC).strftime("%Y-%m-%d")

    @property
    def answer(self) -> str:
        job, result = self.job, self.job["result"] or {}
        loss, before = result.get("held_out_loss"), result.get("held_out_loss_before")
        if loss is not None and before is not None:
            return f"Held-out loss {loss:.3f}, where the bare base has {before:.3f}."
        if loss is not None:
            return f"Held-out loss {loss:.3f}."
        if job["error"]:
            return str(job["error"]["message"])
        done, steps = job["progress"].get("step"), job["progress"].get("steps")
        return f"Step {done:,} of {steps:,}." if done and steps else "No step was made yet."

    @property
    def known(self) -> list[tuple[str, str]]:
        job, spec, result = self.job, self.job["spec"], self.job["result"] or {}
        recipe = {**spec.get("recipe", {}), **spec}
        speed = job["progress"].get("tokens_per_s")
        memory = result.get("peak_memory_bytes")
        found = (
            ("state", job["state"]), ("adapter", result.get("adapter")),
            ("base", named(spec, "base")), ("dataset", named(spec, "dataset")),
            *((label, recipe.get(name)) for label, name in _RECIPE),
            ("speed", f"{speed:,.0f} tokens/s" if speed else None),
            ("peak memory", size(memory) if memory else None),
            ("created", f"{job['created_at'][:19]} by {job['created_by']}"),
            ("started", (job["started_at"] or "")[:19]), ("ended", (job["ended_at"] or "")[:19]),
        )  # fmt: skip
        return [(label, str(value)) for label, value in found if value not in (None, "")]
