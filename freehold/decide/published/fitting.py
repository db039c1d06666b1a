"""Finds the efficiencies under which our formulas say what was published: least squares of the
logarithms, held near what the literature has, no case with a value of its own."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from freehold.decide.published.replay import Case, computed

# What is expected before any case is looked at, and by how many e-folds one may be off it. Half to
# two thirds of the peak when prompts are read and 0.6 to 0.85 of the bandwidth when answers are
# made: Pope et al. 2022 (76% of the peak at most, in large batches), and llama.cpp's and vLLM's own
# measurements. Steps cost an engine a few milliseconds (vLLM 0.6: 38% of a step of 13 ms).
PRIORS: Mapping[str, tuple[float, float]] = {
    "compute.tensorrt": (0.85, 0.15),
    "compute.vllm": (0.8, 0.2),
    "compute.llama.cpp": (0.8, 0.3),
    "compute.pytorch": (0.35, 0.5),
    "compute.llama.cpp.cpu": (0.5, 0.3),
    "compute.llama.cpp.soc": (1.0, 0.3),
    "power.tensorrt": (2.0, 0.5),
    "power.vllm": (2.0, 0.5),
    "power.llama.cpp": (1.0, 0.5),
    "compute.fp8": (0.8, 0.3),
    "compute.fp4": (0.6, 0.3),
    "compute.int8": (0.8, 0.3),
    "compute.widened": (0.8, 0.2),
    "bandwidth.tensorrt": (0.75, 0.2),
    "bandwidth.vllm": (0.7, 0.2),
    "bandwidth.llama.cpp": (0.75, 0.2),
    "bandwidth.pytorch": (0.6, 0.3),
    "bandwidth.llama.cpp.large": (0.75, 0.3),
    "bandwidth.small": (1.05, 0.15),
    "bandwidth.soc": (1.0, 0.2),
    "bandwidth.unpacked": (0.85, 0.2),
    "bandwidth.unpacked.llama.cpp.large": (0.85, 0.3),
    "bandwidth.unpacked.llama.cpp.soc": (0.85, 0.3),
    "amd": (0.85, 0.15),
    "compute.experts": (0.7, 0.3),
    "bandwidth.experts": (0.8, 0.2),
    "tuned": (1.1, 0.1),
    "ramp": (64.0, 0.7),
    "apart": (0.3, 0.5),
    "ungrouped": (0.7, 0.3),
    "step_s.tensorrt": (0.001, 0.5),
    "step_s.vllm": (0.001, 0.5),
    "step_s.llama.cpp": (0.0002, 0.5),
    "step_s.pytorch": (0.005, 0.5),
    "layer_s.tensorrt": (0.00003, 0.5),
    "layer_s.vllm": (0.00004, 0.5),
    "layer_s.llama.cpp": (0.00005, 0.7),
    "layer_s.llama.cpp.soc": (2.0, 0.7),
    "sequence_s": (0.00001, 0.7),
    "hop_s.linked": (0.00001, 0.5),
    "hop_s.bus": (0.00003, 0.5),
    "link.linked": (200e9, 0.5),
    "link.bus": (15e9, 0.5),
}
# A published figure is taken to be this far off, in e-folds; beyond twice that it pulls no harder.
_NOISE = 0.25
_ROUNDS, _STEP, _ENOUGH = 30, 1e-4, 1e-3

Vector = npt.NDArray[np.float64]


def fit(cases: Sequence[Case], start: Mapping[str, float] | None = None) -> dict[str, float]:
    """Levenberg-Marquardt with Huber's weights; the same cases give the same values, wherever it
    starts. Those for acceptance are not looked at, whoever asks."""
    cases = [case for case in cases if not case.source.is_for_acceptance]
    names = list(PRIORS)
    means = np.array([math.log(PRIORS[name][0]) for name in names])
    widths = np.array([PRIORS[name][1] for name in names])
    asked = _asked_by(cases)
    at, damping = means.copy(), 1.0
    if start is not None:
        at, damping = np.array([math.log(start[name]) for name in names]), 1e-3

    def off(point: Vector, only: Sequence[int]) -> list[float]:
        values = dict(zip(names, np.exp(point).tolist(), strict=True))
        return [_held(error(cases[place], values) / _NOISE) for place in only]

    def residuals(point: Vector) -> Vector:
        return np.array([*off(point, range(len(cases))), *((point - means) / widths)])

    def slopes(point: Vector, now: Vector) -> Vector:
        found = np.zeros((len(now), len(names)))
        for column, name in enumerate(names):
            moved = point.copy()
            moved[column] += _STEP
            only = asked.get(name, [])
            found[only, column] = (np.array(off(moved, only)) - now[only]) / _STEP
            found[len(cases) + column, column] = 1 / widths[column]
        return found

    now = residuals(at)
    for _ in range(_ROUNDS):
        jacobian = slopes(at, now)
        normal, slope = jacobian.T @ jacobian, jacobian.T @ now
        moved = at - np.linalg.solve(normal + damping * np.diag(np.diag(normal)), slope)
        new = residuals(moved)
        if new @ new < now @ now:
            gained = float(now @ now - new @ new)
            at, now, damping = moved, new, damping / 4
            if gained < _ENOUGH:
                break
        else:
            damping *= 4
    return dict(zip(names, np.exp(at).tolist(), strict=True))


class _Noting(dict[str, float]):
    """Values that keep which of them were asked for."""

    def __init__(self, values: Mapping[str, float]) -> None:
        super().__init__(values)
        self.asked: set[str] = set()

    def __getitem__(self, name: str) -> float:
        self.asked.add(name)
        return super().__getitem__(name)

    def get(self, name: str, default: float | None = None) -> float | None:  # type: ignore[override]
        self.asked.add(name)
        return super().get(name, default)


def _asked_by(cases: Sequence[Case]) -> dict[str, list[int]]:
    """By each value the places of the cases that it counts for: most count for few."""
    found: dict[str, list[int]] = {}
    for place, case in enumerate(cases):
        noting = _Noting({name: mean for name, (mean, _) in PRIORS.items()})
        computed(case, noting)
        for name in noting.asked & PRIORS.keys():
            found.setdefault(name, []).append(place)
    return found


def parted(cases: Sequence[Case]) -> tuple[list[Case], list[Case]]:
    """Those that are fitted to, and those that no fit sees."""
    kept_apart = [case for case in cases if case.source.is_for_acceptance]
    return [case for case in cases if not case.source.is_for_acceptance], kept_apart


def error(case: Case, values: Mapping[str, float]) -> float:
    """In e-folds, above nought where we say too much."""
    return math.log(max(computed(case, values), 1e-9) / case.measured)


def held_out(
    cases: Sequence[Case],
    groups: Sequence[Sequence[Case]],
    start: Mapping[str, float] | None = None,
) -> dict[str, list[float]]:
    """Errors by case, in e-folds, of each group under what all cases but its own give."""
    found: dict[str, list[float]] = {}
    for group in groups:
        within = {case.id for case in group}
        values = fit([case for case in cases if case.id not in within], start)
        for case in group:
            found.setdefault(case.id, []).append(error(case, values))
    return found


def halves(cases: Sequence[Case], times: int) -> list[Sequence[Case]]:
    """Both halves of so many shuffles, always the same ones."""
    found: list[Sequence[Case]] = []
    for seed in range(times):
        order = np.random.default_rng(seed).permutation(len(cases))
        mixed = [cases[place] for place in order]
        found += [mixed[: len(mixed) // 2], mixed[len(mixed) // 2 :]]
    return found


def by_hardware(cases: Sequence[Case]) -> dict[str, Sequence[Case]]:
    names = sorted({case.accelerator.id for case in cases})
    return {name: [each for each in cases if each.accelerator.id == name] for name in names}


@dataclass(frozen=True, slots=True)
class Spread:
    """Of errors as shares of what was measured."""

    count: int
    median: float
    nine_in_ten: float
    within_40: float


def spread(errors: Sequence[float]) -> Spread:
    off = np.abs(np.exp(np.array(errors)) - 1)
    return Spread(
        count=len(errors),
        median=float(np.median(off)),
        nine_in_ten=float(np.quantile(off, 0.9)),
        within_40=float((off <= 0.4).mean()),
    )


def _held(off: float) -> float:
    """Grows with the root beyond two, so that its square grows as Huber's loss does."""
    return off if abs(off) <= 2 else math.copysign(math.sqrt(4 * abs(off) - 4), off)
