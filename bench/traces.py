"""Invented use of API keys, a month long: who uses them honestly, and who stole one."""

import math
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

STEP_S, HOUR_S, DAY_S = 300, 3600, 86_400
BEGIN_S = 1_789_948_800  # a Monday
DST_DAY = 34 - 14  # clocks change in the middle of what is watched
ROLLOUT_DAY = 22
DAYS = 35


@dataclass(frozen=True)
class Use:
    at_s: int
    network: str
    model: str
    requests: int
    tokens: int


@dataclass
class User:
    """`rate` is how many requests an hour it makes at a time, in its own clock."""

    kind: str
    dice: random.Random
    rate: Callable[[int, int], float]  # day, hour
    networks: list[str]
    model: str = "small"
    tokens: float = 600.0
    offset_h: int = 0
    has_dst: bool = False
    away: dict[int, str] = field(default_factory=dict)  # day to network
    rolls_out: bool = False
    is_spread: bool = False  # over all networks at once
    noise: float = 0.25

    def uses(self, begin_day: int = 0, end_day: int = DAYS) -> Iterator[Use]:
        for slot in range(begin_day * 24, end_day * 24):
            local = slot + self.offset_h + (1 if self.has_dst and slot >= DST_DAY * 24 else 0)
            day, hour = divmod(local, 24)
            wanted = self.rate(day, hour)
            if wanted <= 0:
                continue
            wanted *= self.dice.lognormvariate(0, self.noise)
            yield from self._hour(slot, day, wanted)

    def _hour(self, slot: int, day: int, wanted: float) -> Iterator[Use]:
        for step in range(0, HOUR_S, STEP_S):
            requests = poisson(self.dice, wanted * STEP_S / HOUR_S)
            if not requests:
                continue
            model = self.model
            if self.rolls_out and day >= ROLLOUT_DAY:
                model = "large" if self.dice.random() < 0.2 * (day - ROLLOUT_DAY + 1) else model
            network = self.away.get(day) or self.networks[0]
            if self.is_spread or (len(self.networks) > 1 and not self.away.get(day)):
                network = self.dice.choice(self.networks)
            tokens = int(requests * self.tokens * self.dice.lognormvariate(0, 0.3))
            yield Use(BEGIN_S + slot * HOUR_S + step, network, model, requests, tokens)


def poisson(dice: random.Random, mean: float) -> int:
    if mean > 50:
        return max(0, round(dice.gauss(mean, math.sqrt(mean))))
    limit, count, product = math.exp(-mean), 0, dice.random()
    while product > limit:
        count += 1
        product *= dice.random()
    return count


def fleet(seed: int, share: float = 1.0) -> list[User]:
    """200 keys of eight kinds, or a share of each."""
    counts = {
        _office: 60, _cron: 40, _service: 40, _batch: 20, _growing: 20, _weekend: 8, _roaming: 12,
    }  # fmt: skip
    users = []
    for make, count in counts.items():
        for number in range(max(1, round(count * share))):
            dice = random.Random(f"{seed} {make.__name__} {number}")
            users.append(make(dice, f"{make.__name__}{number}"))
    return users


def _office(dice: random.Random, name: str) -> User:
    base = dice.uniform(5, 120)
    start, end = dice.choice([7, 8, 9]), dice.choice([16, 17, 18])

    def rate(day: int, hour: int) -> float:
        is_working = day % 7 < 5 and start <= hour < end
        late = day % 7 < 5 and hour in (start - 1, end, end + 1) and dice.random() < 0.15
        return base * (0.5 if hour == 12 else 1.0) if is_working else base * 0.3 * late

    away = {}
    if dice.random() < 0.4:  # works from home, each week
        away = {day: f"{name} home" for day in range(DAYS + 1) if dice.random() < 0.35}
    if dice.random() < 0.06:  # is on a journey, once
        first = dice.randrange(10, DAYS - 3)
        away |= {first + each: f"{name} hotel" for each in range(dice.choice([1, 2, 3]))}
    return User(
        "office", dice, rate, [f"{name} desk"], offset_h=dice.choice([-8, -5, 0, 1, 1, 1, 9]),
        has_dst=dice.random() < 0.6, away=away, rolls_out=dice.random() < 0.3,
    )  # fmt: skip


def _cron(dice: random.Random, name: str) -> User:
    size, at = dice.uniform(20, 800), dice.randrange(24)
    every = dice.choice([24, 24, 24, 6, 1])

    def rate(day: int, hour: int) -> float:
        is_again = every == 24 and dice.random() < 0.02 / 24  # it failed, and is run once more
        return size if (hour - at) % every == 0 or is_again else 0

    return User("cron", dice, rate, [f"{name} host"], has_dst=dice.random() < 0.3, noise=0.12)


def _service(dice: random.Random, name: str) -> User:
    base, swing = dice.uniform(10, 300), dice.uniform(0.1, 0.7)

    def rate(day: int, hour: int) -> float:
        return base * (1 + swing * math.sin((hour - 9) * math.pi / 12)) * (1 - 0.2 * (day % 7 > 4))

    networks = [f"{name} zone {each}" for each in range(dice.choice([1, 1, 2, 3]))]
    return User(
        "service", dice, rate, networks, is_spread=True, rolls_out=dice.random() < 0.4, noise=0.2
    )


def _batch(dice: random.Random, name: str) -> User:
    chance = dice.uniform(0.02, 0.12)
    middle = dice.uniform(4, 6.5)

    def rate(day: int, hour: int) -> float:
        return dice.lognormvariate(middle, 1.2) if dice.random() < chance else 0

    return User("batch", dice, rate, [f"{name} host"])


def _growing(dice: random.Random, name: str) -> User:
    user = dice.choice([_office, _service])(dice, name)
    a_day, first = dice.uniform(1.02, 1.06), user.rate
    user.rate = lambda day, hour: first(day, hour) * a_day**day
    user.kind = "growing"
    return user


def _weekend(dice: random.Random, name: str) -> User:
    user = _office(dice, name)
    first, begins = user.rate, dice.randrange(10, 24)
    user.rate = lambda day, hour: first(1 if day >= begins and day % 7 > 4 else day, hour)
    user.kind = "weekend"
    return user


def _roaming(dice: random.Random, name: str) -> User:
    user = _office(dice, name)
    places = [f"{name} place {each}" for each in range(25)]
    user.away = {day: dice.choice(places) for day in range(DAYS + 1) if dice.random() < 0.7}
    user.kind = "roaming"
    return user


def stolen(how: str, dice: random.Random, user: User, begin_day: int) -> list[Use]:
    """What the thief does, for three days: `grab`, all at once and at night; `drain`, a few
    requests an hour round the clock, for the model that the key uses; `flood`, five times the
    volume from where the key is used."""
    if how == "flood":
        copy = User(**{**user.__dict__, "dice": random.Random(dice.random())})
        return [
            Use(each.at_s, each.network, each.model, each.requests * 4, each.tokens * 4)
            for each in copy.uses(begin_day, begin_day + 3)
        ]
    night = 3 - user.offset_h
    made = []
    for step in range(0, 3 * DAY_S, STEP_S):
        at_s = BEGIN_S + begin_day * DAY_S + (night % 24) * HOUR_S + step
        requests = poisson(dice, 10.0 if how == "grab" else 5 * STEP_S / HOUR_S)
        if requests:
            model = "large" if how == "grab" else user.model
            made.append(Use(at_s, "elsewhere", model, requests, requests * 600))
    return made
