"""Which texts are nearly the same: MinHash signatures of their word triples, compared where
a part of them is equal. The estimate is off by some 5 points at most places."""

import zlib
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from freehold.adapt.dataset.example import words

ALIKE = 0.8  # of the word triples of both, in both
_HASHES, _BANDS = 64, 16
_MAX_SHINGLES = 20_000
_EARLIER = 4  # of a run of equal parts, how many each is compared with
_chance = np.random.default_rng(1)
_A = _chance.integers(1, 2**63, _HASHES, dtype=np.uint64) | np.uint64(1)
_B = _chance.integers(0, 2**63, _HASHES, dtype=np.uint64)
Signature = npt.NDArray[np.uint32]


def signature(text: str, size: int = 3) -> Signature:
    found = words(text)[:_MAX_SHINGLES]
    count = max(1, len(found) - size + 1)
    shingles = {zlib.crc32(" ".join(found[at : at + size]).encode()) for at in range(count)}
    values = np.fromiter(shingles, dtype=np.uint64, count=len(shingles))
    hashed = (values[:, None] * _A + _B) >> np.uint64(32)
    smallest: Signature = hashed.min(axis=0).astype(np.uint32)
    return smallest


def pairs(signatures: Sequence[Signature], alike: float = ALIKE) -> Iterator[tuple[int, int]]:
    """Enough of them to join all that are alike; what is equal comes too."""
    if len(signatures) < 2:
        return
    table = np.stack(signatures)
    for band in np.split(table, _BANDS, axis=1):
        keys = np.ascontiguousarray(band).view(f"V{band.shape[1] * 4}").ravel()
        order = np.argsort(keys, kind="stable")
        same = keys[order[1:]] == keys[order[:-1]]
        yield from _in_runs(table, order, same, alike)


def _in_runs(
    table: npt.NDArray[np.uint32],
    order: npt.NDArray[np.intp],
    same: npt.NDArray[np.bool_],
    alike: float,
) -> Iterator[tuple[int, int]]:
    run: list[int] = [int(order[0])]
    for place, is_same in enumerate(same.tolist()):
        mine = int(order[place + 1])
        if not is_same:
            run = [mine]
            continue
        for other in run:
            if float((table[mine] == table[other]).mean()) >= alike:
                yield other, mine
                break
        else:
            if len(run) < _EARLIER:
                run.append(mine)


class Groups:
    """What belongs together, joined pair by pair."""

    def __init__(self, count: int) -> None:
        self._parent = list(range(count))

    def of(self, member: int) -> int:
        """The group's first member."""
        while self._parent[member] != member:
            self._parent[member] = self._parent[self._parent[member]]
            member = self._parent[member]
        return member

    def join(self, one: int, other: int) -> None:
        first, second = sorted((self.of(one), self.of(other)))
        self._parent[second] = first
