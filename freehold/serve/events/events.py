"""What happens becomes events: told from anywhere at no cost, written a moment later.

Nothing waits for it. While the database takes none they are kept, so many, and webhooks are
told all the same.
"""

import asyncio
import logging
import re
import threading
from collections import OrderedDict, deque
from collections.abc import Sequence
from typing import Protocol

from freehold.core.clock import Clock
from freehold.core.errors import Code, UserError
from freehold.core.event import Event, Happening, Kind
from freehold.core.ids import RisingIds
from freehold.store.base import EventStore

_logger = logging.getLogger(__name__)
_KEPT, _RETRY_S = 1000, 5.0
_SAME_S = 600.0  # the same of the same is told once in so long
_SAME_KEPT = 10_000
_DAY_S, _DAY_US = 86_400.0, 86_400_000_000
_KEY = re.compile(r"fh_(?:dev|staging|prod)_([0-9A-Z]{26})_")


class Webhooks(Protocol):
    def wanting(self, event: Event) -> Sequence[str]: ...

    def names(self) -> Sequence[str]: ...

    async def send_now(self, event: Event) -> Sequence[str]:
        """To all that want it, once; returns those that took it."""
        ...

    async def send_due(self) -> None: ...


class Events:
    """`tell` may be called on any thread; all else on the event loop's."""

    def __init__(
        self, store: EventStore, webhooks: Webhooks, clock: Clock, keep_days: int = 90
    ) -> None:
        self._store = store
        self._webhooks = webhooks
        self._clock = clock
        self._keep_us = keep_days * _DAY_US
        self._new: deque[Event] = deque(maxlen=_KEPT)
        self._told_at_s: OrderedDict[tuple[Kind, str | None], float] = OrderedDict()
        self._told_directly: dict[str, set[str]] = {}
        self._lock = threading.Lock()
        self._ids = RisingIds()  # by which they are listed
        self._wake = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._tasks: list[asyncio.Task[None]] = []

    def tell(self, what: Happening) -> None:
        with self._lock:
            if not self._is_news(what):
                return
            event = Event(self._ids.new("evt"), self._clock.wall_us(), what.severity, what)
            self._new.append(event)
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._wake.set)

    def refused(self, error: UserError, credential: str) -> None:
        """Of a request, before it was read: some reasons concern more than who asked."""
        if error.code is Code.TOO_MANY_ATTEMPTS:
            found = _KEY.match(credential)
            self.tell(
                Happening(
                    Kind.KEYS_GUESSED,
                    "Wrong API keys are sent more often than is heard: somebody guesses, or a "
                    "client goes on with a key that has ended.",
                    subject=f"key_{found[1]}" if found else None,
                )
            )
        elif error.code is Code.PROVIDER_UNREACHABLE:
            self.tell(
                Happening(
                    Kind.PROVIDER_UNREACHABLE,
                    "The keys of an OpenID provider cannot be fetched, so that its tokens are "
                    "refused.",
                )
            )

    def start(self) -> None:
        self._tasks = [
            asyncio.create_task(self._keep_writing()),
            asyncio.create_task(self._keep_sending()),
            asyncio.create_task(self._keep_forgetting()),
        ]

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._write()

    async def flush(self) -> None:
        """Returns when what was told before is in the database, or that refuses it."""
        await self._write()

    def _is_news(self, what: Happening) -> bool:
        which = (what.kind, what.subject)
        now_s = self._clock.monotonic_s()
        if now_s - self._told_at_s.get(which, -_SAME_S) < _SAME_S:
            return False
        self._told_at_s[which] = now_s
        self._told_at_s.move_to_end(which)
        if len(self._told_at_s) > _SAME_KEPT:
            self._told_at_s.popitem(last=False)
        return True

    def over(self, kind: Kind, subject: str | None) -> None:
        """It has ended: when it happens again, that is news."""
        with self._lock:
            self._told_at_s.pop((kind, subject), None)

    async def _keep_writing(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            if not await self._write():
                await self._tell_directly()
                await asyncio.sleep(_RETRY_S)
                self._wake.set()

    async def _write(self) -> bool:
        with self._lock:
            new = list(self._new)
        if not new:
            return True
        try:
            await asyncio.to_thread(self._store.add_events, self._with_webhooks(new))
        except UserError as error:
            _logger.warning("events_not_written", extra={"reason": error.message})
            return False
        with self._lock:
            for event in new:
                if event in self._new:
                    self._new.remove(event)
                self._told_directly.pop(event.id, None)
        return True

    def _with_webhooks(self, new: Sequence[Event]) -> list[tuple[Event, list[str]]]:
        return [(event, self._still_to_tell(event)) for event in new]

    def _still_to_tell(self, event: Event) -> list[str]:
        told = self._told_directly.get(event.id, ())
        return [name for name in self._webhooks.wanting(event) if name not in told]

    async def _tell_directly(self) -> None:
        """What cannot be written is just what somebody must hear of."""
        with self._lock:
            new = [event for event in self._new if event.id not in self._told_directly]
        for event in new:
            self._told_directly[event.id] = set(await self._webhooks.send_now(event))

    async def _keep_sending(self) -> None:
        while True:
            try:
                await self._webhooks.send_due()
            except UserError as error:
                _logger.warning("webhooks_not_told", extra={"reason": error.message})
            await asyncio.sleep(1.0)

    async def _keep_forgetting(self) -> None:
        while True:
            before_us = self._clock.wall_us() - self._keep_us
            try:
                await asyncio.to_thread(
                    self._store.forget_events, before_us, list(self._webhooks.names())
                )
            except UserError as error:
                _logger.warning("events_not_forgotten", extra={"reason": error.message})
            await asyncio.sleep(_DAY_S)
