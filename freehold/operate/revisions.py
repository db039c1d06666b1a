"""Promotions that are still watched: the new revision beside what answered before, by what really
was asked; taken back by itself when it is worse."""

import asyncio
import logging
from collections.abc import Callable

from freehold.core.acts import Acting, Via, acting_as
from freehold.core.clock import Clock
from freehold.core.errors import Code, UserError
from freehold.core.event import Happening
from freehold.core.promotion import Promotion, PromotionState
from freehold.operate.compared import Answered, Compared, Thumbs, compared
from freehold.serve.admin_promotions import rolled_back
from freehold.serve.routes import Routes
from freehold.serve.tasks import ended
from freehold.store.sql import SqlStore

_logger = logging.getLogger(__name__)
_LOOK_S = 2.0
_BEFORE_US = 7 * 86_400_000_000  # of a whole promotion: what answered before, that long ago
_MOST = 5000  # requests of each revision


class Revisions:
    def __init__(
        self, store: SqlStore, routes: Routes, tell: Callable[[Happening], None], clock: Clock
    ) -> None:
        self._store = store
        self._routes = routes
        self._tell = tell
        self._clock = clock
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        await ended(self._task)

    async def look(self) -> None:
        """Compares each that is watched; takes back those that are worse."""
        now_us = self._clock.wall_us()
        for each in await asyncio.to_thread(self._store.watched_promotions):
            if _is_over(each, now_us):
                continue
            found = await asyncio.to_thread(self._compared, each)
            if found.worse is not None:
                await self._take_back(each, found.worse)

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(_LOOK_S)
            try:
                await self.look()
            except UserError as error:  # the next look may do better
                _logger.warning("revisions_not_compared", extra={"reason": error.message})
            except Exception:  # a worse revision must not stay for any surprise
                _logger.exception("revisions_not_compared")

    def _compared(self, promotion: Promotion) -> Compared:
        """And keeps its figures where they have changed."""
        whole_us = promotion.whole_at_us
        here = (promotion.tenant_id, promotion.environment, promotion.alias)
        before = promotion.before
        new = (promotion.bundle.base, promotion.bundle.adapter)
        old = None if before is None else (before.base_digest, before.adapter_digest)
        answered = self._store.answered_by
        asked_new = answered(*here, new, whole_us or promotion.made_at_us, _MOST)
        since_us = promotion.made_at_us if whole_us is None else promotion.made_at_us - _BEFORE_US
        asked_old = [] if old is None or old == new else answered(*here, old, since_us, _MOST)
        found = compared(
            [Answered(*each) for each in asked_new],
            [Answered(*each) for each in asked_old],
            Thumbs(*self._thumbs(promotion, promotion.bundle.adapter, promotion.made_at_us)),
            Thumbs(*self._thumbs(promotion, old[1] if old else None, since_us)),
            promotion.watch,
        )
        if found.figures != promotion.figures:
            self._store.compared(promotion.tenant_id, promotion.id, found.figures)
        return found

    def _thumbs(self, promotion: Promotion, adapter: str | None, since_us: int) -> tuple[int, int]:
        here = (promotion.tenant_id, promotion.environment, promotion.alias)
        return self._store.thumbs(*here, since_us).get(adapter, (0, 0))

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


def _is_over(promotion: Promotion, now_us: int) -> bool:
    """One that is shared is watched as long as it is."""
    if promotion.state is PromotionState.SHARING or promotion.whole_at_us is None:
        return False
    return now_us > promotion.whole_at_us + promotion.watch.seconds * 1e6
