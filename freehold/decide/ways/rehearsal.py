"""The busiest hour, simulated: how many replicas it needs, and how long people wait then.

Of a large fleet some replicas are simulated with their share of the requests, as each of many
has about the same to do; and of many requests a part of the hour.
"""

from dataclasses import replace
from fractions import Fraction
from math import ceil

from freehold.core.plan import Basis, Option, Predicted, Workload
from freehold.decide.load.arrivals import HOUR_S, Load, steady
from freehold.decide.load.replica import Batching
from freehold.decide.load.simulate import (
    MOST_REPLICAS,
    Simulated,
    alone,
    capacity,
    misses,
    simulate,
)
from freehold.decide.speed.throughput import Roofline
from freehold.decide.ways.planner import Plan, Replicas
from freehold.decide.ways.sizing import Needed, Sizing, busiest_a_second

_FLEET = 8  # replicas that stand for more, at most
_REQUESTS, _FEWEST = 4000, 200
_SPAN_S, _BURSTS_S = 300, 600  # at least; of bursts there have to be minutes of all kinds
_NEAR = 50  # a fiftieth of a large fleet is near enough


class Rehearsal:
    """`planner.Simulates`, with the step times that the closed form goes by."""

    def __init__(self, sizing: Sizing) -> None:
        self._sizing = sizing

    def __call__(self, option: Option, workload: Workload, about: int) -> Needed | str:
        found = self._sizing.replica(option, workload)
        if found is None:
            return "It doesn't fit."
        return _Hour(workload, *found).needed(about)


class Corrected:
    """`planner.Replicas` for planning again at other volumes: where a plan has the number of the
    simulation, the closed form's in the ratio that both had then."""

    def __init__(self, replicas: Replicas, found: Plan, workload: Workload) -> None:
        self._replicas = replicas
        self._ratios: dict[tuple[object, ...], Fraction] = {}
        for each in found.ranked:
            key = _shape(each.option)
            if key in self._ratios or each.sized is None or each.predicted is None:
                continue
            if each.predicted.basis is Basis.SIMULATED:
                closed = replicas(each.option, workload)
                if closed is not None:
                    self._ratios[key] = Fraction(each.sized.at_peak, closed.replicas)

    def __call__(self, option: Option, workload: Workload) -> Needed | None:
        found, ratio = self._replicas(option, workload), self._ratios.get(_shape(option))
        if found is None or ratio is None:
            return found
        return replace(found, replicas=ceil(found.replicas * ratio))


def _shape(option: Option) -> tuple[object, ...]:
    return option.model, option.precision, option.accelerator, option.accelerators_a_replica


class _Hour:
    def __init__(self, workload: Workload, times: Roofline, batching: Batching) -> None:
        self._workload, self._times, self._batching = workload, times, batching
        self._a_second = busiest_a_second(workload)
        self._tried: dict[int, Simulated] = {}

    def needed(self, about: int) -> Needed | str:
        """As many as do the work within the ceiling of utilization, and more where targets are
        missed: as many as the closed form says, then a quarter more each time; and bisected."""
        most = MOST_REPLICAS
        full = capacity(self._crowd(), self._times, self._batching, self._workload.cached_share)
        ceiling = self._workload.economics.utilization_ceiling
        enough = max(ceil(self._a_second / (full * ceiling)), 1)
        too_few = enough - 1
        if not self._is_enough(enough):
            why = self._hopeless(enough)
            if why:
                return why
            too_few, enough = enough, min(max(about, enough + 1), most)
            while not self._is_enough(enough):
                if enough == most:
                    missed = misses(self._tried[most], self._workload.targets)[0]
                    return f"Simulated with {most:,} replicas, {missed}."
                too_few, enough = enough, min(ceil(enough * 1.25), most)
        while enough - too_few > max(1, enough // _NEAR):
            middle = (enough + too_few) // 2
            if self._is_enough(middle):
                enough = middle
            else:
                too_few = middle
        return Needed(enough, self._predicted(enough))

    def _is_enough(self, replicas: int) -> bool:
        load, fleet = self._load(replicas)
        cached = self._workload.cached_share
        found = self._tried[replicas] = simulate(load, self._times, fleet, self._batching, cached)
        return not misses(found, self._workload.targets)

    def _load(self, replicas: int) -> tuple[Load, int]:
        """With the part of the fleet that it is for."""
        span_s = _BURSTS_S if self._workload.bursts else _SPAN_S
        each = self._a_second / replicas
        fleet = min(max(int(_REQUESTS / (each * span_s)), 1), _FLEET, replicas)
        rate = each * fleet
        longest = max(min(HOUR_S, _REQUESTS / rate), _FEWEST / rate, span_s)
        return steady(self._workload, rate, longest), fleet

    def _crowd(self) -> Load:
        """So many at once that a replica has always others to do."""
        count = 6 * self._batching.sequences
        crowd = steady(replace(self._workload, bursts=0.0), count, 1.0)
        return replace(crowd, at_s=crowd.at_s * 0)

    def _hopeless(self, replicas: int) -> str | None:
        load, cached = self._load(replicas)[0], self._workload.cached_share
        missed = misses(alone(load, self._times, self._batching, cached), self._workload.targets)
        return f"Simulated, even alone on a replica, {missed[0]}." if missed else None

    def _predicted(self, replicas: int) -> Predicted:
        found = self._tried[replicas]
        return Predicted(
            Basis.SIMULATED,
            found.ttft_s.p95 * 1000,
            found.tpot_ms.p95,
            found.whole_s.p95,
            found.tokens_per_s * replicas / found.replicas,
        )
