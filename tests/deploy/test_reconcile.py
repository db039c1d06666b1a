"""What a replica is told of: all that routes name before it serves, in parts, and
nothing is taken from it that a request still runs under."""

import asyncio
import hashlib
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from freehold.core.binding import Environment
from freehold.core.engine import AdapterFiles
from freehold.core.errors import Code, UserError
from freehold.core.tenant import OwnPool
from freehold.deploy import reconcile
from freehold.deploy.adapters import PoolAdapters, Stored
from freehold.deploy.reconcile import PART, steps
from freehold.engines.fake import FakeClient

_sets = st.sets(st.integers(0, 30).map(str))


@given(desired=_sets, observed=_sets, held=_sets)
def test_the_steps_lead_from_what_is_there_to_what_should_be(
    desired: set[str], observed: set[str], held: set[str]
) -> None:
    there, has_dropped = set(observed), False
    for step in steps(desired, observed, held):
        assert bool(step.add) != bool(step.drop)
        assert not (step.add and has_dropped), "what is wanted comes first"
        has_dropped = has_dropped or bool(step.drop)
        assert not there & set(step.add)
        assert set(step.drop) <= there
        there = (there | set(step.add)) - set(step.drop)
    assert there == desired | (observed & held)
    assert list(steps(desired, there, held)) == []


def test_a_hundred_thousand_go_in_parts() -> None:
    desired = {str(number) for number in range(100_000)}
    parts = [step.add for step in steps(desired, set())]
    assert max(map(len, parts)) == PART
    assert len(parts) == 100_000 // PART
    assert set().union(*parts) == desired
    dropped = [step.drop for step in steps(set(), desired)]
    assert max(map(len, dropped)) == PART


class _Client(FakeClient):
    """A replica's client that writes down what it was told of."""

    def __init__(self, refuses: Mapping[str, str] | None = None) -> None:
        super().__init__("/none")
        self.has: set[str] = set()
        self.calls = 0
        self.refuses = dict(refuses or {})
        self.gate: asyncio.Event | None = None
        self.error: UserError | None = None

    async def change_adapters(
        self, add: Sequence[AdapterFiles], drop: Collection[str]
    ) -> Mapping[str, str]:
        self.calls += 1
        if self.gate is not None:
            await self.gate.wait()
        if self.error is not None:
            raise self.error
        refused = {each.digest: self.refuses[each.digest] for each in add
                   if each.digest in self.refuses}  # fmt: skip
        self.has |= {each.digest for each in add} - set(refused)
        self.has -= set(drop)
        return refused


def _files(digests: Sequence[str]) -> Stored:
    return Stored([AdapterFiles(each, Path("c"), Path("w")) for each in digests if each != "gone"])


def _adapters(*desired: str, serving: Sequence[_Client] = ()) -> PoolAdapters:
    made = PoolAdapters(set(desired), _files)
    made.serve(lambda: serving)
    return made


async def _settled(adapters: PoolAdapters) -> None:
    while adapters._tasks:
        await asyncio.gather(*adapters._tasks)


async def test_a_replica_has_all_that_is_desired_before_it_serves() -> None:
    digests = [hashlib.sha256(bytes([n % 256, n // 256])).hexdigest() for n in range(1200)]
    adapters, client = _adapters(*digests), _Client()
    await adapters.prepare(client)
    assert client.has == set(digests)
    assert client.calls == 3
    await adapters.prepare(client)
    assert client.calls == 3, "it has them all"
    adapters.forgotten_by(client)
    client.has.clear()
    await adapters.prepare(client)
    assert client.has == set(digests)


async def test_what_becomes_desired_while_a_replica_prepares_is_with_it_too() -> None:
    serving, starting = _Client(), _Client()
    adapters = _adapters("a", serving=[serving])
    await adapters.prepare(serving)
    starting.gate = asyncio.Event()
    preparing = asyncio.create_task(adapters.prepare(starting))
    while not starting.calls:
        await asyncio.sleep(0)
    await adapters.want("b")
    assert serving.has == {"a", "b"}
    starting.gate.set()
    await preparing
    assert starting.has == {"a", "b"}


async def test_one_that_is_refused_changes_nothing_and_says_why() -> None:
    good, bad = _Client(), _Client({"x": "it is bad"})
    adapters = _adapters("a", serving=[good, bad])
    for client in (good, bad):
        await adapters.prepare(client)
    with pytest.raises(UserError, match="refuses this adapter: it is bad") as refused:
        await adapters.want("x")
    assert refused.value.code is Code.FILE_REFUSED
    assert "x" not in adapters
    assert adapters.refused == {}
    adapters.unwant("never wanted")
    await _settled(adapters)
    assert good.has == bad.has == {"a"}, "also where it was taken"


async def test_an_engine_that_fails_or_none_at_all_changes_nothing() -> None:
    client = _Client()
    adapters = _adapters(serving=[client])
    client.error = UserError(Code.ENGINE_FAILED, "It died.")
    with pytest.raises(UserError, match="It died"):
        await adapters.want("x")
    assert "x" not in adapters
    nobody = _adapters("a")
    with pytest.raises(UserError) as refused:
        await nobody.want("x")
    assert refused.value.code is Code.ENGINE_UNAVAILABLE
    await nobody.want("a")


async def test_one_refused_at_a_start_is_left_out_until_it_is_wanted_anew() -> None:
    client = _Client({"a": "its files were changed"})
    adapters = _adapters("a", "b", "gone", serving=[client])
    await adapters.prepare(client)
    assert client.has == {"b"}
    assert adapters.refused == {
        "a": "its files were changed", "gone": "it is not stored any more"
    }  # fmt: skip
    assert [each in adapters for each in ("a", "b", "gone")] == [False, True, False]
    with pytest.raises(UserError):
        await adapters.want("a")
    assert "a" in adapters.refused
    client.refuses.clear()
    await adapters.want("a")
    assert client.has == {"a", "b"}
    assert "a" in adapters


async def test_one_goes_when_its_last_request_has_ended_and_not_before() -> None:
    client = _Client()
    adapters = _adapters("a", "b", serving=[client])
    await adapters.prepare(client)
    with adapters.used("a"):
        with adapters.used("a"), adapters.used(None):
            adapters.unwant("a")
            await _settled(adapters)
            assert client.has == {"a", "b"}
        await _settled(adapters)
        assert client.has == {"a", "b"}
        assert "a" not in adapters
    await _settled(adapters)
    assert client.has == {"b"}


async def test_one_that_is_wanted_again_before_it_went_stays() -> None:
    client = _Client()
    adapters = _adapters("a", serving=[client])
    await adapters.prepare(client)
    with adapters.used("a"):
        adapters.unwant("a")
        await adapters.want("a")
    await _settled(adapters)
    assert client.has == {"a"}
    assert "a" in adapters


async def test_a_drop_that_failed_is_tried_again_with_the_next_change() -> None:
    client = _Client()
    adapters = _adapters("a", "b", serving=[client])
    await adapters.prepare(client)
    client.error = UserError(Code.ENGINE_FAILED, "Not now.")
    adapters.unwant("a")
    await _settled(adapters)
    assert client.has == {"a", "b"}
    client.error = None
    adapters.unwant("b")
    await _settled(adapters)
    assert client.has == set()


def _own(name: str) -> OwnPool:
    return OwnPool(name, "shared", "ten_a", "sha256:b", False)


_some_names = st.frozensets(st.sampled_from("abcdef"))


@given(desired=_some_names, observed=_some_names, used=_some_names)
def test_pools_of_single_tenants_start_when_wanted_and_stop_when_unused(
    desired: frozenset[str], observed: frozenset[str], used: frozenset[str]
) -> None:
    changes = reconcile.pools({name: _own(name) for name in desired}, observed, used)
    started, stopped, left = {own.name for own in changes.start}, set(changes.stop), changes.left
    assert observed | started >= desired, "what is wanted is there"
    assert (observed | started) - stopped - set(left) == desired, "and nothing else for long"
    assert stopped.isdisjoint(used), "nobody's requests are cut"
    assert started.isdisjoint(observed)
    again = reconcile.pools({name: _own(name) for name in desired}, (observed | started) - stopped)
    assert again.start == ()
    assert set(again.stop) == set(left), "in the end"


async def test_what_is_aligned_is_with_those_that_serve_and_stays_when_others_go() -> None:
    client = _Client({"bad": "it is bad"})
    adapters = _adapters("b", serving=[client])
    await adapters.prepare(client)
    await adapters.align({"a", "b", "bad"})
    assert client.has == {"a", "b"}
    assert "a" in adapters
    assert adapters.refused == {"bad": "it is bad"}
    adapters.unwant("a")
    await adapters.align({"a", "b"})  # before it went
    adapters.forget_others({"a"})
    await _settled(adapters)
    assert client.has == {"a"}
    client.error = UserError(Code.ENGINE_FAILED, "It died.")
    await adapters.align({"a", "c"})
    assert "c" in adapters, "its successor is told"
    client.error = None
    await adapters.prepare(client)
    assert client.has == {"a", "c"}


async def test_what_is_aligned_before_any_replica_serves_is_with_the_first() -> None:
    client = _Client()
    adapters = _adapters("b")
    await adapters.align({"a", "b"})
    adapters.unwant("b")
    await _settled(adapters)
    await adapters.prepare(client)
    assert client.has == {"a"}


async def test_what_counts_no_more_is_refused_at_once_and_goes_with_its_last_request() -> None:
    client, unsound = _Client(), dict[str, str]()

    def files(digests: Sequence[str]) -> Stored:
        found = _files([each for each in digests if each not in unsound])
        return Stored(found.files, {each: unsound[each] for each in digests if each in unsound})

    adapters = PoolAdapters({"a", "b"}, files)
    adapters.serve(lambda: [client])
    await adapters.prepare(client)
    unsound["a"] = "its key was revoked"
    with adapters.used("a"):
        await adapters.recheck()
        await _settled(adapters)
        assert adapters.why_not(("ten_a", Environment.DEV), "a") == "its key was revoked"
        assert client.has == {"a", "b"}
    await _settled(adapters)
    assert client.has == {"b"}
    unsound.clear()
    client.refuses["a"] = "too large"
    await adapters.recheck()
    assert "a" not in adapters
    client.refuses.clear()
    await adapters.recheck()
    await _settled(adapters)
    assert client.has == {"a", "b"}
    assert "a" in adapters
