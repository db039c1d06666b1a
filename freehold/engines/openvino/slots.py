"""The factors that a step reads: those of its adapters, side by side in few slots.

The graph computes each slot below the highest one in use, so the adapters of a step lie
in the first slots, and what moves is copied. A slot is overwritten whole, padding and
linears that the adapter leaves alone included: nothing of what lay there before is read.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from freehold.engines.openvino.adapters import Adapter, Kind
from freehold.engines.openvino.pool import Pool, Tensors, bare, round_up
from freehold.engines.openvino.shape import Shape

_RANK_STEP = 8
_COPY_STEPS = 4  # copying an adapter costs about as much as computing it idly so often
_WINDOW = 256  # memory that so many arrangements did not need is given back
_EMPTY = ""


@dataclass(frozen=True, slots=True)
class Arrangement:
    """`slots` in the order of what was asked, `count` of them for the graph to compute:
    the highest in use and all below. `tensors` are to be set before the step; there are
    none when those of the step before still hold. `is_bare`: no adapter is in it."""

    slots: tuple[int, ...]
    count: int
    rank: int
    tensors: Tensors
    is_bare: bool = False

    @property
    def changed(self) -> bool:
        return bool(self.tensors)


class Slots:
    """Used by the thread that runs the steps, between them."""

    def __init__(self, shape: Shape, kind: Kind, most: int) -> None:
        """`most`: as many adapters are expected in a step; more are served, too."""
        self._shape, self._kind, self._most = shape, kind, most
        self._bare = bare(shape, kind)
        self._pool: Pool | None = None
        self._given: tuple[Pool | None, int] | None = None  # what the graph reads now
        self._keys: list[str | None] = []  # by slot: a digest, None for the base
        self._places: dict[str | None, int] = {}
        self._used: dict[str | None, int] = {}
        self._now = self._wasted = 0
        self._peak_count = self._peak_rank = 0

    @property
    def size_bytes(self) -> int:
        return 0 if self._pool is None else self._pool.size_bytes

    def arrange(self, active: Sequence[Adapter | None]) -> Arrangement:
        """Places the adapters of the next step; None is the bare base, and adapters may
        come more than once. They are not needed afterwards."""
        wanted = {each.digest if each else None: each for each in active}
        self._now += 1
        self._fit(wanted)
        pool = self._pool
        if pool is None or all(each is None for each in wanted.values()):
            return Arrangement((0,) * len(active), 1, 1, self._give(None, 1), is_bare=True)
        for key in wanted:
            self._used[key] = self._now
        for key, adapter in wanted.items():
            if key not in self._places:
                slot = self._free_slot()
                pool.put(slot, adapter)
                self._take(slot, key)
        self._move_together(pool, wanted)
        slots = tuple(self._places[each.digest if each else None] for each in active)
        count = max(slots) + 1
        self._peak_count = max(self._peak_count, count)
        return Arrangement(slots, count, pool.rank, self._give(pool, count))

    def digest(self, slot: int) -> str | None:
        """What the slot holds since the last arrangement; None for the bare base."""
        if self._given is None or slot >= self._given[1]:
            raise ValueError("the graph does not read that slot")
        return None if self._given[0] is None else self._keys[slot]

    def _give(self, pool: Pool | None, count: int) -> Tensors:
        if self._given == (pool, count):
            return ()
        self._given = pool, count
        return self._bare if pool is None else pool.tensors(count)

    def _fit(self, wanted: Mapping[str | None, Adapter | None]) -> None:
        """A pool of the rank that is needed, and not for long a higher one."""
        adapters = [each for each in wanted.values() if each is not None]
        rank = max((round_up(each.rank, _RANK_STEP) for each in adapters), default=0)
        self._peak_rank = max(self._peak_rank, rank)
        is_due = self._now % _WINDOW == 0
        if self._pool is None:
            if rank:
                self._begin_again(len(wanted), rank)
        elif rank > self._pool.rank or len(wanted) > self._pool.slots:
            self._begin_again(len(wanted), max(rank, self._pool.rank))
        elif is_due and self._peak_rank < self._pool.rank:
            self._begin_again(len(wanted), self._peak_rank)
        elif is_due:
            self._give_back(self._pool, self._peak_count)
        if is_due:
            self._peak_rank, self._peak_count = rank, 0

    def _begin_again(self, fewest: int, rank: int) -> None:
        self._pool = self._reserve(fewest, rank) if rank else None
        self._keys = [_EMPTY] * (self._pool.slots if self._pool else 0)
        self._places.clear()
        self._used.clear()

    def _reserve(self, fewest: int, rank: int) -> Pool:
        """Room for two sets of adapters, so that two that alternate both stay; less on a
        system that reserves no memory beyond what it has."""
        slots = 2 * max(fewest, self._most)
        while True:
            try:
                return Pool(self._shape, self._kind, slots, rank)
            except OSError:
                if slots == fewest:
                    raise
                slots = max(fewest, slots // 2)

    def _give_back(self, pool: Pool, first: int) -> None:
        for slot in range(first, pool.slots):
            self._take(slot, _EMPTY)
        pool.give_back(first)

    def _free_slot(self) -> int:
        """The lowest that is empty or was not used lately; else the longest unused, which
        is none of this step's, as the pool has room for more."""
        for slot, key in enumerate(self._keys):
            if key == _EMPTY or self._now - self._used[key] > _COPY_STEPS:
                return slot
        return self._places[min(self._keys, key=self._used.__getitem__)]

    def _take(self, slot: int, key: str | None) -> None:
        before = self._keys[slot]
        if before != _EMPTY:
            del self._places[before], self._used[before]
        self._keys[slot] = key
        if key != _EMPTY:
            self._places[key] = slot
            self._used[key] = self._now

    def _move_together(self, pool: Pool, wanted: Mapping[str | None, Adapter | None]) -> None:
        """Down into the slots that idle ones hold, once these have cost as much."""
        fewest = len(wanted)
        upper = sorted(slot for key in wanted if (slot := self._places[key]) >= fewest)
        if not upper:
            self._wasted = 0
            return
        self._wasted += upper[-1] + 1 - fewest
        if self._wasted < _COPY_STEPS * len(upper):
            return
        self._wasted = 0
        idle = [slot for slot in range(fewest) if self._keys[slot] not in wanted]
        for source, target in zip(upper, idle, strict=True):
            key = self._keys[source]
            pool.move(source, target)
            self._take(source, _EMPTY)
            self._take(target, key)
