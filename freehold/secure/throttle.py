"""How often keys may be guessed: counted by who guesses, and by whose key is guessed."""

import threading
from collections import OrderedDict

from freehold.core.clock import Clock
from freehold.core.errors import Code, UserError
from freehold.secure.network import place

_REMEMBERED = 10_000  # of each kind; the one that guessed longest ago is forgotten first
_Buckets = OrderedDict[str, tuple[float, float]]  # how many are left, and when that was


class Throttle:
    """Each address, and each public id, may be wrong `a_minute` times at once and as often
    again in a minute. An address that was wrong more often is not heard at all; a public
    id only has its wrong guesses answered otherwise, so that nobody can shut a key's
    owner out by guessing. Safe from any thread."""

    def __init__(self, a_minute: int, clock: Clock) -> None:
        self._most = float(a_minute)
        self._clock = clock
        self._peers: _Buckets = OrderedDict()
        self._ids: _Buckets = OrderedDict()
        self._lock = threading.Lock()

    def check(self, peer: str) -> None:
        """Raises `UserError(TOO_MANY_ATTEMPTS)` when this address is not heard now."""
        if not self._peers:
            return
        with self._lock:
            left = self._now(self._peers, place(peer))
        if left < 1:
            raise self._refusal(left)

    def wrong(self, peer: str, public_id: str | None) -> None:
        """Counts a wrong key. Raises when that was one too many."""
        with self._lock:
            left = self._take(self._peers, place(peer))
            if public_id is not None:
                left = min(left, self._take(self._ids, public_id))
        if left < 1:
            raise self._refusal(left)

    def _now(self, buckets: _Buckets, name: str) -> float:
        left, at_s = buckets.get(name, (self._most, 0.0))
        passed_s = max(0.0, self._clock.monotonic_s() - at_s)
        return min(self._most, left + passed_s * self._most / 60)

    def _take(self, buckets: _Buckets, name: str) -> float:
        """Takes one if there is one; returns what was there before."""
        left = self._now(buckets, name)
        buckets[name] = (left - 1 if left >= 1 else left, self._clock.monotonic_s())
        buckets.move_to_end(name)
        if len(buckets) > _REMEMBERED:
            buckets.popitem(last=False)
        return left

    def _refusal(self, left: float) -> UserError:
        return UserError(
            Code.TOO_MANY_ATTEMPTS,
            "Too many wrong API keys were sent: wait, then send the right one.",
            retry_after_s=(1 - left) * 60 / self._most,
        )
