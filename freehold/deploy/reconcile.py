"""What a replica must be told so that it has the adapters it should have. Pure."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass

PART = 500  # adapters told of in one call


@dataclass(frozen=True, slots=True)
class Step:
    """One call to a replica."""

    add: tuple[str, ...] = ()
    drop: tuple[str, ...] = ()


def steps(
    desired: Collection[str], observed: Collection[str], held: Collection[str] = ()
) -> Iterator[Step]:
    """What is missing comes first and what nobody wants goes last, so that no moment is
    without what is wanted. `held` are adapters that requests still run or wait under:
    they stay for now."""
    missing = sorted(each for each in desired if each not in observed)
    surplus = sorted(each for each in observed if each not in desired and each not in held)
    for at in range(0, len(missing), PART):
        yield Step(add=tuple(missing[at : at + PART]))
    for at in range(0, len(surplus), PART):
        yield Step(drop=tuple(surplus[at : at + PART]))
