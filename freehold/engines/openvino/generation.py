"""The thread that owns the model: plans a step, computes it, draws tokens, again."""

import asyncio
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from freehold.engines.openvino.adapters import Adapter
from freehold.engines.openvino.runner import Part, Runner
from freehold.engines.openvino.sample import Bits, Drawn, Sampler, Unusable, sample
from freehold.engines.openvino.scheduler import Scheduler, Step
from freehold.engines.openvino.sequence import Sequence
from freehold.engines.openvino.slots import Slots


class Constraint(Protocol):
    """A form that an answer must keep to, at some point of it."""

    def mask(self) -> Bits | None:
        """The tokens that may come next; None: all."""
        ...

    def accept(self, token: int) -> bool:
        """Goes on by a token; whether the form is whole now, and nothing may follow."""
        ...


@dataclass(frozen=True, slots=True)
class Made:
    """One token of a request. `adapter` is the digest that its slot held while it was
    computed; `reason` is set with the last one: end (the model ended its turn), stop (its
    form is whole), length or error."""

    drawn: Drawn
    adapter: str | None
    reason: str | None


@dataclass(slots=True, eq=False)
class Job:
    """A request inside the engine. `deliver` is called on the event loop."""

    sequence: Sequence
    sampler: Sampler
    ends: frozenset[int]  # tokens that end the model's turn
    deliver: Callable[[Made], None]
    adapter: Adapter | None = None
    constraint: Constraint | None = None
    slot: int = field(default=0, init=False)


class Generation(threading.Thread):
    """Jobs come from the event loop's thread and their tokens go back to it, all of a
    step at once, while the next step is computed."""

    def __init__(
        self,
        runner: Runner,
        scheduler: Scheduler,
        slots: Slots,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        super().__init__(name="generation", daemon=True)
        self._runner = runner
        self._scheduler = scheduler
        self._slots = slots
        self._loop = loop
        self._wake = threading.Condition()
        self._arrived: list[Job] = []
        self._left: list[str] = []
        self._jobs: dict[str, Job] = {}
        self._is_ended = False

    def add(self, job: Job) -> None:
        with self._wake:
            self._arrived.append(job)
            self._wake.notify()

    def abort(self, id: str) -> None:
        """Ends a request after the step that runs; of one that ended it does nothing."""
        with self._wake:
            self._left.append(id)
            self._wake.notify()

    def end(self) -> None:
        with self._wake:
            self._is_ended = True
            self._wake.notify()

    def run(self) -> None:
        while self._take_orders():
            step = self._scheduler.plan(time.monotonic())
            if step is not None:
                self._compute(step)

    def _take_orders(self) -> bool:
        """Waits while there is nothing to do; False at the end."""
        with self._wake:
            self._wake.wait_for(lambda: self._arrived or self._left or self._jobs or self._is_ended)
            arrived, self._arrived = self._arrived, []
            left, self._left = self._left, []
        for job in arrived:
            self._scheduler.add(job.sequence)
            self._jobs[job.sequence.id] = job
        for id in left:
            if self._jobs.pop(id, None) is not None:
                self._scheduler.abort(id)
        return not self._is_ended

    def _compute(self, step: Step) -> None:
        jobs = [self._jobs[item.sequence.id] for item in step.items]
        arrangement = self._slots.arrange([job.adapter for job in jobs])
        self._runner.set_factors(arrangement.tensors)
        parts = []
        for job, item, slot in zip(jobs, step.items, arrangement.slots, strict=True):
            job.slot = slot
            tokens = job.sequence.tokens[item.start : item.start + item.length]
            parts.append(Part(tokens, item.start, job.sequence.blocks, slot, item.chooses))
        logits = self._runner.step(parts, is_bare=arrangement.is_bare)
        chosen = [job for job, item in zip(jobs, step.items, strict=True) if item.chooses]
        masks = [job.constraint.mask() if job.constraint else None for job in chosen]
        drawn = sample(logits, [job.sampler for job in chosen], masks)
        self._scheduler.advance(step, [self._token(one) for one in drawn])
        made = [self._settle(job, one) for job, one in zip(chosen, drawn, strict=True)]
        if made:
            self._loop.call_soon_threadsafe(_deliver, made)

    @staticmethod
    def _token(drawn: Drawn | Unusable) -> int:
        return drawn.token if isinstance(drawn, Drawn) else 0

    def _settle(self, job: Job, drawn: Drawn | Unusable) -> tuple[Job, Made]:
        """What became of a request with its new token."""
        adapter = self._slots.digest(job.slot)
        reason = None
        if isinstance(drawn, Unusable):
            drawn, reason = Drawn(0), "error"
        elif drawn.token in job.ends:
            reason = "end"
        elif job.constraint is not None and job.constraint.accept(drawn.token):
            reason = "stop"
        elif job.sequence.is_full:
            reason = "length"
        if reason is not None:
            del self._jobs[job.sequence.id]
            self._scheduler.finish(job.sequence.id)
        return job, Made(drawn, adapter, reason)


def _deliver(made: list[tuple[Job, Made]]) -> None:
    """Each by itself: a fault with one must not cost the others their token."""
    loop = asyncio.get_running_loop()
    for job, one in made:
        loop.call_soon(job.deliver, one)
