"""The memory that the graph reads the adapters' factors from.

Room for as many slots as there may ever be is reserved at once, and a slot takes memory
when it is first written: so one more adapter never means copying those that are there.
"""

import mmap
from collections.abc import Iterator, Sequence

import numpy as np
import openvino as ov

from freehold.engines.openvino.adapters import NUMPY, Adapter, Kind, Values
from freehold.engines.openvino.shape import SITES, Shape

Tensors = Sequence[tuple[str, ov.Tensor]]
_OPENVINO = {"bf16": ov.Type.bf16, "f32": ov.Type.f32}
_ALIGNMENT = 64


class Pool:
    """Slots for at most `slots` adapters of at most `rank`. For one thread."""

    def __init__(self, shape: Shape, kind: Kind, slots: int, rank: int) -> None:
        """Raises `OSError` where the system does not let so much be reserved."""
        self.slots, self.rank = slots, rank
        self._shape, self._kind = shape, kind
        self._arrays: dict[str, Values] = {}
        self._begins: dict[str, int] = {}
        self._given: dict[int, Tensors] = {}
        self._touched = 0
        item = np.dtype(NUMPY[kind]).itemsize
        at = 0
        for name, rows, columns in layout(shape, rank):
            self._begins[name] = at
            at = round_up(at + slots * rows * columns * item, _ALIGNMENT)
        self._memory = _reserved(at)
        for name, rows, columns in layout(shape, rank):
            piece = np.frombuffer(
                self._memory, NUMPY[kind], slots * rows * columns, self._begins[name]
            )
            self._arrays[name] = piece.reshape(slots, rows, columns)

    @property
    def size_bytes(self) -> int:
        """Of the slots that were written."""
        return self._touched * int(sum(array[0].nbytes for array in self._arrays.values()))

    def tensors(self, count: int) -> Tensors:
        """The first `count` slots, where they lie."""
        if count not in self._given:
            self._given[count] = [
                (name, _tensor(array[:count], self._kind)) for name, array in self._arrays.items()
            ]
        return self._given[count]

    def put(self, slot: int, adapter: Adapter | None) -> None:
        """Writes every value of the slot."""
        self._touched = max(self._touched, slot + 1)
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

    def give_back(self, first: int) -> None:
        """The memory of that slot and those above: what they held is gone."""
        if first >= self._touched or not hasattr(mmap, "MADV_DONTNEED"):
            return
        page = mmap.PAGESIZE
        for name, array in self._arrays.items():
            begin = round_up(self._begins[name] + first * array[0].nbytes, page)
            end = (self._begins[name] + self._touched * array[0].nbytes) // page * page
            if begin < end:
                self._memory.madvise(mmap.MADV_DONTNEED, begin, end - begin)
        self._touched = first


def layout(shape: Shape, rank: int) -> Iterator[tuple[str, int, int]]:
    """Name, rows and columns of what the graph reads of each slot."""
    sizes = shape.linears()
    for layer in range(shape.layers):
        for site, linears in SITES:
            yield f"A.{layer}.{site}", sizes[linears[0]][0], len(linears) * rank
            for linear in linears:
                yield f"B.{layer}.{linear}", rank, sizes[linear][1]


def bare(shape: Shape, kind: Kind) -> Tensors:
    """Factors of rank 1 that change nothing, all in the same zeros."""
    sizes = list(layout(shape, 1))
    zeros = np.zeros(max(rows * columns for _, rows, columns in sizes), NUMPY[kind])
    return [
        (name, _tensor(zeros[: rows * columns].reshape(1, rows, columns), kind))
        for name, rows, columns in sizes
    ]


def round_up(number: int, step: int) -> int:
    return -(-number // step) * step


def _reserved(size_bytes: int) -> mmap.mmap:
    """Private memory that counts for nothing until it is written, page by page: in large
    pages a slot that is written would bring its neighbours' memory with it."""
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | getattr(mmap, "MAP_NORESERVE", 0)
    memory = mmap.mmap(-1, size_bytes, flags=flags)
    if hasattr(mmap, "MADV_NOHUGEPAGE"):
        memory.madvise(mmap.MADV_NOHUGEPAGE)
    return memory


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


def _tensor(values: Values, kind: Kind) -> ov.Tensor:
    return ov.Tensor(values, list(values.shape), _OPENVINO[kind])
