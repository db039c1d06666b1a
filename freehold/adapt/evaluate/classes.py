"""Classes: what was taken for what."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from freehold.adapt.evaluate.normal import normal
from freehold.adapt.evaluate.shares import Share, share

OTHER = "(no class)"
_MOST_CLASSES = 50
_LONGEST = 50
_OF_EACH = 3  # at least, on average: fewer are texts, not classes


@dataclass(frozen=True, slots=True)
class OfClass:
    label: str
    recall: Share  # of those that are it
    precision: Share  # of those that were said to be it


@dataclass(frozen=True, slots=True)
class Confusion:
    """A row for each class that is right, a column for each and one for what is none."""

    labels: tuple[str, ...]
    rows: tuple[tuple[int, ...], ...]

    @property
    def of_each(self) -> list[OfClass]:
        said = [sum(column) for column in zip(*self.rows, strict=True)]
        return [
            OfClass(label, share(row[at], sum(row)), share(row[at], said[at]))
            for at, (label, row) in enumerate(zip(self.labels, self.rows, strict=True))
        ]

    @property
    def macro_recall(self) -> float | None:
        """The mean over classes, whatever their size."""
        found = [each.recall.share for each in self.of_each if each.recall.share is not None]
        return sum(found) / len(found) if found else None


def confusion(labels: Sequence[str], pairs: Sequence[tuple[str, str]]) -> Confusion:
    """`pairs` are the right class with the answer, which is a class if nothing else is said."""
    at = {normal(label): place for place, label in enumerate(labels)}
    counts = Counter(
        (at[normal(right)], at.get(normal(said), len(labels))) for right, said in pairs
    )
    columns = range(len(labels) + 1)
    rows = tuple(tuple(counts[row, column] for column in columns) for row in range(len(labels)))
    return Confusion(tuple(labels), rows)


def classes_of(expected: Sequence[str | None]) -> tuple[str, ...]:
    """The classes that these answers are of; none where they are texts."""
    given = [each for each in expected if each is not None]
    if len(given) < len(expected) or not given:
        return ()
    found: dict[str, str] = {}
    for each in given:
        found.setdefault(normal(each), each.strip())
    is_short = all(len(each) <= _LONGEST and "\n" not in each for each in found.values())
    few = 2 <= len(found) <= min(_MOST_CLASSES, len(given) // _OF_EACH)
    return tuple(found[name] for name in sorted(found)) if is_short and few else ()
