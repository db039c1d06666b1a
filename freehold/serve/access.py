"""Follows what becomes of keys, sessions, roles, tenants, policies and limits, in this process
and in every other on the same database: a count there is looked at a few times a second. What
lost its right is cut."""

import asyncio
import logging
from collections.abc import Collection, Sequence
from dataclasses import replace

from freehold.core.binding import Binding
from freehold.core.errors import Code, UserError
from freehold.core.tenant import Tenant
from freehold.deploy.pools import Pools
from freehold.secure.keys import Keyring, suspended
from freehold.secure.subjects import Subjects
from freehold.serve.directory import Directory
from freehold.serve.limits.limits import Limits
from freehold.serve.people import People
from freehold.serve.policies import LivePolicies
from freehold.serve.refusals import Refusals
from freehold.serve.request.watch import Watch
from freehold.serve.tasks import ended
from freehold.serve.tenants import Tenants
from freehold.store.base import SessionStore, TenantStore

_logger = logging.getLogger(__name__)

_LOOK_S = 0.25
# After a change: a request that was let in before it may take its place among the running
# ones a moment later.
_LOOKS_AGAIN = 8
_RETRY, _KEEP = 40, 240  # looks


class Access:
    """`pools` follow before requests are led otherwise, and once they are."""

    def __init__(
        self,
        store: TenantStore,
        keyring: Keyring,
        tenants: Tenants,
        directory: Directory,
        watch: Watch,
        pools: Pools,
        routes_change: asyncio.Lock,
        policies: LivePolicies,
        limits: Limits,
        refusals: Refusals,
        subjects: Subjects,
        people: People | None,
        sessions: SessionStore,
    ) -> None:
        self._store = store
        self._keyring = keyring
        self._tenants = tenants
        self._directory = directory
        self._watch = watch
        self._pools = pools
        self._routes_change = routes_change
        self._policies = policies
        self._limits = limits
        self._refusals = refusals
        self._subjects = subjects
        self._people = people
        self._sessions = sessions
        self._number = -1  # so that the first look follows whatever came meanwhile
        self._again = 0
        self._following = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        if self._task is not None:
            await ended(self._task)
            await self._keep_refusals()

    async def refresh(self) -> None:
        """Returns when this process goes by what the database says now."""
        async with self._following:
            self._number = await asyncio.to_thread(self._store.access_number)
            self._keyring.changed()
            self._subjects.changed()
            await asyncio.to_thread(self._policies.reload)
            self._limits.show(await asyncio.to_thread(self._limits.read))
            if self._people is not None:
                await asyncio.to_thread(self._people.reload)
            found = await asyncio.to_thread(self._tenants.read)
            differing = self._tenants.differing(found)
            if differing:
                await self._cut()  # first of all: engines may take their time
                async with self._routes_change:
                    await self._lead(found, differing)
            await self._cut()
            self._again = _LOOKS_AGAIN

    async def _lead(self, found: Sequence[Tenant], differing: Collection[str]) -> None:
        await self._pools.prepare()
        self._tenants.show(found)
        for tenant_id in differing:
            await asyncio.to_thread(self._directory.reload, tenant_id)
        await self._pools.settle()

    async def _run(self) -> None:
        look = 0
        while True:
            await asyncio.sleep(_LOOK_S)
            look += 1
            if look % _KEEP == 0:
                await self._keep_refusals()
            try:
                await self._look(look)
            except UserError as error:  # the next look may do better
                _logger.warning("access_not_followed", extra={"reason": error.message})
            except Exception:  # what is revoked must be heard of after any surprise
                _logger.exception("access_not_followed")

    async def _look(self, look: int) -> None:
        if await asyncio.to_thread(self._store.access_number) != self._number:
            await self.refresh()
        elif self._again:
            self._again -= 1
            await self._cut()
        elif look % _RETRY == 0 and self._pools.has_failed:
            await self._pools.start_missing()

    async def _keep_refusals(self) -> None:
        try:
            await asyncio.to_thread(self._refusals.keep)
        except UserError as error:  # they stay counted
            _logger.warning("refusals_not_recorded", extra={"reason": error.message})

    async def _cut(self) -> None:
        """Stops the running requests that would not be let in now: of keys and sessions that
        were revoked, of tenants disabled, of people whose groups lost their roles, and what
        the policies do not permit any more. One question to the store a tenant and one for
        all sessions; the rest is decided from memory."""
        await self._cut_keys()
        await self._cut_sessions()
        for exchange in self._watch.running():
            if not self._is_permitted(exchange.binding):
                exchange.stop(_ended())

    async def _cut_keys(self) -> None:
        running: dict[str, set[str]] = {}
        for exchange in self._watch.running():
            principal = exchange.binding.principal
            if principal.groups is None:
                running.setdefault(principal.tenant_id, set()).add(principal.id)
        for tenant_id, key_ids in running.items():
            fallen = key_ids - await asyncio.to_thread(self._store.standing, tenant_id, key_ids)
            if not fallen:
                continue
            waiting = await asyncio.to_thread(self._store.suspended, tenant_id, fallen)
            for exchange in self._watch.running():
                principal = exchange.binding.principal
                if principal.groups is None and principal.id in fallen:
                    exchange.stop(suspended() if principal.id in waiting else _ended())

    async def _cut_sessions(self) -> None:
        running = [_session_of(exchange.binding) for exchange in self._watch.running()]
        asked = {each for each in running if each is not None}
        if not asked:
            return
        living = await asyncio.to_thread(self._sessions.living_sessions, asked)
        for exchange in self._watch.running():
            if _session_of(exchange.binding) in asked - living:
                exchange.stop(_ended())

    def _is_permitted(self, binding: Binding) -> bool:
        """With what a person may now; what a key may never changes."""
        if binding.principal.groups is not None:
            people = self._people
            now = None if people is None else people.still(binding.principal)
            if now is None:
                return False
            binding = replace(binding, principal=now)
        return self._policies.permits(binding)


def _session_of(binding: Binding) -> str | None:
    vouched = binding.principal.vouched
    return None if vouched is None else vouched.session_id


def _ended() -> UserError:
    return UserError(
        Code.ACCESS_ENDED,
        "The key or session of this request was revoked, a role was taken away, its tenant "
        "disabled, or a policy forbids it now.",
    )
