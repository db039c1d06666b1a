"""How often honest keys are taken for stolen ones, and how soon stolen ones are noticed.

`python bench/patterns.py` replays invented months of 200 keys, several times over, and thefts
put into them. Nothing here was used to set a threshold but the first of the fleets.
"""

import random
import statistics
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass
from heapq import merge

import machine
import traces

import freehold
from freehold.secure.pattern import Departure, Pattern

_SEEDS = (1, 2, 3, 4, 5)
_THEFTS = ("grab", "drain", "flood")
_NEW_MODEL_S = 14 * traces.DAY_S


@dataclass(frozen=True)
class Alarm:
    kind: str
    user: int
    found: Departure


@dataclass(frozen=True)
class Noticed:
    how: str
    kind: str
    minutes: float | None  # None: not within three days
    requests: int


def replay(users: list[traces.User]) -> tuple[list[Alarm], list[Noticed]]:
    """The honest month of each key, and each theft from a moment in it on."""
    alarms, noticed = [], []
    for number, user in enumerate(users):
        dice = random.Random(number)
        pattern, at_day = Pattern(), dice.randrange(14, 28)
        kept: Pattern | None = None
        for use in list(user.uses()):
            if kept is None and use.at_s >= traces.BEGIN_S + at_day * traces.DAY_S:
                kept = deepcopy(pattern)
            found = _observed(pattern, use)
            if found is not None:
                alarms.append(Alarm(user.kind, number, found))
        if kept is not None and not kept.departed_s:
            noticed += [_theft(how, kept, user, dice, at_day) for how in _THEFTS]
    return alarms, noticed


def _observed(pattern: Pattern, use: traces.Use) -> Departure | None:
    return pattern.observe(use.at_s, use.network, use.model, use.requests, use.tokens)


def _theft(how: str, before: Pattern, user: traces.User, dice: random.Random, day: int) -> Noticed:
    """The key's owner goes on meanwhile."""
    pattern = deepcopy(before)
    thief = traces.stolen(how, dice, user, day)
    first = thief[0].at_s if thief else 0
    requests = 0
    for is_thief, use in _both(user, thief, day):
        requests += use.requests if is_thief else 0
        if _observed(pattern, use) is not None and requests:
            return Noticed(how, user.kind, (use.at_s - first) / 60, requests)
    return Noticed(how, user.kind, None, requests)


def _both(
    user: traces.User, thief: list[traces.Use], day: int
) -> Iterator[tuple[bool, traces.Use]]:
    honest = [(use.at_s, False, use) for use in user.uses(day, day + 3)]
    stolen = [(use.at_s, True, use) for use in thief]
    for _, is_thief, use in merge(honest, stolen, key=lambda each: each[:2]):
        yield is_thief, use


def rows(seed: int, alarms: list[Alarm], noticed: list[Noticed], keys: int) -> list[machine.Row]:
    weeks = (traces.DAYS - 5) / 7
    found = [
        _row(f"fleet {seed}", "keys", keys),
        _row(f"fleet {seed}", "false events a week", len(alarms) / weeks),
    ]
    for how in _THEFTS:
        mine = [each for each in noticed if each.how == how]
        hits = [each for each in mine if each.minutes is not None]
        case = f"fleet {seed}, {how}"
        found += [_row(case, "thefts", len(mine)), _row(case, "noticed", len(hits) / len(mine))]
        for name, values in (
            ("minutes", [each.minutes or 0.0 for each in hits]),
            ("requests", [float(each.requests) for each in hits]),
        ):
            tenths = statistics.quantiles(values, n=10)
            found.append(_row(case, f"{name}, median", tenths[4]))
            found.append(_row(case, f"{name}, p90", tenths[8]))
    return found


def _row(case: str, metric: str, value: float) -> machine.Row:
    return machine.Row("freehold", freehold.__version__, case, metric, round(value, 3))


def main() -> None:
    made: list[machine.Row] = []
    for seed in _SEEDS:
        users = traces.fleet(seed)
        alarms, noticed = replay(users)
        made += rows(seed, alarms, noticed, len(users))
        for each in alarms:
            day = (each.found.at_s - traces.BEGIN_S) // traces.DAY_S
            print(f"fleet {seed}: {each.kind} {each.user}, day {day}: {dict(each.found.why)}")
        for row in made[-17:]:
            print(f"{row.case}: {row.metric} {row.value:.2f}")
    machine.keep("patterns", made)


if __name__ == "__main__":
    main()
