"""The idempotency claims of running and just finished requests, before the database
knows them. Used on the event loop's thread only."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from freehold.core.usage import IdempotencyClaim, StoredReply
from freehold.store.base import ClaimState, LedgerStore


@dataclass(slots=True)
class _Held:
    body_hash: str
    is_running: bool = True
    reply: StoredReply | None = None  # None when finished: nothing worth repeating


class Claims:
    def __init__(self, store: LedgerStore) -> None:
        self._store = store
        self._held: dict[str, _Held] = {}
        self._forgotten = 0

    async def take(self, claim: IdempotencyClaim, now_us: int) -> ClaimState:
        """Claims a slot, or says what is in it. Raises `UserError`."""
        while True:
            held = self._held.get(claim.slot)
            if held is not None:
                break
            forgotten = self._forgotten
            state = await asyncio.to_thread(self._store.claim, claim, now_us)
            if self._forgotten != forgotten:
                continue  # what the database did not show then may be in it now
            if claim.slot not in self._held:
                if state is not None:
                    return state
                break
        if held is not None and (held.is_running or held.reply is not None):
            if held.body_hash != claim.body_hash:
                return ClaimState(mismatch=True)
            return ClaimState(running=held.is_running, reply=held.reply)
        self._held[claim.slot] = _Held(claim.body_hash)
        return ClaimState(claimed=True)

    def finish(self, slot: str, reply: StoredReply | None) -> None:
        held = self._held[slot]
        held.is_running, held.reply = False, reply

    def free(self, slot: str) -> None:
        """A claim whose request was not reserved after all."""
        del self._held[slot]

    def forget(self, entries: Sequence[list[Any]]) -> None:
        """Called when the database has these claim entries."""
        self._forgotten += 1
        for kind, slot, *_ in entries:
            held = self._held.get(slot)
            if kind == "d" and held is not None and not held.is_running:
                del self._held[slot]
