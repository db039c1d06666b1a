"""Promotions that are still watched: the new revision beside what answered before, by what really
was asked; taken back by itself when it is worse."""

import asyncio
import logging
import time
from collections.abc import Callable, Sequence

from freehold.core.acts import Acting, Via, acting_as
from freehold.core.clock import Clock
from freehold.core.errors import Code, UserError
from freehold.core.event import Happening
from freehold.core.promotion import Promotion
from freehold.operate.revisions.compared import Answered, Compared, Thumbs, compared
from freehold.operate.revisions.marking import MOST, Marking, Marks
from freehold.serve.admin.promotions import rolled_back
from freehold.serve.routes import Routes
from freehold.serve.tasks import ended
from freehold.store.promotions import Kept
from freehold.store.sql import SqlStore

_logger = logging.getLogger(__name__)
_LOOK_S = 2.0
_REST = 9.0  # so many times as long as a look took, however many there are to look at
_BEFORE_US = 7 * 86_400_000_000  # of a whole promotion: what answered before, that long ago
_MOST = 5000  # requests of each revision
_MARK_US = 60_000_000


class Revisions:
    def __init__(
        self,
        store: SqlStore,
        routes: Routes,
        marking: Marking,
        tell: Callable[[Happening], None],
        clock: Clock,
    ) -> None:
        self._store = store
        self._routes = routes
        self._marking = marking
        self._tell = tell
        self._clock = clock
        self._marked_us: dict[str, int] = {}
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        await ended(self._task)

    async def look(self) -> None:
        """Compares each that is watched; takes back those that are worse."""
        now_us = self._clock.wall_us()
        for each in await asyncio.to_thread(self._store.watched_promotions, now_us):
            marks = await self._marked(each, now_us)
            found = await asyncio.to_thread(self._compared, each, marks)
            if found.worse is not None:
                await self._take_back(each, found.worse)

    async def _run(self) -> None:
        took_s = 0.0
        while True:
            await asyncio.sleep(max(_LOOK_S, _REST * took_s))
            began_s = time.monotonic()
            try:
                await self.look()
            except UserError as error:  # the next look may do better
                _logger.warning("revisions_not_compared", extra={"reason": error.message})
            except Exception:  # a worse revision must not stay for any surprise
                _logger.exception("revisions_not_compared")
            took_s = time.monotonic() - began_s

    async def _marked(self, promotion: Promotion, now_us: int) -> Marks:
        """By the judge, now and then: what it says costs its tenant something."""
        known: Marks = (promotion.figures or {}).get("marks") or {}
        due_us = self._marked_us.get(promotion.id, 0) + _MARK_US
        is_full = all(len(known.get(name, {})) >= MOST for name in _sides(promotion))
        if promotion.watch.judge is None or now_us < due_us or is_full:
            return known
        self._marked_us[promotion.id] = now_us
        sides = await asyncio.to_thread(self._kept, promotion)
        try:
            with acting_as(Acting("gateway", Via.GATEWAY, promotion.tenant_id)):
                return await self._marking.more(promotion, sides)
        except UserError as error:
            _logger.warning("revisions_not_marked", extra={"reason": error.message})
            return known

    def _kept(self, promotion: Promotion) -> dict[str, Sequence[Kept]]:
        sides = _sides(promotion)
        here = (promotion.tenant_id, promotion.environment, promotion.alias)
        return {
            name: self._store.kept_by(*here, revision, since_us, 2 * MOST)
            for name, (revision, since_us) in sides.items()
        }

    def _compared(self, promotion: Promotion, marks: Marks) -> Compared:
        """And keeps its figures where they have changed."""
        here = (promotion.tenant_id, promotion.environment, promotion.alias)
        asked: dict[str, list[Answered]] = {"new": [], "old": []}
        thumbs = {"new": Thumbs(0, 0), "old": Thumbs(0, 0)}
        for name, (revision, since_us) in _sides(promotion).items():
            rows = self._store.answered_by(*here, revision, since_us, _MOST)
            asked[name] = [Answered(*row) for row in rows]
            thumbs[name] = Thumbs(*self._store.thumbs(*here, since_us).get(revision[1], (0, 0)))
        found = compared(
            asked["new"],
            asked["old"],
            thumbs["new"],
            thumbs["old"],
            list(marks.get("new", {}).values()),
            list(marks.get("old", {}).values()),
            promotion.watch,
        )
        figures = found.figures | ({"marks": marks} if marks else {})
        if figures != promotion.figures:
            self._store.compared(promotion.tenant_id, promotion.id, figures)
        return found

    async def _take_back(self, promotion: Promotion, because: str) -> None:
        who = Acting("gateway", Via.GATEWAY, promotion.tenant_id)
        try:
            with acting_as(who):
                done = await self._routes.roll_back(promotion, because, "gateway")
        except UserError as error:
            if error.code is not Code.CONFLICT:  # another gateway did, or somebody
                raise
        else:
            self._tell(rolled_back(done))


def _sides(promotion: Promotion) -> dict[str, tuple[tuple[str | None, str | None], int]]:
    """Each revision, and since when its answers count: those of the one before since the share
    began, or, where it has none any more, of the time before."""
    whole_us, made_us, before = promotion.whole_at_us, promotion.made_at_us, promotion.before
    new = (promotion.bundle.base, promotion.bundle.adapter)
    sides = {"new": (new, made_us if whole_us is None else whole_us)}
    old = None if before is None else (before.base_digest, before.adapter_digest)
    if old is not None and old != new:
        sides["old"] = (old, made_us if whole_us is None else made_us - _BEFORE_US)
    return sides
