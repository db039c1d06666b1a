"""Who was not let in, or not let do something: counted, so that a flood of guesses fills no
disk, and recorded one by one where it is known who it was."""

import threading
from collections import Counter

from freehold.core.clock import Clock
from freehold.core.errors import Code, FreeholdError
from freehold.store.sql import SqlStore

# Answers to those of whom nothing is known but that they had no right to be known.
UNKNOWN = frozenset(
    {
        Code.MISSING_API_KEY,
        Code.INVALID_API_KEY,
        Code.EXPIRED_API_KEY,
        Code.INVALID_TOKEN,
        Code.EXPIRED_TOKEN,
        Code.INVALID_SESSION,
        Code.CROSS_SITE,
        Code.ADDRESS_NOT_ALLOWED,
        Code.ENVIRONMENT_NOT_SERVED,
        Code.KEY_SUSPENDED,
        Code.TENANT_DISABLED,
        Code.TOO_MANY_ATTEMPTS,
        Code.FORBIDDEN,
    }
)
_MINUTE_S = 60.0
_RECORDED = 30  # of one principal in a minute; more are counted


class Refusals:
    """Safe from any thread. Nothing of a person is in the counts."""

    def __init__(self, store: SqlStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter()
        self._since_us = 0
        self._minute_s = clock.monotonic_s()
        self._recorded: Counter[str] = Counter()

    def count(self, code: Code) -> None:
        with self._lock:
            if not self._counts:
                self._since_us = self._clock.wall_us()
            self._counts[code.value] += 1

    def is_recorded(self, principal: str, code: Code) -> bool:
        """Whether this refusal of somebody known gets a record of its own; else it is
        counted."""
        with self._lock:
            now_s = self._clock.monotonic_s()
            if now_s - self._minute_s > _MINUTE_S:
                self._minute_s = now_s
                self._recorded.clear()
            self._recorded[principal] += 1
            if self._recorded[principal] <= _RECORDED:
                return True
        self.count(code)
        return False

    def keep(self) -> None:
        """Records what was counted; may block. Raises `UserError`, and then it stays
        counted."""
        with self._lock:
            counts, since_us = self._counts, self._since_us
            self._counts = Counter()
        if not counts:
            return
        try:
            self._store.refusals(counts, since_us, self._clock.wall_us())
        except FreeholdError:
            with self._lock:
                self._counts.update(counts)
                self._since_us = since_us
            raise
