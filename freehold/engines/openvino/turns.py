"""Whose turn it is: waiting sequences, in an order fair between tenants by tokens.

Each tenant has a counter of the tokens that it was served, and the next turn is of the
waiting tenant with the smallest (Sheng et al., "Fairness in Serving Large Language
Models"). Whoever comes back starts from the smallest counter of those who wait, so that
nobody can save up turns. Two rules stand above the counters, and both are slow: a tenant
that runs nothing and has waited for `patience_s` comes first, and batch work, which comes
after all interactive, is treated as interactive once in `batch_patience_s`.
"""

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field
from heapq import heappop, heappush, heapreplace

from freehold.core.binding import Priority
from freehold.engines.openvino.sequence import Sequence

_NOBODY: frozenset[Priority] = frozenset()
_BATCH = frozenset({Priority.BATCH})
_ANYBODY = frozenset(Priority)


@dataclass(slots=True)
class Tenant:
    name: str
    served: float = 0.0  # weighted tokens; never falls
    running: int = 0
    filled: int = 0  # the filling step that it last had a part in


@dataclass(order=True, slots=True)
class _Rank:
    """How soon a waiting sequence comes; the smallest first."""

    is_patient: bool  # False: starving, and then `key` is the time since when
    key: float
    arrival: int
    line: "_Line" = field(compare=False)
    sequence: Sequence = field(compare=False)


class _Line:
    """The waiting sequences of one priority. Times are None until the next `tick`."""

    def __init__(self) -> None:
        self.queues: dict[str, OrderedDict[str, Sequence]] = {}
        self.starving: OrderedDict[str, float | None] = OrderedDict()  # longest first
        self.since: float | None = None  # that it has waited, all in all, for a turn
        self._unstamped: list[str] = []
        self._heap: list[tuple[float, int, str]] = []  # at most one entry a tenant
        self._in_heap: set[str] = set()

    def push(self, sequence: Sequence, tenant: Tenant, *, first: bool) -> None:
        queue = self.queues.setdefault(tenant.name, OrderedDict())
        queue[sequence.id] = sequence
        if first:
            queue.move_to_end(sequence.id, last=False)
        if tenant.name not in self._in_heap:
            self._in_heap.add(tenant.name)
            heappush(self._heap, (tenant.served, sequence.arrival, tenant.name))

    def remove(self, sequence: Sequence) -> None:
        queue = self.queues[sequence.tenant]
        del queue[sequence.id]
        if not queue:
            del self.queues[sequence.tenant]
        if not self.queues:
            self.since = None

    def note_hunger(self, tenant: Tenant) -> None:
        if tenant.running or tenant.name not in self.queues:
            self.starving.pop(tenant.name, None)
        elif tenant.name not in self.starving:
            self.starving[tenant.name] = None
            self._unstamped.append(tenant.name)

    def tick(self, now_s: float) -> None:
        for name in self._unstamped:
            if name in self.starving and self.starving[name] is None:
                self.starving[name] = now_s
        self._unstamped.clear()
        if self.since is None and self.queues:
            self.since = now_s

    def smallest(self, tenants: dict[str, Tenant]) -> Sequence | None:
        """The head of the tenant with the smallest counter. Entries of the heap may be
        behind: counters that grew and tenants that left are mended when they surface."""
        while self._heap:
            entry = self._heap[0]
            name = entry[2]
            if name not in self.queues:
                heappop(self._heap)
                self._in_heap.discard(name)
                continue
            head = self.head(name)
            current = (tenants[name].served, head.arrival, name)
            if current == entry:
                return head
            heapreplace(self._heap, current)
        return None

    def head(self, name: str) -> Sequence:
        return next(iter(self.queues[name].values()))

    def rank(self, tenants: dict[str, Tenant], starving_since: float) -> _Rank | None:
        name, since = next(iter(self.starving.items()), ("", None))
        if since is not None and since <= starving_since:
            head = self.head(name)
            return _Rank(False, since, head.arrival, self, head)
        sequence = self.smallest(tenants)
        if sequence is None:
            return None
        return _Rank(True, tenants[sequence.tenant].served, sequence.arrival, self, sequence)


class Turns:
    """Holds the waiting, and counts what tenants were served and how many they run."""

    def __init__(self, patience_s: float, batch_patience_s: float) -> None:
        self._patience_s = patience_s
        self._batch_patience_s = batch_patience_s
        self._tenants: dict[str, Tenant] = {}
        self._lines = {priority: _Line() for priority in Priority}
        self._floor = 0.0  # the smallest counter at the last turn, when anybody waited
        self._running = 0

    def __iter__(self) -> Iterator[Sequence]:
        for line in self._lines.values():
            for queue in line.queues.values():
                yield from queue.values()

    def tenant(self, sequence: Sequence) -> Tenant:
        return self._tenants[sequence.tenant]

    def tick(self, now_s: float) -> None:
        """Dates what began to wait since the last tick."""
        for line in self._lines.values():
            line.tick(now_s)

    def wait(self, sequence: Sequence, *, first: bool = False) -> None:
        tenant = self._tenants.setdefault(sequence.tenant, Tenant(sequence.tenant))
        line = self._lines[sequence.priority]
        if tenant.name not in line.queues:
            head = line.smallest(self._tenants)
            lowest = self.tenant(head).served if head else self._floor
            tenant.served = max(tenant.served, lowest)
        line.push(sequence, tenant, first=first)
        self._note_hunger(tenant)

    def next(self, now_s: float) -> Sequence | None:
        """Who comes next. Until it is admitted or gone nobody else should be, or
        else a large one would wait forever beside small ones."""
        rank = self._next(now_s)
        return rank.sequence if rank else None

    def may_claim_from(self, now_s: float) -> frozenset[Priority]:
        """Of which priorities the next one may take the place of running sequences: it
        waited too long, as a tenant that runs nothing or as interactive beside batch."""
        rank = self._next(now_s)
        if rank is None:
            return _NOBODY
        is_urgent = rank.line is not self._lines[Priority.BATCH] or self._is_batch_due(now_s)
        if not rank.is_patient:
            return _ANYBODY if is_urgent else _BATCH
        since = self._lines[Priority.INTERACTIVE].since
        if rank.sequence.priority is Priority.INTERACTIVE and since is not None:
            return _BATCH if since <= now_s - self._patience_s else _NOBODY
        return _NOBODY

    def admit(self, sequence: Sequence, now_s: float) -> None:
        """It waits no more and runs."""
        line = self._lines[sequence.priority]
        head = line.smallest(self._tenants)
        if head is not None:
            self._floor = max(self._floor, self.tenant(head).served)
        line.remove(sequence)
        line.since = now_s if line.queues else None
        tenant = self._tenants[sequence.tenant]
        tenant.running += 1
        self._running += 1
        self._note_hunger(tenant)

    def leave(self, sequence: Sequence) -> None:
        """It runs no more; one that should run again waits before it leaves."""
        tenant = self._tenants[sequence.tenant]
        tenant.running -= 1
        self._running -= 1
        self._note_hunger(tenant)
        self._forget_when_idle()

    def remove(self, sequence: Sequence) -> None:
        """It waits no more and is gone."""
        self._lines[sequence.priority].remove(sequence)
        self._note_hunger(self._tenants[sequence.tenant])
        self._forget_when_idle()

    def charge(self, sequence: Sequence, tokens: float) -> None:
        self._tenants[sequence.tenant].served += tokens

    def _next(self, now_s: float) -> _Rank | None:
        starving_since = now_s - self._patience_s
        best = self._lines[Priority.INTERACTIVE].rank(self._tenants, starving_since)
        if best is None or self._is_batch_due(now_s):
            batch = self._lines[Priority.BATCH].rank(self._tenants, starving_since)
            if best is None or (batch is not None and batch < best):
                best = batch
        return best

    def _is_batch_due(self, now_s: float) -> bool:
        since = self._lines[Priority.BATCH].since
        return since is not None and since <= now_s - self._batch_patience_s

    def _note_hunger(self, tenant: Tenant) -> None:
        for line in self._lines.values():
            line.note_hunger(tenant)

    def _forget_when_idle(self) -> None:
        """Nobody runs or waits, so nobody is owed anything: all begin anew."""
        if self._running == 0 and not any(line.queues for line in self._lines.values()):
            self._tenants.clear()
            self._lines = {priority: _Line() for priority in Priority}
            self._floor = 0.0
