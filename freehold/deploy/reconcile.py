"""What there is beside what there should be: adapters of a replica, pools of tenants. Pure."""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

from freehold.core.tenant import OwnPool

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


@dataclass(frozen=True, slots=True)
class PoolChanges:
    start: tuple[OwnPool, ...] = ()
    stop: tuple[str, ...] = ()
    left: tuple[str, ...] = ()  # to stop as soon as they are not used any more


def pools(
    desired: Mapping[str, OwnPool], observed: Collection[str], used: Collection[str] = ()
) -> PoolChanges:
    """Which pools of single tenants start and stop. `used` are pools that requests still
    run or wait in: they stay for now."""
    surplus = sorted(each for each in observed if each not in desired)
    return PoolChanges(
        start=tuple(desired[name] for name in sorted(desired) if name not in observed),
        stop=tuple(each for each in surplus if each not in used),
        left=tuple(each for each in surplus if each in used),
    )
