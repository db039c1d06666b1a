"""In which order rows are trained, and which are computed together.

A step learns from some examples, the same for the same seed. It is computed in parts that
memory has room for; a part's gradient is a sum, so that how a step is parted changes only
the rounding. Rows of like length share a part, so that little is computed for filling.
What all rows of a part begin with (a system prompt, or a pair's prompt) is computed once.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise


@dataclass(frozen=True, slots=True)
class Part:
    """`rows` are numbers; the first `shared` ids of them all are the same."""

    rows: tuple[int, ...]
    shared: int
    longest: int

    @property
    def tokens(self) -> int:
        """What is computed, filling included."""
        return self.shared + len(self.rows) * (self.longest - self.shared)


def order(count: int, seed: int, epoch: int) -> list[int]:
    """A new order each epoch, known from its number alone."""
    numbers = list(range(count))
    random.Random(f"{seed}/{epoch}").shuffle(numbers)  # noqa: S311
    return numbers


def steps(sizes: Sequence[int], batch_tokens: int, seed: int, epoch: int) -> list[list[int]]:
    """The examples of each step of an epoch: as many as hold some `batch_tokens` on
    average, each step as many as the others."""
    ordered = order(len(sizes), seed, epoch)
    count = per_step(sizes, batch_tokens)
    whole = max(1, round(len(ordered) / count))
    bounds = [len(ordered) * at // whole for at in range(whole + 1)]
    return [ordered[a:b] for a, b in pairwise(bounds)]


def per_step(sizes: Sequence[int], batch_tokens: int) -> int:
    return max(1, round(batch_tokens * len(sizes) / max(1, sum(sizes))))


def parts(
    rows: Sequence[tuple[int, ...]],
    first_learned: Sequence[int],
    groups: Sequence[Sequence[int]],
    part_tokens: int,
) -> list[Part]:
    """Splits `groups` of row numbers (one row, or a pair, that stay together) into parts of
    at most `part_tokens`, unless one group alone has more. `first_learned`: the place in each
    row from which on ids are learned; what is before may be shared, but for the last id."""
    ordered = sorted(groups, key=lambda group: (max(len(rows[i]) for i in group), group))
    made: list[Part] = []
    held: tuple[int, ...] = ()
    for group in ordered:
        grown = (*held, *group)
        if held and _part(rows, first_learned, grown).tokens > part_tokens:
            made.append(_part(rows, first_learned, held))
            grown = tuple(group)
        held = grown
    return [*made, _part(rows, first_learned, held)] if held else made


def _part(
    rows: Sequence[tuple[int, ...]], first_learned: Sequence[int], numbers: tuple[int, ...]
) -> Part:
    longest = max(len(rows[i]) for i in numbers)
    if len(numbers) == 1:
        return Part(numbers, 0, longest)
    most = min(first_learned[i] for i in numbers) - 1
    first, last = min(rows[i] for i in numbers), max(rows[i] for i in numbers)
    shared = next((at for at in range(most) if first[at] != last[at]), max(0, most))
    return Part(numbers, shared, longest)
