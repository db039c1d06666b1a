"""How many replicas the busiest hour needs, in closed form: what a planner asks for thousands of
options. The simulation says it better, for the few that matter then."""

from dataclasses import dataclass
from math import ceil, inf, log
from statistics import NormalDist

from freehold.core.facts import Accelerator, Facts, ModelFacts
from freehold.core.plan import Basis, Option, Precision, Predicted, StepTimes, Workload
from freehold.decide.load.replica import Batching
from freehold.decide.load.simulate import USUAL
from freehold.decide.money import demand
from freehold.decide.speed import fitted
from freehold.decide.speed.memory import FORMATS, MXFP4, Format, memory_of
from freehold.decide.speed.throughput import Roofline, efficiency_of, roofline
from freehold.decide.ways.at_hand import AtHand
from freehold.decide.ways.options import context_needed

_FAMILY = "vllm"
_SIGMAS = 1.645  # the 95th percentile of a normal variable
_TRIES = 12  # halvings, to a four-thousandth of the rate
_ROUNDS = 6  # halvings, until as many prompts share a step as come within one
_NOBODY_WAITS = 4.0  # deviations of those at once that are below the places
_STILL_FULL = 8.0  # and that are above them


@dataclass(frozen=True, slots=True)
class Needed:
    """Replicas that the busiest hour needs, and what they make of it."""

    replicas: int
    predicted: Predicted


class Sizing:
    """`planner.Replicas`, by the fitted roofline: the most requests a second that a replica takes
    below the ceiling of utilization and within the targets, and how many replicas the peak is.
    What a replica takes does not follow from how many requests there are, so it is kept."""

    def __init__(self, facts: Facts, at_hand: AtHand | None = None) -> None:
        self._facts, self._at_hand = facts, at_hand
        self._known: dict[tuple[object, ...], tuple[_Asked, float] | None] = {}

    def __call__(self, option: Option, workload: Workload) -> Needed | None:
        key = _asked_of(option, workload)
        if key not in self._known:
            self._known[key] = self._takes(option, workload)
        known = self._known[key]
        if known is None:
            return None
        asked, most = known
        # With bursts, a minute of the busiest hour may have a deviation more.
        a_second = busiest_a_second(workload) * (1 + workload.bursts)
        replicas = max(1, ceil(a_second / most))
        return Needed(replicas, _predicted(asked, a_second / replicas, workload))

    def _takes(self, option: Option, workload: Workload) -> "tuple[_Asked, float] | None":
        replica = self.replica(option, workload)
        asked = None if replica is None else _Asked(*replica, workload)
        most = None if asked is None else _most_a_second(asked)
        return None if asked is None or most is None else (asked, most)

    def replica(self, option: Option, workload: Workload) -> tuple[Roofline, Batching] | None:
        """How long its steps take, and what goes into one; None where it does not fit."""
        here, name = self._at_hand, option.accelerator or ""
        stored = here.models if here is not None else ()
        model = self._facts.models.get(option.model) or next(
            each for each in stored if each.id == option.model
        )
        if here is not None and here.is_measured(name):
            precision = option.precision or Precision.BF16
            times = here.times(
                model,
                precision,
                context_needed(workload),
                workload.tenants_with_adapters,
                workload.adapter_rank,
            )
            return None if times is None else (times, here.batching)
        times = times_of(option, model, self._facts.accelerators[name], workload)
        return None if times is None else (times, USUAL)


def _asked_of(option: Option, workload: Workload) -> tuple[object, ...]:
    """All that the most requests of a replica follow from."""
    return (
        option.model,
        option.precision,
        option.accelerator,
        option.accelerators_a_replica,
        workload.prompt,
        workload.answer,
        workload.cached_share,
        workload.targets,
        workload.context_length,
        workload.tenants_with_adapters,
        workload.adapter_rank,
        workload.economics.utilization_ceiling,
    )


def busiest_a_second(workload: Workload) -> float:
    """Requests, in the busiest hour of the last month."""
    return float(demand.peak(workload)) * float(demand.growth(workload)[-1]) / 3600


def _predicted(asked: "_Asked", rate: float, workload: Workload) -> Predicted:
    found = asked.at(rate)
    ttft, tpot = found or (None, None)
    whole = None if ttft is None or tpot is None else ttft + asked.longest_answer * tpot
    return Predicted(
        Basis.CLOSED_FORM,
        None if ttft is None else ttft * 1000,
        None if tpot is None else tpot * 1000,
        whole,
        busiest_a_second(workload) * asked.answer,
    )


def times_of(
    option: Option, model: ModelFacts, accelerator: Accelerator, workload: Workload
) -> Roofline | None:
    """A replica's step times; None where it does not fit, or its shape is not known."""
    precision = option.precision or Precision.BF16
    kept = _kept(model, precision)
    memory = memory_of(
        model,
        accelerator,
        option.accelerators_a_replica,
        kept,
        context=context_needed(workload),
        adapters=workload.tenants_with_adapters,
        rank=workload.adapter_rank,
    )
    if not memory.fits:
        return None
    # Products are of 8-bit floats where both sides are; with int8 and int4 weights alone are.
    computed_in = "fp8" if precision is Precision.FP8 else "bf16"
    efficiency = efficiency_of(
        fitted.VALUES, _FAMILY, accelerator, computed_in, bool(model.experts), kept.bits
    )
    return roofline(
        model, accelerator, option.accelerators_a_replica, kept, memory, efficiency,
        computed_in=computed_in, family=_FAMILY,
    )  # fmt: skip


def _kept(model: ModelFacts, precision: Precision) -> Format:
    return MXFP4 if model.native_quantization == MXFP4.name else FORMATS[precision]


def most_a_second(
    times: StepTimes,
    batching: Batching,
    workload: Workload,
    sigmas: float = _SIGMAS,
    replicas: int | None = None,
) -> float | None:
    """Requests that a replica takes within the targets; None where it takes none. `sigmas` are of
    the percentile that the targets are at, from a normal variable's mean. As many `replicas` take
    them from one queue; None: so many that one of them has a place."""
    return _most_a_second(_Asked(times, batching, workload, sigmas, replicas))


class _Asked:
    """A workload's requests on one replica."""

    def __init__(
        self,
        times: StepTimes,
        batching: Batching,
        workload: Workload,
        sigmas: float = _SIGMAS,
        replicas: int | None = None,
    ) -> None:
        self.times, self.targets, self.sigmas = times, workload.targets, sigmas
        self.replicas = replicas
        prompt = float(demand.mean(workload.prompt))
        self.answer = float(demand.mean(workload.answer))
        self.held = prompt + self.answer / 2  # tokens of context, on the average
        share = 1 - workload.cached_share
        read = max(1, round(prompt * share))
        self.reading_s = times.prefill_s(read, round(prompt - read))
        twice = times.prefill_s(2 * read, round(prompt - read))
        self.more_s = min(twice - self.reading_s, self.reading_s)
        self.most_together = max(1, batching.step_tokens // read)
        longest = max(workload.prompt.quantiles)
        new = max(1, round(longest * share))
        self.longest_s = times.prefill_s(new, longest - new)
        self.chunks = -(-new // batching.step_tokens)
        self.longest_answer = max(workload.answer.quantiles)
        fits = int(times.kv_tokens // max(prompt + self.answer, 1))
        self.batch = max(1, min(batching.sequences, fits))
        self.ceiling = workload.economics.utilization_ceiling
        self.alone_s = self.step_s(1)
        self.another_s = (self.step_s(self.batch) - self.alone_s) / max(self.batch - 1, 1)

    def step_s(self, batch: float) -> float:
        return self.times.decode_s(ceil(batch), round(batch * self.held))

    def at(self, rate: float) -> tuple[float, float] | None:
        """TTFT and TPOT near the 95th percentile; None where requests come faster than they
        are done. Prompts take ρ = λ·r of the time, so that a token comes each s / (1 − ρ); by
        Little's law λ·a·s / (1 − ρ) answers are written at once, Poisson about that. A prompt
        waits ρ·r / (2(1 − ρ)) on the average (M/D/1), 95 % some three times that at most, and
        each of its parts is read in one step with the others' tokens. λ·a·t prompts come while
        an answer is written at t a token, Poisson too: t = s + r·(λ·a·t + z·√(λ·a·t)) / a, a
        square in √t. Prompts that come within a step share
        the next. Those that come to a full batch wait for a place, and a batch of one is never
        interrupted."""
        few, many = 1.0, float(self.most_together)
        found = self._at(rate, self._reading_s(many))
        for _ in range(_ROUNDS if found is not None and rate * found[1] < many else 0):
            together = (few + many) / 2
            less = self._at(rate, self._reading_s(together))
            if less is None or rate * less[1] > together:
                few = together
            else:
                many, found = together, less
        return found

    def shared_s(self) -> float:
        """What a request takes of the time of a replica that is never idle."""
        step = self.step_s(self.batch)
        return self._reading_s(self.most_together) + self.answer * step / self.batch

    def _reading_s(self, together: float) -> float:
        """Of a prompt, of so many that came since the last step and are read in one."""
        return self.reading_s - (self.reading_s - self.more_s) * (1 - 1 / together)

    def _at(self, rate: float, reading_s: float) -> tuple[float, float] | None:
        busy = rate * reading_s
        alone, more = self.alone_s, self.another_s
        left = 1 - busy - rate * self.answer * more
        if busy >= 1 or left <= 0:
            return None
        writing = rate * self.answer * max(alone - more, 0.0) / left
        if writing > self.batch:
            return None
        crowd = min(max(1.0, writing + self.sigmas * writing**0.5), self.batch)
        step = self.step_s(crowd)
        waits = 3 * busy * reading_s / (2 * (1 - busy))
        others = (self.batch - 1) / self.batch
        left = 1 - busy * others
        swing = self.sigmas * reading_s * others * (rate / self.answer) ** 0.5
        tpot = ((swing + (swing**2 + 4 * left * step) ** 0.5) / (2 * left)) ** 2
        waits += self._for_a_place(writing + busy, rate)
        return waits + self.longest_s + self.chunks * step, tpot

    def _for_a_place(self, at_once: float, rate: float) -> float:
        """Seconds at the percentile of `sigmas`, where so many are there at once: Erlang's C of
        those that wait at all, who wait half as long as with times that are exponential."""
        if self.replicas is None:
            return 0.0
        places, held = self.batch * self.replicas, at_once * self.replicas
        if held + _NOBODY_WAITS * held**0.5 < places:
            return 0.0
        if held >= places:
            return inf
        # Erlang's B by its recursion, begun where it is still 1 − places / load to 10^-13.
        begin = max(0, int(held - _STILL_FULL * held**0.5))
        blocked = 1 - begin / held
        for place in range(begin + 1, places + 1):
            blocked = held * blocked / (place + held * blocked)
        waiting = blocked / (1 - held / places * (1 - blocked))
        beyond = 1 - NormalDist().cdf(self.sigmas)
        if waiting <= beyond:
            return 0.0
        return at_once / rate / (places - held) * log(waiting / beyond) / 2

    def meets(self, rate: float) -> bool:
        """Looks at the ends first: with as many prompts in a step as fit, and with one."""
        if not self._is_met(self._at(rate, self._reading_s(self.most_together))):
            return False
        return self._is_met(self._at(rate, self.reading_s)) or self._is_met(self.at(rate))

    def _is_met(self, found: tuple[float, float] | None) -> bool:
        if found is None:
            return False
        (ttft, tpot), wanted = found, self.targets
        return (
            (wanted.ttft_ms is None or ttft * 1000 <= wanted.ttft_ms)
            and (wanted.tpot_ms is None or tpot * 1000 <= wanted.tpot_ms)
            and (wanted.whole_s is None or ttft + self.longest_answer * tpot <= wanted.whole_s)
        )


def _most_a_second(asked: _Asked) -> float | None:
    """Requests; None where not even one at a time is quick enough."""
    most = asked.ceiling / asked.shared_s()
    wanted = asked.targets
    if wanted.ttft_ms is None and wanted.tpot_ms is None and wanted.whole_s is None:
        return most
    if asked.meets(most):
        return most
    enough, too_many = 0.0, most
    for _ in range(_TRIES):
        middle = (enough + too_many) / 2
        if asked.meets(middle):
            enough = middle
        else:
            too_many = middle
    return enough or None
