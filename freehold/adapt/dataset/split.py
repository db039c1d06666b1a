"""What is held out: never in part what is trained on."""

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from freehold.adapt.dataset.alike import Groups


@dataclass(frozen=True, slots=True)
class Split:
    held_out: frozenset[int]
    notes: tuple[str, ...] = ()


def split(
    groups: Groups, lines: Sequence[bytes], labels: Sequence[str] | None, share: float, seed: int
) -> Split:
    """Whole groups, by chance but always the same for the same lines and seed; of each label
    its share where there are labels. `lines` are digests of the examples."""
    if share <= 0:
        return Split(frozenset())
    members: dict[int, list[int]] = defaultdict(list)
    for each in range(len(lines)):
        members[groups.of(each)].append(each)
    by_label: dict[str, list[int]] = defaultdict(list)
    for first, group in members.items():
        by_label[_most(group, labels)].append(first)
    held: set[int] = set()
    for firsts in by_label.values():
        held |= _of_label(firsts, members, lines, share, seed, is_one=len(by_label) == 1)
    wanted = share * len(lines)
    if len(held) < wanted / 2:
        note = (
            f"Only {len(held)} examples are held out where {wanted:.0f} were wanted: others belong "
            "to groups that are too large to be moved as a whole, or to classes that are too small."
        )
        return Split(frozenset(held), (note,))
    return Split(frozenset(held))


def _of_label(
    firsts: Sequence[int],
    members: dict[int, list[int]],
    lines: Sequence[bytes],
    share: float,
    seed: int,
    *,
    is_one: bool,
) -> set[int]:
    if len(firsts) < 2:
        return set()
    total = sum(len(members[first]) for first in firsts)
    wanted = max(1, round(share * total)) if is_one or len(firsts) >= 4 else 0
    held: set[int] = set()
    for first in sorted(firsts, key=lambda each: _draw(lines[each], seed)):
        if len(held) >= wanted:
            break
        if len(held) + len(members[first]) <= max(wanted * 1.2, wanted + 1):
            held.update(members[first])
    return held


def _most(group: Sequence[int], labels: Sequence[str] | None) -> str:
    if labels is None:
        return ""
    mine = [labels[each] for each in group]
    return max(sorted(set(mine)), key=mine.count)


def _draw(line: bytes, seed: int) -> bytes:
    return hashlib.sha256(seed.to_bytes(8, "big", signed=True) + line).digest()
