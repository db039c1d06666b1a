"""Where answers are labels: which there are, which stand alone, which contradict each other."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from freehold.adapt.dataset.alike import Groups

MAX_LABEL, _MAX_LABELS = 64, 200
_SHOWN = 20


@dataclass(frozen=True, slots=True)
class Labels:
    counts: Counter[str]
    contradictions: tuple[tuple[int, ...], ...]  # examples alike under several labels

    @property
    def alone(self) -> list[str]:
        return sorted(label for label, count in self.counts.items() if count == 1)

    def plain(self, numbers: Sequence[int]) -> dict[str, Any]:
        return {
            "classes": dict(self.counts.most_common(_MAX_LABELS)),
            "with_one_example": self.alone,
            "contradictions": len(self.contradictions),
            "contradicting_examples": [
                [numbers[each] for each in group[:6]] for group in self.contradictions[:_SHOWN]
            ],
        }


def labels_of(answers: Sequence[str]) -> list[str] | None:
    """The answers, if they are labels: short, few, and most of them given several times."""
    if len(answers) < 4 or any(len(each) > MAX_LABEL for each in answers):
        return None
    found = [" ".join(each.split()) for each in answers]
    counts = Counter(found)
    repeated = sum(count for count in counts.values() if count > 1)
    if len(counts) < 2 or len(counts) > min(_MAX_LABELS, len(found) // 2):
        return None
    return found if repeated >= 0.6 * len(found) else None


def examine(labels: Sequence[str], same: Groups) -> Labels:
    """`same` joins examples with the same or nearly the same question."""
    members: dict[int, list[int]] = defaultdict(list)
    for each in range(len(labels)):
        members[same.of(each)].append(each)
    contradictions = [
        tuple(group)
        for group in members.values()
        if len(group) > 1 and len({labels[each] for each in group}) > 1
    ]
    return Labels(Counter(labels), tuple(contradictions))
