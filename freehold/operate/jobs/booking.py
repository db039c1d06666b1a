"""What a job's machine time costs, booked as the use of a request is: it shows in usage and audit
records, and counts for the tenant's budgets."""

import asyncio
from abc import ABC, abstractmethod
from typing import Protocol

from freehold.core.binding import Principal
from freehold.core.clock import Clock
from freehold.core.job import Job, JobState
from freehold.core.limit import Use
from freehold.core.usage import Outcome, Reservation, Settlement
from freehold.serve.limits.limits import Limits
from freehold.store.base import Entries
from freehold.store.ledger import Ledger, entries_of
from freehold.store.sql import SqlStore

_OUTCOMES = {
    JobState.DONE: Outcome.OK,
    JobState.CANCELLED: Outcome.CLIENT_GONE,
    JobState.FAILED: Outcome.FAILED,
}
_PATIENCE_S = 10.0


class Book(Protocol):
    def __call__(self, job: Job, state: JobState, seconds: float, run: int) -> None:
        """May block. `run` tells the ends of one job apart: the same one is booked once."""
        ...


class Booking(ABC):
    """`micro_per_hour`: what the machine costs; where nobody knows, nothing is booked."""

    def __init__(self, clock: Clock, micro_per_hour: int | None) -> None:
        self._clock = clock
        self._micro_per_hour = micro_per_hour

    def __call__(self, job: Job, state: JobState, seconds: float, run: int) -> None:
        if self._micro_per_hour is None or seconds <= 0:
            return
        request_id = f"{job.id.replace('job_', 'req_', 1)}_{run}"
        now_us = self._clock.wall_us()
        reservation = Reservation(
            request_id=request_id,
            tenant_id=job.tenant_id,
            environment=job.environment.value,
            key_id=job.created_by,
            alias=f"{job.kind}:{job.name}",
            endpoint="jobs",
            engine=job.kind.value,
            base_digest=job.spec.get("base"),
            adapter_digest=None,
            conversation_id=None,
            priority="batch",
            stream=False,
            created_at_us=now_us,
        )
        settlement = Settlement(
            request_id=request_id,
            outcome=_OUTCOMES[state],
            tokens_in=0,
            tokens_out=0,
            tokens_cached=0,
            estimated=False,
            ttft_us=None,
            duration_us=round(seconds * 1e6),
            settled_at_us=now_us,
            cost=round(self._micro_per_hour * seconds / 3600),
        )
        self._put(job, reservation, settlement)

    @abstractmethod
    def _put(self, job: Job, reservation: Reservation, settlement: Settlement) -> None: ...


class BookingAtRest(Booking):
    def __init__(self, clock: Clock, micro_per_hour: int | None, store: SqlStore) -> None:
        super().__init__(clock, micro_per_hour)
        self._store = store

    def _put(self, job: Job, reservation: Reservation, settlement: Settlement) -> None:
        entries = Entries()
        for entry in entries_of(reservation, settlement):
            entries.add(entry)
        self._store.apply(entries)


class BookingServed(Booking):
    """Through the gateway's ledger, so that what it counts of limits in memory stays true. Made on
    the event loop, called from threads."""

    def __init__(
        self, clock: Clock, micro_per_hour: int | None, ledger: Ledger, limits: Limits
    ) -> None:
        super().__init__(clock, micro_per_hour)
        self._ledger = ledger
        self._limits = limits
        self._loop = asyncio.get_running_loop()

    def _put(self, job: Job, reservation: Reservation, settlement: Settlement) -> None:
        """Raises `UserError(STORAGE_UNAVAILABLE)`."""
        booked = asyncio.run_coroutine_threadsafe(
            self._book(job, reservation, settlement), self._loop
        )
        booked.result(_PATIENCE_S)

    async def _book(self, job: Job, reservation: Reservation, settlement: Settlement) -> None:
        await self._ledger.reserve(reservation)
        done = self._ledger.settle(settlement)
        who = Principal(job.created_by, job.tenant_id, job.environment, frozenset(), None)
        used = Use(1, 0, settlement.cost)
        self._limits.settle(self._limits.nothing(settlement.request_id), who, used)
        await done
