"""Finds the efficiencies under which our formulas say what was published: least squares of the
logarithms, held near what the literature has, no case with a value of its own."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from freehold.decide.replay import Case, computed

# What is expected before any case is looked at, and by how many e-folds one may be off it. Half to
# two thirds of the peak when prompts are read and 0.6 to 0.85 of the bandwidth when answers are
# made: Pope et al. 2022 (76% of the peak at most, in large batches), and llama.cpp's and vLLM's own
# measurements. Steps cost an engine a few milliseconds (vLLM 0.6: 38% of a step of 13 ms).
PRIORS: Mapping[str, tuple[float, float]] = {
    "compute.tensorrt": (0.55, 0.3),
    "compute.vllm": (0.5, 0.3),
    "compute.llama.cpp": (0.5, 0.3),
    "compute.pytorch": (0.35, 0.5),
    "compute.llama.cpp.large": (0.75, 0.3),
    "compute.llama.cpp.cpu": (0.5, 0.3),
    "compute.small": (0.8, 0.3),
    "compute.soc": (1.0, 0.3),
    "compute.fp8": (0.8, 0.3),
    "compute.fp4": (0.6, 0.3),
    "compute.int8": (0.8, 0.3),
    "bandwidth.tensorrt": (0.75, 0.2),
    "bandwidth.vllm": (0.7, 0.2),
    "bandwidth.llama.cpp": (0.75, 0.2),
    "bandwidth.pytorch": (0.6, 0.3),
    "bandwidth.llama.cpp.large": (0.75, 0.3),
    "bandwidth.small": (1.05, 0.15),
    "bandwidth.soc": (1.0, 0.2),
    "bandwidth.unpacked": (0.85, 0.2),
    "experts": (0.7, 0.3),
    "step_s.tensorrt": (0.002, 0.5),
    "step_s.vllm": (0.004, 0.5),
    "step_s.llama.cpp": (0.0005, 0.5),
    "step_s.pytorch": (0.005, 0.5),
    "sequence_s": (0.00001, 0.7),
    "parallel.linked": (0.92, 0.08),
    "parallel.bus": (0.7, 0.2),
}
# A published figure is taken to be this far off, in e-folds; beyond twice that it pulls no harder.
_NOISE = 0.25
_ROUNDS, _STEP = 30, 1e-4

Vector = npt.NDArray[np.float64]


def fit(cases: Sequence[Case]) -> dict[str, float]:
    """Levenberg-Marquardt with Huber's weights; the same cases give the same values. Those for
    acceptance are not looked at, whoever asks."""
    cases = [case for case in cases if not case.source.is_for_acceptance]
    names = list(PRIORS)
    means = np.array([math.log(PRIORS[name][0]) for name in names])
    widths = np.array([PRIORS[name][1] for name in names])
    at, damping = means.copy(), 1.0

    def residuals(point: Vector) -> Vector:
        values = dict(zip(names, np.exp(point).tolist(), strict=True))
        off = [error(case, values) / _NOISE for case in cases]
        return np.array([*map(_held, off), *((point - means) / widths)])

    now = residuals(at)
    for _ in range(_ROUNDS):
        jacobian = np.stack(
            [(residuals(at + _STEP * one) - now) / _STEP for one in np.eye(len(at))], 1
        )
        normal, slope = jacobian.T @ jacobian, jacobian.T @ now
        moved = at - np.linalg.solve(normal + damping * np.diag(np.diag(normal)), slope)
        new = residuals(moved)
        if new @ new < now @ now:
            gained = float(now @ now - new @ new)
            at, now, damping = moved, new, damping / 4
            if gained < 1e-4:
                break
        else:
            damping *= 4
    return dict(zip(names, np.exp(at).tolist(), strict=True))


def parted(cases: Sequence[Case]) -> tuple[list[Case], list[Case]]:
    """Those that are fitted to, and those that no fit sees."""
    kept_apart = [case for case in cases if case.source.is_for_acceptance]
    return [case for case in cases if not case.source.is_for_acceptance], kept_apart


def error(case: Case, values: Mapping[str, float]) -> float:
    """In e-folds, above nought where we say too much."""
    return math.log(max(computed(case, values), 1e-9) / case.measured)


def held_out(cases: Sequence[Case], groups: Sequence[Sequence[Case]]) -> dict[str, list[float]]:
    """Errors by case, in e-folds, of each group under what all cases but its own give."""
    found: dict[str, list[float]] = {}
    for group in groups:
        within = {case.id for case in group}
        values = fit([case for case in cases if case.id not in within])
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
