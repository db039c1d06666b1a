"""What a number of replicas makes of a load, and how many it needs."""

from dataclasses import dataclass
from heapq import heappop, heappush, heapreplace
from math import inf

import numpy as np
from numpy.typing import NDArray

from freehold.core.errors import Code, UserError
from freehold.core.plan import StepTimes, Targets
from freehold.decide.load.arrivals import Load
from freehold.decide.load.replica import Batching, Replica, Requests
from freehold.decide.load.steps import Steps

MOST_REPLICAS = 4096
USUAL = Batching()


@dataclass(frozen=True, slots=True)
class Spread:
    p50: float
    p95: float
    p99: float


@dataclass(frozen=True, slots=True)
class Simulated:
    """Seconds, but TPOT in milliseconds a token after the first. `busy` is the share of the
    time in which a replica has anything to do, `kv` how full its KV memory is then, `batch`
    how many requests it has under way then."""

    replicas: int
    requests: int
    ttft_s: Spread
    tpot_ms: Spread
    whole_s: Spread
    wait_s: Spread
    waiting: float  # requests in the queue, on average
    busy: float
    kv: float
    batch: float
    tokens_per_s: float  # of answers, over what was watched
    keeps_up: bool  # all is done when the load ends, but for what had just come


@dataclass(frozen=True, slots=True)
class Need:
    """The least number of replicas, what it makes of the load, and what of one fewer."""

    simulated: Simulated
    one_fewer: Simulated | None


@dataclass(frozen=True, slots=True)
class Unmet:
    """No number of replicas is enough."""

    why: str


def simulate(
    load: Load,
    times: StepTimes,
    replicas: int = 1,
    batching: Batching = USUAL,
    cached_share: float = 0.0,
) -> Simulated:
    """Each request goes to the replica with the fewest unfinished ones, the first of several.
    Raises `UserError(INVALID_VALUE)` for a load with a request that no replica can hold."""
    _check(load, times)
    return _told(load, *_served(load, times, replicas, batching, cached_share))


def _served(
    load: Load, times: StepTimes, replicas: int, batching: Batching, cached_share: float
) -> tuple[Requests, list[Replica], Steps]:
    requests = Requests(
        load.prompt.tolist(), load.answer.tolist(), load.adapter.tolist(), cached_share
    )
    steps = Steps(times, int(load.prompt.max()))
    fleet = [Replica(steps, batching, requests) for _ in range(replicas)]
    _serve(load.at_s.tolist(), fleet)
    return requests, fleet, steps


def answered(
    load: Load, times: StepTimes, replicas: int = 1, batching: Batching = USUAL
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """When each request has its first token, and its last."""
    _check(load, times)
    requests, _, _ = _served(load, times, replicas, batching, 0.0)
    return np.array(requests.first_at), np.array(requests.done_at)


def capacity(
    crowd: Load, times: StepTimes, batching: Batching = USUAL, cached_share: float = 0.0
) -> float:
    """Requests a second that a replica ends while many of a crowd still wait: from the first
    quarter of them to the third."""
    _check(crowd, times)
    requests, _, _ = _served(crowd, times, 1, batching, cached_share)
    done = np.quantile(np.array(requests.done_at), (0.25, 0.75))
    return float(len(crowd) / 2 / (done[1] - done[0]))


def _check(load: Load, times: StepTimes) -> None:
    if not len(load):
        raise UserError(Code.INVALID_VALUE, "The load has no requests: there is nothing to do.")
    longest = int((load.prompt + load.answer).max())
    if longest > times.kv_tokens:
        raise UserError(
            Code.INVALID_VALUE,
            f"A request has {longest:,} tokens of prompt and answer, and a replica has memory for "
            f"{times.kv_tokens:,}: choose more or larger accelerators, or shorter requests.",
        )


def _serve(arrivals: list[float], fleet: list[Replica]) -> None:
    """Only the replicas whose load changes before a request comes are advanced until then."""
    if len(fleet) == 1:
        (only,) = fleet
        for number, at in enumerate(arrivals):
            only.advance(at)
            only.add(number, at)
    else:
        _dispatch(arrivals, fleet)
    for replica in fleet:
        replica.advance(inf)


def _dispatch(arrivals: list[float], fleet: list[Replica]) -> None:
    loads = [0] * len(fleet)
    changes = [inf] * len(fleet)  # when each changes; older entries of the heap are passed over
    queue: list[tuple[float, int]] = [(inf, -1)]
    for number, at in enumerate(arrivals):
        while queue[0][0] < at:
            due, which = queue[0]
            if due != changes[which]:
                heappop(queue)
                continue
            replica = fleet[which]
            replica.advance(at)
            loads[which] = replica.load
            changes[which] = due = replica.changes_at()
            heapreplace(queue, (due, which))
        which = loads.index(min(loads))
        replica = fleet[which]
        replica.advance(at)
        replica.add(number, at)
        loads[which] += 1
        if changes[which] != replica.at:
            changes[which] = replica.at
            heappush(queue, (replica.at, which))


def _told(load: Load, requests: Requests, fleet: list[Replica], steps: Steps) -> Simulated:
    first, done = np.array(requests.first_at), np.array(requests.done_at)
    wait = np.array(requests.admitted_at) - load.at_s
    several = load.answer > 1
    tpot = (done - first)[several] / (load.answer[several] - 1) * 1000
    whole = done - load.at_s
    busy_s = sum(each.busy_s for each in fleet)
    span = max(load.span_s, float(done.max()))
    served = float((done - requests.admitted_at).max())
    return Simulated(
        replicas=len(fleet),
        requests=len(load),
        ttft_s=spread(first - load.at_s),
        tpot_ms=spread(tpot),
        whole_s=spread(whole),
        wait_s=spread(wait),
        waiting=float(wait.sum()) / span,  # Little's law
        busy=busy_s / span / len(fleet),
        kv=sum(each.kv_token_s for each in fleet) / busy_s / steps.kv_tokens,
        batch=sum(each.sequence_s for each in fleet) / busy_s,
        tokens_per_s=float(load.answer.sum()) / span,
        keeps_up=bool(done.max() <= load.span_s * 1.01 + served),
    )


def spread(values: NDArray[np.float64]) -> Spread:
    """Percentiles, between neighbours in a line. Of nothing: zero."""
    if not len(values):
        return Spread(0.0, 0.0, 0.0)
    return Spread(*(float(each) for each in np.percentile(values, (50, 95, 99))))


def misses(simulated: Simulated, targets: Targets) -> tuple[str, ...]:
    """What is not met, in words; nothing where all is. Availability is not a matter of speed."""
    measured = (
        ("TTFT", simulated.ttft_s.p95 * 1000, targets.ttft_ms, "ms"),
        ("TPOT", simulated.tpot_ms.p95, targets.tpot_ms, "ms"),
        ("the whole answer", simulated.whole_s.p95, targets.whole_s, "s"),
    )
    found = [
        f"{name} at p95 is {value:,.1f} {unit}, and {wanted:,.1f} {unit} is wanted"
        for name, value, wanted, unit in measured
        if wanted is not None and value > wanted
    ]
    if not simulated.keeps_up:
        found.append("requests come faster than they are done")
    return tuple(found)


def replicas_needed(
    load: Load,
    times: StepTimes,
    targets: Targets,
    batching: Batching = USUAL,
    cached_share: float = 0.0,
    most: int = MOST_REPLICAS,
) -> Need | Unmet:
    """By doubling, then bisection: more replicas make nothing slower."""
    hopeless = misses(alone(load, times, batching, cached_share), targets)
    if hopeless:
        return Unmet(f"Even alone on a replica, {hopeless[0]}.")
    tried: dict[int, Simulated] = {}

    def is_enough(replicas: int) -> bool:
        tried[replicas] = simulate(load, times, replicas, batching, cached_share)
        return not misses(tried[replicas], targets)

    enough, too_few = 1, 0
    while not is_enough(enough):
        if enough == most:
            return Unmet(f"With {most:,} replicas, {misses(tried[most], targets)[0]}.")
        enough, too_few = min(enough * 2, most), enough
    while enough - too_few > 1:
        middle = (enough + too_few) // 2
        if is_enough(middle):
            enough = middle
        else:
            too_few = middle
    return Need(tried[enough], tried.get(too_few))


def alone(
    load: Load, times: StepTimes, batching: Batching = USUAL, cached_share: float = 0.0
) -> Simulated:
    """Each request (of a thousand of them, evenly taken) with a replica to itself: nothing
    is faster."""
    _check(load, times)
    chosen = np.linspace(0, len(load) - 1, min(len(load), 1000)).astype(np.int64)
    apart_s = 1e6
    spaced = Load(
        np.arange(len(chosen), dtype=np.float64) * apart_s,
        load.prompt[chosen],
        load.answer[chosen],
        np.full(len(chosen), -1),
        len(chosen) * apart_s,
    )
    return simulate(spaced, times, 1, batching, cached_share)
