"""The factors that a step reads: those of its adapters, side by side in few slots.

The graph computes each slot below the highest one in use, so the adapters of a step lie
in the first slots, and what moves is copied. A slot is overwritten whole, padding and
linears that the adapter leaves alone included: nothing of what lay there before is read.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import openvino as ov

from freehold.engines.openvino.adapters import NUMPY, Adapter, Kind, Values
from freehold.engines.openvino.shape import SITES, Shape

Tensors = Sequence[tuple[str, ov.Tensor]]
_OPENVINO = {"bf16": ov.Type.bf16, "f32": ov.Type.f32}
_RANK_STEP, _ALIGNMENT = 8, 64
_FEWEST_SLOTS = 4
_COPY_STEPS = 4  # copying an adapter costs about as much as computing it idly so often
_WINDOW = 64  # a pool that was too large for so many arrangements is made smaller
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

    def __init__(self, shape: Shape, kind: Kind) -> None:
        self._shape, self._kind = shape, kind
        self._bare = _bare(shape, kind)
        self._pool: _Pool | None = None
        self._given: tuple[_Pool | None, int] | None = None  # what the graph reads now
        self._keys: list[str | None] = []  # by slot: a digest, None for the base
        self._places: dict[str | None, int] = {}
        self._used: dict[str | None, int] = {}
        self._now = self._wasted = 0
        self._peak_slots = self._peak_rank = 0

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
        return Arrangement(slots, count, pool.rank, self._give(pool, count))

    def digest(self, slot: int) -> str | None:
        """What the slot holds since the last arrangement; None for the bare base."""
        if self._given is None or slot >= self._given[1]:
            raise ValueError("the graph does not read that slot")
        return None if self._given[0] is None else self._keys[slot]

    def _give(self, pool: "_Pool | None", count: int) -> Tensors:
        if self._given == (pool, count):
            return ()
        self._given = pool, count
        return self._bare if pool is None else pool.tensors(count)

    def _fit(self, wanted: Mapping[str | None, Adapter | None]) -> None:
        """A pool that is large enough, and not for long larger than need be."""
        adapters = [each for each in wanted.values() if each is not None]
        slots = _roomy(len(wanted)) if adapters else 0
        rank = max((_round_up(each.rank, _RANK_STEP) for each in adapters), default=0)
        self._peak_slots = max(self._peak_slots, slots)
        self._peak_rank = max(self._peak_rank, rank)
        has = (self._pool.slots, self._pool.rank) if self._pool else (0, 0)
        if self._now % _WINDOW == 0:
            needs = min(has[0], self._peak_slots), min(has[1], self._peak_rank)
            self._peak_slots, self._peak_rank = slots, rank
        else:
            needs = has
        needs = max(needs[0], slots), max(needs[1], rank)
        if needs != has:
            self._begin_again(*needs)

    def _begin_again(self, slots: int, rank: int) -> None:
        self._pool = _Pool(self._shape, self._kind, slots, rank) if slots else None
        self._keys = [_EMPTY] * slots
        self._places.clear()
        self._used.clear()

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

    def _move_together(self, pool: "_Pool", wanted: Mapping[str | None, Adapter | None]) -> None:
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


class _Pool:
    """One piece of memory with room for `slots` adapters of at most `rank`."""

    def __init__(self, shape: Shape, kind: Kind, slots: int, rank: int) -> None:
        self.slots, self.rank = slots, rank
        self._shape, self._kind = shape, kind
        self._arrays: dict[str, Values] = {}
        self._given: dict[int, Tensors] = {}
        item = np.dtype(NUMPY[kind]).itemsize
        sizes = {
            name: _round_up(slots * rows * columns * item, _ALIGNMENT)
            for name, rows, columns in _layout(shape, rank)
        }
        self.size_bytes = sum(sizes.values())
        memory = np.empty(self.size_bytes + _ALIGNMENT, np.uint8)  # written before it is read
        at = -memory.ctypes.data % _ALIGNMENT
        for name, rows, columns in _layout(shape, rank):
            piece = memory[at : at + slots * rows * columns * item]
            self._arrays[name] = piece.view(NUMPY[kind]).reshape(slots, rows, columns)
            at += sizes[name]

    def tensors(self, count: int) -> Tensors:
        """The first `count` slots, where they lie."""
        if count not in self._given:
            self._given[count] = [
                (name, _tensor(array[:count], self._kind)) for name, array in self._arrays.items()
            ]
        return self._given[count]

    def put(self, slot: int, adapter: Adapter | None) -> None:
        """Writes every value of the slot."""
        factors = adapter.factors if adapter else {}
        for layer in range(self._shape.layers):
            for site, linears in SITES:
                first = self._arrays[f"A.{layer}.{site}"][slot]
                for at, linear in enumerate(linears):
                    columns = first[:, at * self.rank : (at + 1) * self.rank]
                    rows = self._arrays[f"B.{layer}.{linear}"][slot]
                    _write(columns, rows, factors.get((layer, linear)))

    def move(self, source: int, target: int) -> None:
        for array in self._arrays.values():
            array[target] = array[source]


def _write(columns: Values, rows: Values, factors: tuple[Values, Values] | None) -> None:
    """A into columns and B into rows of the pool's rank, zeros where they end."""
    rank = 0
    if factors is not None:
        a, b = factors
        rank = b.shape[0]
        columns[:, :rank] = a
        rows[:rank] = b
    columns[:, rank:] = 0
    rows[rank:] = 0


def _layout(shape: Shape, rank: int) -> Iterator[tuple[str, int, int]]:
    """Name, rows and columns of what the graph reads of each slot."""
    sizes = shape.linears()
    for layer in range(shape.layers):
        for site, linears in SITES:
            yield f"A.{layer}.{site}", sizes[linears[0]][0], len(linears) * rank
            for linear in linears:
                yield f"B.{layer}.{linear}", rank, sizes[linear][1]


def _bare(shape: Shape, kind: Kind) -> Tensors:
    """Factors of rank 1 that change nothing, all in the same zeros."""
    layout = list(_layout(shape, 1))
    zeros = np.zeros(max(rows * columns for _, rows, columns in layout), NUMPY[kind])
    return [
        (name, _tensor(zeros[: rows * columns].reshape(1, rows, columns), kind))
        for name, rows, columns in layout
    ]


def _tensor(values: Values, kind: Kind) -> ov.Tensor:
    return ov.Tensor(values, list(values.shape), _OPENVINO[kind])


def _roomy(slots: int) -> int:
    """Room for another set of as many, so that two that alternate both stay."""
    return max(_FEWEST_SLOTS, 1 << (2 * slots - 1).bit_length())


def _round_up(number: int, step: int) -> int:
    return -(-number // step) * step
