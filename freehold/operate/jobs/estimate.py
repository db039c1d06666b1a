"""What a training job will take on this machine, before it is begun."""

import time
from dataclasses import dataclass
from functools import lru_cache

from freehold.core.facts import ModelFacts
from freehold.core.plan import Tuning
from freehold.decide.money import training
from freehold.decide.money.assumptions import Assumptions
from freehold.deploy.probe import Machine

_SIDE, _TRIALS = 768, 5
# Python and PyTorch, before there is a model: what they take, and until they are there.
_PROCESS_BYTES, _START_S = 450 * 1024 * 1024, 10.0
# How much longer TRL takes than our own trainer, and how much more memory; measured with
# bench/tune.py. What a job of its own reached says the time better.
_TRL_SLOWER, _TRL_MEMORY = 3.0, 1.7


@dataclass(frozen=True, slots=True)
class Estimate:
    """`rests_on` says where the speed is from. `cost` in millionths of the currency; None where
    nobody knows what the machine costs."""

    tokens: int
    seconds: float
    memory_bytes: int
    cost: int | None
    rests_on: str


@dataclass(frozen=True, slots=True)
class Speed:
    """Of this machine: operations a second that count, and where that is from."""

    flops: float
    rests_on: str


def estimate(
    model: ModelFacts, tuning: Tuning, speed: Speed, micro_per_hour: int | None, trainer: str
) -> Estimate:
    assumptions = Assumptions()
    seconds = _START_S + float(training.flops(model, tuning)) / speed.flops
    memory = _PROCESS_BYTES + int(training.gigabytes(model, tuning, assumptions) * 10**9)
    memory = round(memory * (_TRL_MEMORY if trainer == "trl" else 1))
    cost = None if micro_per_hour is None else round(micro_per_hour * seconds / 3600)
    return Estimate(tuning.tokens, seconds, memory, cost, speed.rests_on)


def measured_speed(model: ModelFacts, tuning: Tuning, seconds: float, job_id: str) -> Speed:
    """What a job here reached."""
    return Speed(float(training.flops(model, tuning)) / seconds, f"measured by {job_id}")


def probed_speed(machine: Machine, threads: int | None, trainer: str) -> Speed:
    """Where no job ran here yet: what the cores multiply, and the share of it that training is
    assumed to reach."""
    mfu = Assumptions().value("training_mfu")
    share = 1.0 if threads is None else min(1.0, threads / machine.cores)
    slower = _TRL_SLOWER if trainer == "trl" else 1.0
    computed = _multiplied() * share * float(mfu) / slower
    return Speed(computed, f"computed: {mfu} of what the cores multiply")


@lru_cache(maxsize=1)
def _multiplied() -> float:
    """Operations a second, in a few hundredths of one."""
    import numpy as np

    values = np.random.default_rng(0).random((_SIDE, _SIDE), dtype=np.float32)
    values @ values  # it sets up its threads
    times = []
    for _ in range(_TRIALS):
        begun = time.perf_counter()
        values @ values
        times.append(time.perf_counter() - begun)
    return 2 * _SIDE**3 / min(times)


def seconds_for(cost: float, micro_per_hour: int) -> float:
    """How long the machine may be used for so much money."""
    return cost * 1_000_000 / micro_per_hour * 3600 if micro_per_hour else float("inf")
