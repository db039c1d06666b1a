"""Prompts that killed an engine are not tried a third time."""

import hashlib
import time
from collections import OrderedDict
from typing import Any

import orjson

from freehold.core.errors import Code, UserError

_KILLS = 2
_REMEMBERED = 1024
_FORGIVEN_S = 600.0  # who was only near when an engine died is let in again


class Quarantine:
    """Remembers hashes of bodies that an engine died on, never the bodies."""

    def __init__(self) -> None:
        self._kills: OrderedDict[str, tuple[int, float]] = OrderedDict()

    def check(self, body: dict[str, Any]) -> None:
        """Raises `UserError(PROMPT_QUARANTINED)` for a body with two recent kills."""
        if self.holds(body):
            raise UserError(
                Code.PROMPT_QUARANTINED,
                "The engine died on this very request twice, so it is not tried again: change it.",
            )

    def holds(self, body: dict[str, Any]) -> bool:
        return bool(self._kills) and self._count(_hash(body)) >= _KILLS

    def blame(self, body: dict[str, Any]) -> None:
        """The engine died while it worked on `body`."""
        name = _hash(body)
        self._kills[name] = (self._count(name) + 1, time.monotonic())
        self._kills.move_to_end(name)
        if len(self._kills) > _REMEMBERED:
            self._kills.popitem(last=False)

    def _count(self, name: str) -> int:
        count, last_s = self._kills.get(name, (0, 0.0))
        return count if time.monotonic() - last_s < _FORGIVEN_S else 0


def _hash(body: dict[str, Any]) -> str:
    return hashlib.sha256(orjson.dumps(body, option=orjson.OPT_SORT_KEYS)).hexdigest()
