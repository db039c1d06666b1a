"""Leases: a place that was taken always comes back, waiters are served in fair turns."""

import asyncio
import contextlib
import random
import time
from collections.abc import AsyncIterator, Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from freehold.config.schema import LimitSettings
from freehold.core.binding import Priority
from freehold.core.engine import Capabilities
from freehold.core.errors import Code, UserError
from freehold.deploy.pool import Pool, RemoteMember
from freehold.engines.fake import FakeClient

_INTERACTIVE, _BATCH = Priority.INTERACTIVE, Priority.BATCH


def _member(name: str = "m0") -> RemoteMember:
    """A member that is always there, until a test says otherwise."""
    return RemoteMember(name, FakeClient("/none"))


class _Returning(RemoteMember):
    """A member that is away at first, as a replica that starts."""

    def __init__(self) -> None:
        super().__init__("m0", FakeClient("/none"))
        self.is_ready = False

    def when_ready(self, call: Callable[[], None]) -> None:
        self._call = call

    def return_now(self) -> None:
        self.is_ready = True
        self._call()


def _pool(*members: RemoteMember, concurrency: int = 1, **limits: float) -> Pool:
    made = LimitSettings.model_validate({"queue_s": 20, **limits})
    return Pool("p", "fake", members or (_member(),), Capabilities({}, None, concurrency), made)


async def _steps(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def _hold(pool: Pool, until: asyncio.Event, tenant: str = "a") -> None:
    async with pool.lease(tenant, _INTERACTIVE):
        await until.wait()


@contextlib.asynccontextmanager
async def _busy(pool: Pool, places: int = 1) -> AsyncIterator[asyncio.Event]:
    """All places are taken until the event is set."""
    release = asyncio.Event()
    holders = [asyncio.create_task(_hold(pool, release)) for _ in range(places)]
    await _steps(2)
    yield release
    release.set()
    await asyncio.gather(*holders)


async def _served(
    pool: Pool, order: list[str], who: str, priority: Priority = _INTERACTIVE
) -> None:
    tenant = who[0]
    async with pool.lease(tenant, priority):
        order.append(who)
        await asyncio.sleep(0)


def _is_idle(pool: Pool) -> bool:
    status = pool.status()
    return status.queued == 0 and all(replica.in_flight == 0 for replica in status.replicas)


async def test_the_ready_member_with_the_most_room_is_taken() -> None:
    members = [_member("m0"), _member("m1"), _member("m2")]
    members[0].is_ready = False
    pool = _pool(*members, concurrency=2)
    async with (
        pool.lease("a", _INTERACTIVE) as one, pool.lease("a", _INTERACTIVE) as two,
        pool.lease("a", _INTERACTIVE), pool.lease("a", _INTERACTIVE),
    ):  # fmt: skip
        assert {one.member.name, two.member.name} == {"m1", "m2"}
        assert [member.in_flight for member in members] == [0, 2, 2]
    assert [member.in_flight for member in members] == [0, 0, 0]


async def test_a_lease_comes_back_however_its_holder_ends() -> None:
    pool = _pool()
    with pytest.raises(ZeroDivisionError):
        async with pool.lease("a", _INTERACTIVE):
            raise ZeroDivisionError
    assert _is_idle(pool)
    holder = asyncio.create_task(_hold(pool, asyncio.Event()))
    await _steps(2)
    holder.cancel()
    await asyncio.gather(holder, return_exceptions=True)
    assert _is_idle(pool)


@pytest.mark.parametrize("cancel_at", range(8))
@pytest.mark.parametrize("release_at", range(8))
async def test_a_waiter_cancelled_at_any_moment_passes_its_place_on(
    cancel_at: int, release_at: int
) -> None:
    pool, order = _pool(), []  # type: tuple[Pool, list[str]]
    async with _busy(pool) as release:
        waiter = asyncio.create_task(_served(pool, order, "b"))
        other = asyncio.create_task(_served(pool, order, "c"))
        for step in range(8):
            if step == cancel_at:
                waiter.cancel()
            if step == release_at:
                release.set()
            await asyncio.sleep(0)
        await asyncio.gather(waiter, other, return_exceptions=True)
    assert "c" in order
    assert _is_idle(pool)


@pytest.mark.parametrize("first", ["release", "timeout"])
async def test_a_place_that_comes_in_the_moment_of_the_timeout_is_not_lost(first: str) -> None:
    pool, order = _pool(queue_s=0.05), []  # type: tuple[Pool, list[str]]
    async with _busy(pool) as release:
        waiter = asyncio.create_task(_served(pool, order, "b"))
        await _steps(2)
        delay = 0.04 if first == "release" else 0.06
        asyncio.get_running_loop().call_later(delay, release.set)
        time.sleep(0.1)  # noqa: ASYNC251 - both timers are due in the same turn of the loop
        await asyncio.gather(waiter, return_exceptions=True)
    assert _is_idle(pool)
    await _served(pool, order, "c")
    assert order[-1] == "c"


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**32), st.integers(1, 3), st.integers(1, 3))
def test_under_random_cancels_no_place_is_lost_or_given_twice(
    seed: int, members: int, concurrency: int
) -> None:
    asyncio.run(_storm(random.Random(seed), members, concurrency))


async def _storm(chance: random.Random, count: int, concurrency: int) -> None:
    members = [_member(f"m{number}") for number in range(count)]
    pool = _pool(*members, concurrency=concurrency, queue_length=1000)
    served: list[int] = []

    async def one(number: int) -> None:
        priority = chance.choice([_INTERACTIVE, _BATCH])
        async with pool.lease(chance.choice("abc"), priority) as lease:
            assert 1 <= lease.member.in_flight <= concurrency
            await _steps(chance.randrange(6))
            served.append(number)

    tasks = []
    for number in range(60):
        tasks.append(asyncio.create_task(one(number)))
        await _steps(chance.randrange(3))
        if chance.random() < 0.4:
            chance.choice(tasks).cancel()
        if chance.random() < 0.2:
            member = chance.choice(members)
            member.is_ready = not member.is_ready
    for member in members:
        member.is_ready = True
    await _served(pool, [], "z")  # whoever comes, those before are served
    results = await asyncio.gather(*tasks, return_exceptions=True)
    cancelled = [isinstance(result, asyncio.CancelledError) for result in results]
    assert [result for result in results if result is not None] == [
        result for result in results if isinstance(result, asyncio.CancelledError)
    ]
    assert {number for number, gone in enumerate(cancelled) if not gone} <= set(served)
    assert _is_idle(pool)


async def test_waiters_take_turns_by_tenant_and_batch_comes_last() -> None:
    pool, order = _pool(), []  # type: tuple[Pool, list[str]]
    async with _busy(pool) as release:
        waiting = [
            asyncio.create_task(_served(pool, order, who, priority))
            for who, priority in (
                ("x0", _BATCH), ("a1", _INTERACTIVE), ("a2", _INTERACTIVE), ("a3", _INTERACTIVE),
                ("b1", _INTERACTIVE), ("c1", _INTERACTIVE), ("b2", _INTERACTIVE),
            )
        ]  # fmt: skip
        await _steps(2)
        assert pool.status().queued == 7
        release.set()
        await asyncio.gather(*waiting)
    assert order == ["a1", "b1", "c1", "a2", "b2", "a3", "x0"]


async def test_who_waits_too_long_is_told_whether_the_engine_was_busy_or_away() -> None:
    member = _member()
    pool = _pool(member, queue_s=0.01)
    async with _busy(pool):
        with pytest.raises(UserError) as busy:
            await _served(pool, [], "b")
        member.is_ready = False
        with pytest.raises(UserError) as away:
            await _served(pool, [], "b")
    assert (busy.value.code, away.value.code) == (Code.OVERLOADED, Code.ENGINE_UNAVAILABLE)
    assert busy.value.retry_after_s
    assert away.value.retry_after_s
    assert _is_idle(pool)


@pytest.mark.parametrize("length", [0, 3])
async def test_a_full_queue_refuses_at_once_and_those_inside_are_served(length: int) -> None:
    pool, order = _pool(queue_length=length), []  # type: tuple[Pool, list[str]]
    async with _busy(pool) as release:
        inside = [asyncio.create_task(_served(pool, order, "b")) for _ in range(length)]
        await _steps(2)
        with pytest.raises(UserError) as refused:
            await _served(pool, order, "c")
        assert refused.value.code is Code.OVERLOADED
        assert refused.value.retry_after_s
        release.set()
        await asyncio.gather(*inside)
    assert order == ["b"] * length


async def test_a_replica_that_comes_back_serves_those_who_waited_before_any_newcomer() -> None:
    member = _member()
    member.is_ready = False
    pool, order = _pool(member), []  # type: tuple[Pool, list[str]]
    waiting = [asyncio.create_task(_served(pool, order, who)) for who in ("a1", "b1")]
    await _steps(2)
    member.is_ready = True
    newcomer = asyncio.create_task(_served(pool, order, "c1"))
    await asyncio.gather(newcomer, *waiting)
    assert order == ["a1", "b1", "c1"]


async def test_waiters_are_served_when_a_replica_returns_though_nobody_else_comes() -> None:
    member = _Returning()
    pool, order = _pool(member, concurrency=4), []  # type: tuple[Pool, list[str]]
    pool.start()
    waiting = [asyncio.create_task(_served(pool, order, f"a{number}")) for number in range(9)]
    await _steps(3)
    assert not pool.is_ready
    assert order == []
    member.return_now()
    await asyncio.gather(*waiting)
    assert len(order) == 9
    await pool.stop()
    assert _is_idle(pool)


async def test_a_replica_that_became_unready_in_a_lease_gets_no_new_one() -> None:
    member = _member()
    pool = _pool(member)
    async with _busy(pool) as release:
        waiter = asyncio.create_task(_served(pool, [], "b"))
        await _steps(2)
        member.is_ready = False
        release.set()
        await _steps(4)
        assert not waiter.done()
        assert pool.status().queued == 1
        waiter.cancel()
        await asyncio.gather(waiter, return_exceptions=True)
    assert _is_idle(pool)


async def test_a_lease_gives_its_members_client_and_digest_once_it_was_entered() -> None:
    member = _member()
    member.base_digest = "sha256:x"
    lease = _pool(member).lease("a", _INTERACTIVE)
    with pytest.raises(RuntimeError):
        lease.member  # noqa: B018 - the read is what fails
    async with lease:
        assert lease.client is member.client
        assert lease.base_digest == "sha256:x"


async def test_the_status_tells_what_runs_and_what_waits() -> None:
    pool = _pool(_member("m0"), _member("m1"), concurrency=2)
    async with _busy(pool, places=4) as release:
        waiter = asyncio.create_task(_served(pool, [], "b"))
        await _steps(2)
        status = pool.status()
        assert (status.name, status.queued) == ("p", 1)
        assert [(one.name, one.in_flight, one.state) for one in status.replicas] == [
            ("m0", 2, "remote"), ("m1", 2, "remote"),
        ]  # fmt: skip
        release.set()
        await waiter
