"""The idempotency claims of running and just finished requests, before the database
knows them. Used on the event loop's thread only."""

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from freehold.core.errors import UserError
from freehold.core.usage import IdempotencyClaim, StoredReply
from freehold.store.base import ClaimState, LedgerStore

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Held:
    request_id: str
    body_hash: str
    is_running: bool = True
    reply: StoredReply | None = None  # None when finished: nothing worth repeating


class Claims:
    def __init__(self, store: LedgerStore) -> None:
        self._store = store
        self._held: dict[str, _Held] = {}
        self._forgotten = 0
        self._tasks: set[asyncio.Future[None]] = set()

    async def take(self, claim: IdempotencyClaim, request_id: str, now_us: int) -> ClaimState:
        """Claims a slot, or says what is in it. Raises `UserError`."""
        while True:
            held = self._held.get(claim.slot)
            if held is not None and (held.is_running or held.reply is not None):
                if held.body_hash != claim.body_hash:
                    return ClaimState(mismatch=True)
                return ClaimState(running=held.is_running, reply=held.reply)
            forgotten = self._forgotten
            ended = None if held is None else held.request_id
            state = await self._ask(claim, request_id, now_us, ended)
            if state is None or not state.claimed:
                if self._forgotten != forgotten or self._held.get(claim.slot) is not held:
                    continue  # what the database did not show then may be in it now
                if state is not None:
                    return state
            self._held[claim.slot] = _Held(request_id, claim.body_hash)
            return ClaimState(claimed=True)

    async def _ask(
        self, claim: IdempotencyClaim, request_id: str, now_us: int, ended: str | None
    ) -> ClaimState | None:
        """Whoever stops waiting for the answer leaves no claim behind."""
        asked = asyncio.ensure_future(
            asyncio.to_thread(self._store.claim, claim, request_id, now_us, ended)
        )
        try:
            return await asyncio.shield(asked)
        except asyncio.CancelledError:
            asked.add_done_callback(lambda done: self._take_back(done, claim.slot, request_id))
            raise

    def _take_back(
        self, done: "asyncio.Future[ClaimState | None]", slot: str, request_id: str
    ) -> None:
        if done.cancelled() or done.exception() is not None:
            return
        state = done.result()
        if state is not None and state.claimed:
            self._later(slot, request_id)

    def _later(self, slot: str, request_id: str) -> "asyncio.Future[None]":
        task = asyncio.ensure_future(asyncio.to_thread(self._unclaim, slot, request_id))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _unclaim(self, slot: str, request_id: str) -> None:
        try:
            self._store.unclaim(slot, request_id)
        except UserError as error:  # it is free again when it expires, or at the next start
            _log.warning("claim_not_freed", extra={"reason": error.message})

    def finish(self, slot: str, reply: StoredReply | None) -> None:
        held = self._held[slot]
        held.is_running, held.reply = False, reply

    async def free(self, slot: str) -> None:
        """A claim whose request was not reserved after all: on return others may take it."""
        await asyncio.shield(self._later(slot, self._held.pop(slot).request_id))

    def forget(self, entries: Sequence[list[Any]]) -> None:
        """Called when the database has these claim entries."""
        self._forgotten += 1
        for kind, slot, request_id, *_ in entries:
            held = self._held.get(slot)
            if kind == "d" and held is not None and held.request_id == request_id:
                del self._held[slot]
