"""Looks at engines, disk and adapters once a second, and tells what became of them."""

import asyncio
from collections.abc import Mapping

from freehold.core.errors import Code
from freehold.core.event import Happening, Kind
from freehold.deploy.pool import Pool
from freehold.deploy.pools import Pools
from freehold.deploy.replica import State
from freehold.serve.events.events import Events
from freehold.serve.policies import LivePolicies
from freehold.serve.tasks import ended
from freehold.store.ledger import Ledger

_LOOK_S = 1.0


class Notices:
    def __init__(
        self,
        events: Events,
        pools: Mapping[str, Pool],
        fleet: Pools,
        ledger: Ledger,
        policies: LivePolicies,
    ) -> None:
        self._events = events
        self._pools = pools
        self._fleet = fleet
        self._ledger = ledger
        self._policies = policies
        self._served: set[str] = set()  # replicas that serve, as was told last
        self._down: set[str] = set()
        self._restarts: dict[str, int] = {}
        self._refused: dict[str, int] = {}
        self._is_writable = True
        self._has_failed = self._is_stale = False
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        await ended(self._task)

    async def _run(self) -> None:
        while True:
            self.look()
            await asyncio.sleep(_LOOK_S)

    def look(self) -> None:
        self._look_at_engines()
        self._look_at_disk()
        if self._fleet.has_failed and not self._has_failed:
            self._tell(
                Kind.OWN_ENGINES_FAILED,
                None,
                "The engines of a tenant that was promised its own cannot be started: the log "
                "says why.",
            )
        self._has_failed = self._fleet.has_failed
        if self._policies.is_stale and not self._is_stale:
            text = "Policies were written that cannot be used: those of before hold. See the log."
            self._tell(Kind.POLICIES_NOT_READ, None, text)
        self._is_stale = self._policies.is_stale

    def _look_at_engines(self) -> None:
        for pool in list(self._pools.values()):
            status = pool.status()
            for replica in status.replicas:
                before = self._restarts.setdefault(replica.name, replica.restarts)
                self._restarts[replica.name] = replica.restarts
                # It may have ended and begun again between two looks.
                if replica.restarts > before and replica.name in self._served:
                    self._served.discard(replica.name)
                    self._down.add(replica.name)
                    why = replica.last_error or "it ended"
                    text = f"The engine {replica.name} is down ({why}); it is started again."
                    self._tell(Kind.ENGINE_DOWN, replica.name, text, restarts=replica.restarts)
                if replica.state == State.READY.value:
                    self._serves(replica.name)
            refused = status.refused_adapters
            if refused > self._refused.get(pool.name, 0):
                text = f"{pool.name} refused {refused} adapters that routes name."
                self._events.over(Kind.ADAPTERS_REFUSED, pool.name)
                self._tell(Kind.ADAPTERS_REFUSED, pool.name, text, adapters=refused)
            self._refused[pool.name] = refused

    def _serves(self, replica: str) -> None:
        self._served.add(replica)
        if replica in self._down:
            self._down.discard(replica)
            self._events.over(Kind.ENGINE_UP, replica)
            self._tell(Kind.ENGINE_UP, replica, f"The engine {replica} serves again.")
            self._events.over(Kind.ENGINE_DOWN, replica)

    def _look_at_disk(self) -> None:
        refusal = self._ledger.trouble
        if self._is_writable and refusal is not None:
            is_unproven = refusal.code is Code.AUDIT_UNAVAILABLE
            kind = Kind.AUDIT_UNAVAILABLE if is_unproven else Kind.USAGE_NOT_WRITTEN
            self._tell(kind, None, refusal.message)
        elif refusal is None and not self._is_writable:
            for kind in (Kind.AUDIT_UNAVAILABLE, Kind.USAGE_NOT_WRITTEN, Kind.USAGE_WRITTEN_AGAIN):
                self._events.over(kind, None)
            text = "Usage and audit records can be written again: requests are served."
            self._tell(Kind.USAGE_WRITTEN_AGAIN, None, text)
        self._is_writable = refusal is None

    def _tell(self, kind: Kind, subject: str | None, text: str, **details: int) -> None:
        self._events.tell(Happening(kind, text, subject, details=details))
