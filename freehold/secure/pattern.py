"""How a key is used, learned from its use, and how much it departs from that. Pure.

Five things are watched: the network, the hour, the model, whether an unknown network is used
beside the known ones, and the volume. For the first four, the question is how often a day of
this key has brought such news so far: k of n days, under a Beta prior that expects little of
it. A day that does is worth the logarithm of one over that probability, in nats; it counts
half a day later, once for a day however often it is repeated, so that one honest change is
never counted as many. The volume of an hour is held against what the hour of day usually has,
as a sum of log-likelihood ratios for three times as much. What all five say is added.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

HOUR_S, DAY_S = 3600, 86_400
THRESHOLD = 10.5  # nats; bench/patterns.py says how often honest keys come to it
_LEARNING_DAYS, _LEARNING_REQUESTS = 5, 50
_PRIOR_DAYS = 10.0
_PRIOR = {"network": 0.1, "model": 0.1, "beside": 0.1, "hour": 0.5}
_HALF_LIFE_S = 1.0 * DAY_S
_MOST = 32  # networks and models that are remembered
_KNOWN_AFTER_DAYS = 3  # of use without a departure
_QUIET_S = 7 * DAY_S  # after an event that nobody answered
_FORGET_S = 90 * DAY_S
# Volume: in natural logarithms.
_SHIFT = math.log(3)
_LEAST_SPREAD, _FIRST_SPREAD = 0.35, 1.0
_CLIP_LOW, _CLIP_HIGH = -2.0, 4.0
_RATE = 0.08  # of learning an hour's volume
_LEAST_EXCESS = 20  # requests an hour beyond what is usual, or it is nothing


@dataclass(slots=True)
class Seen:
    """Of a network or a model: on how many days, when first and last, and whether it counts
    as usual."""

    first_s: int
    last_s: int
    days: int = 1
    is_known: bool = False


@dataclass(slots=True)
class Volume:
    """Logarithms of what an active hour has, by hour of day and kind of day."""

    mean: float = 0.0
    count: int = 0
    by_hour: dict[int, list[float]] = field(default_factory=dict)  # mean, hours
    spread: float = _FIRST_SPREAD
    sum: float = 0.0  # of log-likelihood ratios, never below zero

    def expected(self, hour: int) -> float:
        mean, hours = self.by_hour.get(hour, (0.0, 0.0))
        return (2 * self.mean + hours * mean) / (2 + hours)

    def ratio(self, hour: int, amount: float) -> float:
        spread = max(self.spread, _LEAST_SPREAD)
        excess = math.log1p(amount) - self.expected(hour)
        found = _SHIFT / spread**2 * (excess - _SHIFT / 2)
        return min(max(found, _CLIP_LOW), _CLIP_HIGH)

    def learn(self, hour: int, amount: float) -> None:
        value = math.log1p(amount)
        excess = value - self.expected(hour)
        self.count += 1
        rate = max(_RATE, 1 / self.count)
        bound = 3 * max(self.spread, _LEAST_SPREAD)
        self.spread += rate * (1.25 * min(abs(excess), bound) - self.spread)
        held = self.mean + min(max(value - self.mean, -bound), bound) if self.count > 20 else value
        self.mean += rate * (held - self.mean)
        mean, hours = self.by_hour.get(hour, (value, 0.0))
        mean += max(0.3, 1 / (hours + 1)) * (min(max(value - mean, -bound), bound))
        self.by_hour[hour] = [mean, min(hours + 1, 20.0)]


@dataclass(frozen=True, slots=True)
class Departure:
    """`why`: what was unusual, in nats, the most of it first."""

    at_s: int
    score: float
    why: Mapping[str, float]


@dataclass(slots=True)
class Pattern:
    """One key's. `observe` takes what was used in a short while, in the order of time."""

    first_s: int = 0
    last_s: int = 0
    requests: int = 0
    days: int = 0
    day: int = -1
    networks: dict[str, Seen] = field(default_factory=dict)
    models: dict[str, Seen] = field(default_factory=dict)
    hours: list[float] = field(default_factory=lambda: [0.0] * 168)  # active ones, fading
    news: dict[str, float] = field(default_factory=dict)  # days that brought some, by kind
    today: list[str] = field(default_factory=list)  # the kinds of news that today brought
    evidence: dict[str, list[float]] = field(default_factory=dict)  # nats, and when
    foreign_s: int = 0  # since when an unknown network is used
    home_after_s: int = 0  # when a known one was, after that
    slot: int = -1  # the hour that is counted now
    slot_requests: int = 0
    slot_tokens: int = 0
    by_requests: Volume = field(default_factory=Volume)
    by_tokens: Volume = field(default_factory=Volume)
    departed_s: int = 0

    def observe(
        self,
        at_s: int,
        network: str,
        model: str,
        requests: int,
        tokens: int,
        is_new_model: bool = False,
    ) -> Departure | None:
        """`is_new_model`: nobody of the tenant had it some days ago. Returns a departure when
        this makes one."""
        if not self.first_s:
            self.first_s = at_s
        at_s = max(at_s, self.last_s)
        self._begin(at_s)
        self.requests += requests
        self.slot_requests += requests
        self.slot_tokens += tokens
        self._see_network(at_s, network)
        self._see_model(at_s, model, is_new_model)
        self.last_s = at_s
        return self._departure(at_s)

    @property
    def is_learning(self) -> bool:
        return self.days <= _LEARNING_DAYS or self.requests < _LEARNING_REQUESTS

    def confirm(self) -> None:
        """What was unusual is usual from now on."""
        for seen in (*self.networks.values(), *self.models.values()):
            seen.is_known = True
        self._calm()
        self.departed_s = 0

    def score(self, at_s: int) -> dict[str, float]:
        """In nats, by what it is about."""
        found = {
            kind: nats * 0.5 ** ((at_s - since_s) / _HALF_LIFE_S)
            for kind, (nats, since_s) in self.evidence.items()
        }
        volume = max(self._volume(self.by_requests, self.slot_requests),
                     self._volume(self.by_tokens, self.slot_tokens))  # fmt: skip
        if volume:
            found["volume"] = volume
        return found

    def usual(self) -> tuple[frozenset[str], frozenset[str]]:
        """Networks and models."""
        return (
            frozenset(name for name, each in self.networks.items() if each.is_known),
            frozenset(name for name, each in self.models.items() if each.is_known),
        )

    def usual_an_hour(self) -> int:
        """Requests."""
        return round(math.expm1(self.by_requests.mean)) if self.by_requests.count else 0

    # the parts

    def _begin(self, at_s: int) -> None:
        """Closes the hour and the day before, if this is another."""
        slot, day = at_s // HOUR_S, at_s // DAY_S
        if slot != self.slot:
            if self.slot_requests:
                self._close_hour()
            self.slot, self.slot_requests, self.slot_tokens = slot, 0, 0
            self._see_hour(at_s, slot)
        if day != self.day:
            for kind in self.today:
                self.news[kind] = self.news.get(kind, 0.0) + 1
            self.today, self.day = [], day
            self.days += 1
            self._forget(at_s)

    def _close_hour(self) -> None:
        hour = _hour_of_day(self.slot)
        for volume, amount in (
            (self.by_requests, self.slot_requests), (self.by_tokens, self.slot_tokens),
        ):  # fmt: skip
            if not self.is_learning:
                volume.sum = max(0.0, volume.sum + volume.ratio(hour, amount))
            if not self.departed_s:
                volume.learn(hour, amount)
        if not self.departed_s:
            self.hours[_hour_of_week(self.slot)] += 1.0

    def _volume(self, volume: Volume, amount: int) -> float:
        """Of this hour so far: it only grows."""
        if self.is_learning:
            return 0.0
        hour = _hour_of_day(self.slot)
        usual = math.expm1(volume.expected(hour))
        now = volume.ratio(hour, amount)
        is_little = volume is self.by_requests and amount - usual < _LEAST_EXCESS
        is_little |= volume is self.by_tokens and self.slot_requests < 3
        return volume.sum + (max(now, 0.0) if not is_little else 0.0)

    def _see_hour(self, at_s: int, slot: int) -> None:
        if self.is_learning:
            return
        here, hours = _hour_of_week(slot), self.hours
        day, hour = divmod(here, 24)
        alike = range(5) if day < 5 else range(5, 7)
        weight = hours[here] + 0.5 * (hours[here - 1] + hours[(here + 1) % 168])
        weight += 0.3 * sum(
            hours[24 * other + near % 24]
            for other in alike
            for near in (hour - 1, hour, hour + 1)
            if other != day
        )
        if weight < 0.5:
            self._news(at_s, "hour")

    def _see_network(self, at_s: int, network: str) -> None:
        seen = self._seen(self.networks, at_s, network)
        if seen.is_known:
            if self.foreign_s:
                self.home_after_s = at_s
            return
        self._news(at_s, "network")
        if not self.foreign_s or at_s - self.foreign_s > 3 * DAY_S:
            self.foreign_s, self.home_after_s = at_s, 0
        elif self.home_after_s > self.foreign_s:
            self._news(at_s, "beside")

    def _see_model(self, at_s: int, model: str, is_new: bool) -> None:
        if not self._seen(self.models, at_s, model).is_known and not is_new:
            self._news(at_s, "model")

    def _seen(self, among: dict[str, Seen], at_s: int, name: str) -> Seen:
        seen = among.get(name)
        if seen is None:
            if len(among) >= _MOST:
                del among[min(among, key=lambda each: (among[each].is_known, among[each].last_s))]
            seen = among[name] = Seen(at_s, at_s)
        elif at_s // DAY_S != seen.last_s // DAY_S:
            seen.days += 1
        seen.last_s = at_s
        if self.is_learning or (seen.days > _KNOWN_AFTER_DAYS and not self.departed_s):
            seen.is_known = True
        return seen

    def _news(self, at_s: int, kind: str) -> None:
        if self.is_learning or kind in self.today:
            return
        self.today.append(kind)
        rate = (_PRIOR[kind] + self.news.get(kind, 0.0)) / (_PRIOR_DAYS + self.days)
        nats = max(0.0, -math.log(min(rate, 1.0)))
        before, since_s = self.evidence.get(kind, (0.0, at_s))
        left = before * 0.5 ** ((at_s - since_s) / _HALF_LIFE_S)
        self.evidence[kind] = [max(nats, left), at_s]

    def _departure(self, at_s: int) -> Departure | None:
        if self.is_learning or (self.departed_s and at_s - self.departed_s < _QUIET_S):
            return None
        parts = self.score(at_s)
        total = sum(parts.values())
        if total < THRESHOLD:
            return None
        self.departed_s = at_s
        order = sorted(parts.items(), key=lambda part: -part[1])
        return Departure(at_s, total, {kind: round(nats, 1) for kind, nats in order if nats >= 1})

    def _forget(self, at_s: int) -> None:
        for among in (self.networks, self.models):
            for name in [n for n, each in among.items() if at_s - each.last_s > _FORGET_S]:
                del among[name]
        if self.departed_s and at_s - self.departed_s >= _QUIET_S:
            self.departed_s = 0
            self._calm()
        self.hours = [0.98 * each for each in self.hours]

    def _calm(self) -> None:
        self.evidence.clear()
        self.by_requests.sum = self.by_tokens.sum = 0.0
        self.foreign_s = self.home_after_s = 0


def as_stored(pattern: Pattern) -> dict[str, Any]:
    return asdict(pattern)


def from_stored(found: Mapping[str, Any]) -> Pattern:
    """Raises `TypeError` for what another version wrote otherwise."""
    made = Pattern(**found)
    for among in (made.networks, made.models):
        for name, seen in list(among.items()):
            among[name] = Seen(**seen)  # type: ignore[arg-type]
    for name in ("by_requests", "by_tokens"):
        volume = Volume(**getattr(made, name))
        volume.by_hour = {int(hour): each for hour, each in volume.by_hour.items()}
        setattr(made, name, volume)
    return made


def _hour_of_week(slot: int) -> int:
    return (slot + 72) % 168  # the epoch was a Thursday


def _hour_of_day(slot: int) -> int:
    """And, beyond 24, of a day of the weekend."""
    day, hour = divmod(_hour_of_week(slot), 24)
    return hour if day < 5 else 24 + hour
