"""The replicas of one base, and the leases that requests take on them."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol

from freehold.config.schema import LimitSettings
from freehold.core.binding import Priority
from freehold.core.engine import Capabilities
from freehold.core.errors import Code, UserError
from freehold.core.tenant import OwnPool
from freehold.deploy.adapters import PoolAdapters
from freehold.deploy.queue import FairQueue
from freehold.engines.base import EngineClient


class Member(Protocol):
    """What a pool asks of a replica, or of a remote that is always there."""

    name: str
    in_flight: int
    restarts: int
    last_error: str | None

    @property
    def client(self) -> EngineClient: ...
    @property
    def base_digest(self) -> str | None: ...
    @property
    def is_ready(self) -> bool: ...
    @property
    def state(self) -> str: ...
    @property
    def pid(self) -> int | None: ...
    @property
    def rss_bytes(self) -> int | None: ...
    def start(self) -> None: ...
    async def ensure_ready(self, timeout_s: float) -> None: ...
    def when_ready(self, call: Callable[[], None]) -> None: ...
    def before_ready(self, call: Callable[[EngineClient], Awaitable[None]]) -> None: ...
    def suspect(self) -> None: ...
    async def stop(self) -> None: ...


class RemoteMember:
    """A remote upstream as a member: nothing to start, nothing to restart."""

    def __init__(self, name: str, client: EngineClient) -> None:
        self.name = name
        self.in_flight = 0
        self.restarts = 0
        self.last_error: str | None = None
        self.base_digest: str | None = None
        self.is_ready = True
        self.state = "remote"
        self.pid: int | None = None
        self.rss_bytes: int | None = None
        self.client = client

    def start(self) -> None: ...

    async def ensure_ready(self, timeout_s: float) -> None: ...

    def when_ready(self, call: Callable[[], None]) -> None: ...

    def before_ready(self, call: Callable[[EngineClient], Awaitable[None]]) -> None: ...

    def suspect(self) -> None: ...

    async def stop(self) -> None:
        await self.client.close()


@dataclass(frozen=True, slots=True)
class ReplicaStatus:
    name: str
    state: str
    pid: int | None
    in_flight: int
    restarts: int
    rss_bytes: int | None
    last_error: str | None


@dataclass(frozen=True, slots=True)
class PoolStatus:
    name: str
    queued: int
    refused_adapters: int  # that routes name and no request can be answered under
    replicas: tuple[ReplicaStatus, ...]


class Lease:
    """A place on one replica, given back when its context ends."""

    __slots__ = ("_member", "_pool", "_priority", "_tenant_id")

    def __init__(self, pool: "Pool", tenant_id: str, priority: Priority) -> None:
        self._pool = pool
        self._tenant_id = tenant_id
        self._priority = priority
        self._member: Member | None = None

    async def __aenter__(self) -> "Lease":
        self._member = self._pool.take_free()
        if self._member is None:
            self._member = await self._pool.wait_for_free(self._tenant_id, self._priority)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._member is not None:
            self._pool.give_back(self._member)

    @property
    def member(self) -> Member:
        if self._member is None:
            raise RuntimeError("a lease is used before it was entered")
        return self._member

    @property
    def client(self) -> EngineClient:
        return self.member.client

    @property
    def base_digest(self) -> str | None:
        return self.member.base_digest

    def suspect(self) -> None:
        self.member.suspect()

    def forgot_adapters(self) -> None:
        """The replica said that it does not have one that it was told of."""
        self._pool.tell_again(self.member)


class Pool:
    """Places are counted: `capabilities.concurrency` on each replica. Who finds none
    waits in a fair, bounded queue; who waits too long gets a 503 with a hint when to
    come back."""

    def __init__(
        self,
        name: str,
        engine: str,
        members: Sequence[Member],
        capabilities: Capabilities,
        limits: LimitSettings,
        adapters: PoolAdapters | None = None,
        own: OwnPool | None = None,
    ) -> None:
        """`adapters` are there exactly when the capabilities say so; `own` where one
        tenant alone uses it."""
        self.name = name
        self.own = own
        self.engine = engine
        self.capabilities = capabilities
        self.adapters = adapters
        self._members = tuple(members)
        self._users = 0
        self._unused: Callable[[], None] | None = None
        self._limits = limits
        self._queue: FairQueue[asyncio.Future[Member]] = FairQueue(limits.queue_length)

    @property
    def is_ready(self) -> bool:
        return any(member.is_ready for member in self._members)

    @property
    def base_digest(self) -> str | None:
        return self._members[0].base_digest

    @property
    def is_used(self) -> bool:
        """Whether a request is bound to it; told of a tenant's own pool only."""
        return self._users > 0

    def used(self, adapter: str | None) -> AbstractContextManager[None]:
        """From binding to settling: a tenant's own pool that nobody wants any more waits for
        this, and so do the replicas with dropping the adapter."""
        if self.own is not None:
            return self._counted(adapter)
        return nullcontext() if self.adapters is None else self.adapters.used(adapter)

    @contextmanager
    def _counted(self, adapter: str | None) -> Iterator[None]:
        self._users += 1
        try:
            with nullcontext() if self.adapters is None else self.adapters.used(adapter):
                yield
        finally:
            self._users -= 1
            if not self._users and self._unused is not None:
                self._unused()

    def when_unused(self, call: Callable[[], None] | None) -> None:
        """Calls each time that its last request has ended."""
        self._unused = call

    def start(self) -> None:
        if self.adapters is not None:
            self.adapters.serve(lambda: [each.client for each in self._members if each.is_ready])
        for member in self._members:
            if self.adapters is not None:
                member.before_ready(self.adapters.prepare)
            member.when_ready(self._hand_out)  # it serves those who waited for it
            member.start()

    async def ensure_ready(self, timeout_s: float) -> None:
        await asyncio.gather(*(member.ensure_ready(timeout_s) for member in self._members))

    async def stop(self) -> None:
        if self.adapters is not None:
            await self.adapters.stop()
        await asyncio.gather(*(member.stop() for member in self._members))

    def tell_again(self, member: Member) -> None:
        if self.adapters is not None:
            self.adapters.forgotten_by(member.client)
        member.suspect()

    def lease(self, tenant_id: str, priority: Priority) -> Lease:
        return Lease(self, tenant_id, priority)

    def status(self) -> PoolStatus:
        return PoolStatus(
            self.name,
            len(self._queue),
            len(self.adapters.refused) if self.adapters else 0,
            tuple(
                ReplicaStatus(
                    member.name,
                    str(member.state),
                    member.pid,
                    member.in_flight,
                    member.restarts,
                    member.rss_bytes,
                    member.last_error,
                )
                for member in self._members
            ),
        )

    def take_free(self) -> Member | None:
        """A place for who comes now: none as long as somebody waits already."""
        self._hand_out()
        return None if len(self._queue) else self._take()

    def _take(self) -> Member | None:
        """The ready replica with the most room, or None; counted at once."""
        best: Member | None = None
        for member in self._members:
            if (
                member.is_ready
                and member.in_flight < self.capabilities.concurrency
                and (best is None or member.in_flight < best.in_flight)
            ):
                best = member
        if best is not None:
            best.in_flight += 1
        return best

    async def wait_for_free(self, tenant_id: str, priority: Priority) -> Member:
        if self._queue.is_full:
            raise UserError(
                Code.OVERLOADED, "Too many requests wait already: try again.", retry_after_s=5
            )
        place: asyncio.Future[Member] = asyncio.get_running_loop().create_future()
        self._queue.push(tenant_id, priority, place)
        try:
            async with asyncio.timeout(self._limits.queue_s):
                return await asyncio.shield(place)
        except asyncio.CancelledError:
            self._abandon(place)
            raise
        except TimeoutError:
            self._abandon(place)
            raise UserError(
                Code.OVERLOADED if self.is_ready else Code.ENGINE_UNAVAILABLE,
                f"No engine was free within {self._limits.queue_s:g} seconds: try again.",
                retry_after_s=10,
            ) from None
        finally:
            self._queue.remove(tenant_id, priority, place)

    def _abandon(self, place: asyncio.Future[Member]) -> None:
        """Who gave up in the very moment when a place came must pass it on."""
        if place.done():
            self.give_back(place.result())
        else:
            place.cancel()

    def give_back(self, member: Member) -> None:
        member.in_flight -= 1
        self._hand_out()

    def _hand_out(self) -> None:
        while len(self._queue):
            member = self._take()
            if member is None:
                return
            place = self._queue.pop()
            if place.done():
                member.in_flight -= 1
            else:
                place.set_result(member)
