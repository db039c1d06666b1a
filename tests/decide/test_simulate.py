"""The simulation against a plain one, queueing theory, and what must hold of any."""

import math
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from freehold.core.errors import UserError
from freehold.core.plan import StepTimes, Targets
from freehold.decide.load.arrivals import Load
from freehold.decide.load.replica import Batching
from freehold.decide.load.simulate import (
    Need,
    Unmet,
    alone,
    answered,
    misses,
    replicas_needed,
    simulate,
)
from tests.decide.plain import Linear, plainly


def load_of(
    count: int, a_second: float, seed: int = 1, adapters: int = 0, longest: int = 3000
) -> Load:
    dice = np.random.default_rng(seed)
    at_s = np.cumsum(dice.exponential(1 / a_second, count))
    adapter = dice.integers(adapters, size=count) if adapters else np.full(count, -1)
    return Load(
        at_s,
        np.minimum(dice.lognormal(6, 1, count).astype(np.int64) + 1, longest),
        np.minimum(dice.lognormal(4, 1, count).astype(np.int64) + 1, longest),
        adapter,
        float(at_s[-1]),
    )


@dataclass(frozen=True)
class Roofline:
    """The longer of computing and moving: bent, not a line."""

    kv_tokens: int = 60_000

    def prefill_s(self, tokens: int, context_tokens: int) -> float:
        computed_s = tokens * 3e-5 + 2e-10 * tokens * (context_tokens + tokens / 2)
        return 0.002 + max(computed_s, 0.012 + context_tokens * 4e-8)

    def decode_s(self, sequences: int, context_tokens: int) -> float:
        return 0.002 + max(sequences * 3e-4, 0.012 + context_tokens * 2e-7)


SITUATIONS: dict[str, tuple[StepTimes, int, float, Batching, float, int]] = {
    "quiet": (Linear(), 1, 1.0, Batching(), 0.0, 0),
    "busy": (Linear(), 1, 14.0, Batching(sequences=64, step_tokens=512), 0.0, 0),
    "overloaded": (Linear(), 1, 40.0, Batching(sequences=32), 0.0, 0),
    "short of memory": (Linear(kv_tokens=7000), 1, 6.0, Batching(), 0.0, 0),
    "several replicas": (Linear(), 3, 30.0, Batching(sequences=16), 0.0, 0),
    "many replicas": (Linear(kv_tokens=9000), 12, 60.0, Batching(), 0.0, 0),
    "half of it cached": (Linear(), 2, 20.0, Batching(), 0.5, 0),
    "adapters": (Linear(), 2, 10.0, Batching(adapter_places=3, adapter_switch_s=0.05), 0.0, 9),
    "reading and writing in turns": (Linear(), 2, 25.0, Batching(mixes=False), 0.0, 0),
    "nothing for the context": (Linear(pair=0, look=0), 1, 8.0, Batching(), 0.0, 0),
    "bent": (Roofline(), 1, 10.0, Batching(), 0.0, 0),
    "bent, with replicas": (Roofline(), 4, 50.0, Batching(step_tokens=512), 0.2, 0),
}


@pytest.mark.parametrize("name", SITUATIONS)
def test_counting_ahead_gives_what_single_steps_give(name: str) -> None:
    times, replicas, a_second, batching, cached, adapters = SITUATIONS[name]
    # What is bent is taken as lines.
    near = 1e-6 if isinstance(times, Linear) else 0.02
    load = load_of(400, a_second, adapters=adapters)
    fast = simulate(load, times, replicas, batching, cached)
    first, done = (np.array(each) for each in plainly(load, times, replicas, batching, cached))
    for found, plain in ((fast.ttft_s, first), (fast.whole_s, done)):
        wanted = np.percentile(plain - load.at_s, (50, 95, 99))
        assert (found.p50, found.p95, found.p99) == pytest.approx(wanted.tolist(), rel=near)
    several = load.answer > 1
    tpot = (done - first)[several] / (load.answer[several] - 1) * 1000
    assert fast.tpot_ms.p95 == pytest.approx(np.percentile(tpot, 95), rel=near)


def test_in_turns_a_first_token_comes_before_the_others_write_again() -> None:
    times = Linear(pair=0, look=0)
    two = np.array([100, 300]), np.array([40, 2]), np.full(2, -1)
    begun_s, second_s = (0.01 + tokens * 2e-5 for tokens in (100, 300))
    step_s = 0.01 + 1e-4
    load = Load(np.array([0.0, begun_s + 2.5 * step_s]), *two, 10.0)
    first, done = answered(load, times, 1, Batching(mixes=False))
    mixed, _ = answered(load, times, 1, Batching())
    assert first[1] == pytest.approx(begun_s + 3 * step_s + second_s)
    assert done[1] == pytest.approx(first[1] + 0.01 + 2e-4)
    assert mixed[1] > first[1]


@pytest.mark.parametrize("share", [0.3, 0.6, 0.8])
def test_one_at_a_time_with_a_fixed_length_waits_as_in_m_d_1(share: float) -> None:
    """Pollaczek and Khinchine: a mean wait of share * service / (2 * (1 - share))."""
    count, service_s = 150_000, 0.1
    times = Linear(step=0.0, read=service_s / 100, pair=0)
    at_s = np.cumsum(np.random.default_rng(3).exponential(service_s / share, count))
    ones = np.ones(count, dtype=np.int64)
    found = simulate(
        Load(at_s, ones * 100, ones, ones * -1, float(at_s[-1])), times, 1, Batching(sequences=1)
    )
    waited = found.waiting * float(at_s[-1]) / count
    assert waited == pytest.approx(share * service_s / (2 * (1 - share)), rel=0.05)
    assert found.busy == pytest.approx(share, rel=0.02)


@pytest.mark.parametrize(("places", "share"), [(1, 0.5), (4, 0.8)])
def test_places_with_exponential_work_are_waited_for_as_in_m_m_c(places: int, share: float) -> None:
    """Erlang C, for what waits and how long."""
    count, step_s, steps = 150_000, 0.001, 400
    dice = np.random.default_rng(4)
    service_s = steps * step_s
    at_s = np.cumsum(dice.exponential(service_s / (share * places), count))
    answer = dice.geometric(1 / steps, count) + 1
    ones = np.ones(count, dtype=np.int64)
    times = Linear(step=step_s, read=0, pair=0, write=0, look=0, kv_tokens=10**6)
    load = Load(at_s, ones, answer, ones * -1, float(at_s[-1]))
    found = simulate(load, times, 1, Batching(sequences=places))
    offered = share * places
    tail = offered**places / math.factorial(places) / (1 - share)
    waits = tail / (sum(offered**k / math.factorial(k) for k in range(places)) + tail)
    expected_s = waits * service_s / (places * (1 - share))
    # A step's length and the step that reads are not in the theory.
    assert found.waiting * float(at_s[-1]) / count == pytest.approx(expected_s, rel=0.07)


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10**6), a_second=st.floats(1, 60), replicas=st.integers(1, 6))
def test_more_replicas_are_never_slower(seed: int, a_second: float, replicas: int) -> None:
    load = load_of(300, a_second, seed)
    few = simulate(load, Linear(), replicas)
    more = simulate(load, Linear(), replicas * 2)
    # Who gets which replica changes, so single requests may fare worse by a step or two.
    assert more.ttft_s.p95 <= few.ttft_s.p95 * 1.05 + 2 * Linear().step
    assert more.whole_s.p95 <= few.whole_s.p95 * 1.02


@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_more_traffic_never_needs_fewer_replicas(seed: int) -> None:
    wanted, needed = Targets(ttft_ms=300, tpot_ms=18), []
    for a_second in (10, 30, 90):
        # The same requests, closer together.
        found = replicas_needed(load_of(300, a_second, seed), Linear(), wanted)
        assert isinstance(found, Need)
        assert not misses(found.simulated, wanted)
        assert found.one_fewer is None or misses(found.one_fewer, wanted)
        needed.append(found.simulated.replicas)
    assert needed == sorted(needed)
    assert needed[-1] > 1


def test_the_least_number_is_one_more_than_what_is_not_enough() -> None:
    found = replicas_needed(load_of(500, 60), Linear(), Targets(ttft_ms=100))
    assert isinstance(found, Need)
    assert found.one_fewer is not None
    assert found.one_fewer.replicas == found.simulated.replicas - 1
    assert found.one_fewer.ttft_s.p95 > 0.1 >= found.simulated.ttft_s.p95


def test_without_targets_what_comes_has_to_be_done_in_time() -> None:
    found = replicas_needed(load_of(3000, 60), Linear(), Targets())
    assert isinstance(found, Need)
    assert found.simulated.keeps_up
    assert found.one_fewer is None or not found.one_fewer.keeps_up


def test_what_no_number_of_replicas_reaches_is_said() -> None:
    found = replicas_needed(load_of(100, 1), Linear(), Targets(tpot_ms=5))
    assert found == Unmet(
        "Even alone on a replica, TPOT at p95 is "
        f"{alone(load_of(100, 1), Linear()).tpot_ms.p95:,.1f} ms, and 5.0 ms is wanted."
    )


def test_a_request_larger_than_the_memory_is_refused() -> None:
    with pytest.raises(UserError, match=r"memory for 1,000: choose more or larger"):
        simulate(load_of(100, 1), Linear(kv_tokens=1000))


def test_a_load_without_requests_is_refused() -> None:
    none = np.zeros(0, dtype=np.int64)
    with pytest.raises(UserError, match="no requests"):
        simulate(Load(np.zeros(0), none, none, none, 60.0), Linear())


def test_everything_is_written_and_counted() -> None:
    load = load_of(200, 5)
    found = simulate(load, Linear(), 2)
    assert found.requests == 200
    assert found.tokens_per_s * (load.span_s + 60) > int(load.answer.sum())
    assert 0 < found.kv < 1
    assert 0 < found.busy < 1
    assert found.batch >= 1
