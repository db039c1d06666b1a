"""The scheduler: every request gets exactly its tokens, and no tenant waits for long."""

import random
from collections.abc import Callable
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from freehold.core.binding import Priority
from freehold.core.errors import Code, Fault, UserError
from freehold.engines.openvino.scheduler import Kind, Limits, Step
from freehold.engines.openvino.sequence import Sequence
from tests.engines.openvino.pretence import Engine

_BATCH = Priority.BATCH
_SIZE = 4
_SYSTEM = [7, 8, 9, 7, 8, 9, 7, 8, 9]  # how many prompts begin

_prompts = st.lists(st.integers(1, 2), max_size=12).map(lambda tail: [5, *tail]) | st.lists(
    st.integers(1, 2), max_size=30
).map(lambda tail: _SYSTEM + tail)
_limits = st.builds(
    Limits,
    max_running=st.integers(1, 8),
    chunk_tokens=st.integers(1, 20),
    patience_s=st.sampled_from([0.0, 0.2, 1.0]),
    batch_patience_s=st.sampled_from([0.0, 0.5, 2.0]),
    turn_tokens=st.integers(1, 6),
)


class SchedulerMachine(RuleBasedStateMachine):
    """Whatever comes and goes, `Engine` looks at every step and every whole answer."""

    @initialize(blocks=st.integers(16, 24), limits=_limits)
    def begin(self, blocks: int, limits: Limits) -> None:
        self.engine = Engine(blocks, _SIZE, limits)

    def _pick(self, which: int) -> Sequence:
        return list(self.engine.live.values())[which % len(self.engine.live)]

    @rule(
        tenant=st.sampled_from("abc"),
        prompt=_prompts,
        answer=st.integers(1, 25),
        adapter=st.sampled_from([None, "x", "y"]),
        salt=st.sampled_from(["", "s", "t"]),
        priority=st.sampled_from(Priority),
        times=st.sampled_from([1, 1, 1, 4]),
    )
    def requests_come(
        self,
        tenant: str,
        prompt: list[int],
        answer: int,
        adapter: str | None,
        salt: str,
        priority: Priority,
        times: int,
    ) -> None:
        for _ in range(times):
            self.engine.add(tenant, prompt, answer, adapter=adapter, salt=salt, priority=priority)

    @rule(times=st.integers(1, 5))
    def steps_are_computed(self, times: int) -> None:
        for _ in range(times):
            self.engine.step()

    @precondition(lambda self: self.engine.live)
    @rule(which=st.integers(0, 99))
    def a_client_goes(self, which: int) -> None:
        self.engine.end(self._pick(which))

    @precondition(lambda self: self.engine.live)
    @rule(which=st.integers(0, 99))
    def an_answer_ends_by_itself(self, which: int) -> None:
        self.engine.finish(self._pick(which))

    @precondition(lambda self: self.engine.live)
    @rule(which=st.integers(0, 99))
    def a_client_goes_during_a_step(self, which: int) -> None:
        gone = self._pick(which)
        length = len(gone.tokens)
        self.engine.step(lambda step: self.engine.end(gone))
        assert len(gone.tokens) == length

    @rule()
    def a_planned_step_is_not_computed(self) -> None:
        self.engine.scheduler.plan(self.engine.now_s)

    def teardown(self) -> None:
        tokens = sum(one.max_total for one in self.engine.live.values())
        self.engine.run(50 + 20 * tokens)


SchedulerMachine.TestCase.settings = settings(
    max_examples=60, stateful_step_count=40, deadline=None
)
TestScheduler = SchedulerMachine.TestCase


def _engine(
    blocks: int = 400,
    max_running: int = 8,
    chunk_tokens: int = 16,
    patience_s: float = 2.0,
    batch_patience_s: float = 10.0,
    turn_tokens: int = 8,
    step_s: float = 0.05,
) -> Engine:
    limits = Limits(max_running, chunk_tokens, patience_s, batch_patience_s, turn_tokens)
    return Engine(blocks, _SIZE, limits, step_s)


def _steps(engine: Engine, count: int) -> None:
    for _ in range(count):
        assert engine.step() is not None


def _until(engine: Engine, has_come: Callable[[], object]) -> None:
    for _ in range(500):
        if has_come():
            return
        engine.step()
    raise AssertionError("it has not come in 500 steps")


# tenants


def test_a_tenant_with_a_thousand_requests_does_not_block_one_with_a_single_one() -> None:
    engine = _engine()
    for _ in range(1000):
        engine.add("a", 10, 500)
    _steps(engine, 30)
    single = engine.add("b", 10, 5)
    _steps(engine, 40)
    assert single.id not in engine.firsts, "its patience is 40 steps"
    _steps(engine, 4)
    assert single.id in engine.firsts
    assert [one.tenant for one in engine.preempted] == ["a"]
    assert engine.scheduler.running == 8


def test_nor_does_one_that_holds_all_memory() -> None:
    engine = _engine(blocks=100, max_running=64)
    for _ in range(4):
        engine.add("a", 80, 300)
    _steps(engine, 45)
    assert engine.pool.available < 10
    single = engine.add("b", 120, 5)
    _steps(engine, 40 + 2 + 2 * 2 * 8)
    assert single.id in engine.firsts
    assert {one.tenant for one in engine.preempted} == {"a"}


def test_a_tenant_that_has_a_place_does_not_take_those_of_others() -> None:
    engine = _engine(max_running=4)
    for _ in range(20):
        engine.add("a", 10, 500)
    mine = engine.add("b", 10, 500)
    _steps(engine, 100)
    assert mine.id in engine.firsts
    count = len(engine.preempted)
    for _ in range(20):
        engine.add("b", 10, 500)
    _steps(engine, 200)
    assert len(engine.preempted) == count


def test_a_tenant_that_was_served_more_takes_no_place_of_one_that_was_served_less() -> None:
    engine = _engine(max_running=2)
    engine.add("a", 4, 250)
    engine.add("b", 400, 1)
    _until(engine, lambda: "b" in engine.served)
    engine.add("c", 4, 150)
    engine.add("b", 4, 5)
    _steps(engine, 60)
    assert engine.preempted == []
    engine.run(500)


def test_a_preempted_sequence_has_its_turn_before_it_is_preempted_for_others_again() -> None:
    engine = _engine(max_running=2, turn_tokens=12, patience_s=0.3)
    for tenant in "abcde":
        engine.add(tenant, 6, 60)
    turns = []
    chosen: dict[str, int] = {}  # when it was preempted last
    while engine.live:
        count = len(engine.preempted)
        before = {one.id: len(one.output) for one in engine.live.values()}
        engine.step()
        for one in engine.preempted[count:]:
            turns.append(before[one.id] - chosen.get(one.id, 0))
            chosen[one.id] = before[one.id]
    assert len(turns) > 10, "tenants took turns"
    assert min(turns) >= 12
    assert max(engine.firsts.values()) < 100, "all of them soon"


def test_tenants_are_served_alike_by_tokens_however_they_cut_their_requests() -> None:
    engine = _engine(max_running=4, patience_s=1e9)
    for _ in range(400):
        engine.add("many", 4, 8)
    for _ in range(40):
        engine.add("long", 40, 80)
    _steps(engine, 1200)
    assert 0.8 < engine.served["many"] / engine.served["long"] < 1.25


def test_free_places_are_shared_at_once() -> None:
    engine = _engine(max_running=8)
    for tenant in "ab":
        for _ in range(20):
            engine.add(tenant, 4, 5)
    engine.step()
    assert sorted(one.tenant for one in engine.live.values() if one.blocks) == [*"aaaabbbb"]


def test_a_tenant_that_comes_back_has_saved_up_no_turns() -> None:
    engine = _engine(max_running=4, patience_s=1e9)
    for _ in range(200):
        engine.add("a", 4, 10)
    _steps(engine, 300)
    for _ in range(200):
        engine.add("b", 4, 10)
    before = engine.served["a"]
    _steps(engine, 300)
    assert 0.7 < engine.served["b"] / (engine.served["a"] - before) < 1.3


def test_neither_has_one_that_comes_while_nobody_waits() -> None:
    engine = _engine(max_running=4, patience_s=1e9)
    engine.add("a", 4, 700)
    for _ in range(50):  # alone, never idle, and never with a queue
        one = engine.add("a", 4, 10)
        while one.id in engine.live:
            engine.add("a", 4, 2) if len(engine.live) < 3 else engine.step()
    for tenant in "ba":
        for _ in range(100):
            engine.add(tenant, 4, 10)
    before = engine.served["a"]
    _steps(engine, 300)
    assert 0.7 < engine.served["b"] / (engine.served["a"] - before) < 1.3


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32))
def test_every_tenant_gets_a_token_within_a_bounded_number_of_steps(seed: int) -> None:
    chance = random.Random(seed)
    engine = _engine(blocks=60, max_running=4, chunk_tokens=20, patience_s=1.0)
    since: dict[str, int] = {}
    waits = []
    for _ in range(400):
        for tenant, rate in (("a", 0.5), ("b", 0.05), ("c", 0.02)):
            if chance.random() < rate:
                salt = chance.choice(["", tenant])
                engine.add(tenant, chance.randint(1, 100), chance.randint(1, 60), salt=salt)
        chosen = engine.served.copy()
        engine.step()
        for tenant in {one.tenant for one in engine.live.values()} | set(since):
            since.setdefault(tenant, len(engine.steps))
            waits.append(len(engine.steps) - since[tenant])
            if engine.served[tenant] > chosen[tenant]:
                since[tenant] = len(engine.steps)
            if not any(one.tenant == tenant for one in engine.live.values()):
                del since[tenant]
    # patience, then a turn of those before it, then five chunks beside two other tenants
    assert max(waits, default=0) <= 20 + 2 * 8 + 2 * 3 * 5 + 20


# interactive and batch


def test_batch_waits_while_anything_interactive_does() -> None:
    engine = _engine(max_running=2)
    batch = engine.add("a", 4, 5, priority=_BATCH)
    chats = [engine.add(tenant, 4, 5) for tenant in "abcabc"]
    engine.run(200)
    assert engine.firsts[batch.id] > max(engine.firsts[one.id] for one in chats)


def test_batch_is_served_now_and_then_though_interactive_work_never_ends() -> None:
    engine = _engine(max_running=2, batch_patience_s=3.0)
    batch = [engine.add(tenant, 4, 5, priority=_BATCH) for tenant in "abab"]
    for _ in range(60 * 5):
        while engine.scheduler.waiting < 6:
            engine.add("c", 4, 8)
        engine.step()
    steps = sorted(engine.firsts[one.id] for one in batch)
    assert steps[0] >= 60
    assert all(later - sooner >= 50 for sooner, later in pairwise(steps))


def test_an_interactive_request_takes_the_place_of_batch_work_that_runs() -> None:
    engine = _engine(max_running=3)
    work = [engine.add("a", 4, 400, priority=_BATCH) for _ in range(9)]
    _steps(engine, 20)
    chat = engine.add("a", 4, 5)
    _steps(engine, 38)
    assert engine.preempted == []
    _steps(engine, 7)
    assert chat.id in engine.firsts
    assert engine.preempted == [work[2]]


def test_batch_work_takes_no_place_of_interactive() -> None:
    engine = _engine(max_running=2)
    for _ in range(2):
        engine.add("a", 4, 180)
    _steps(engine, 10)
    engine.add("b", 4, 5, priority=_BATCH)
    _steps(engine, 150)
    assert engine.preempted == []


# filling


def test_a_long_prompt_stops_running_streams_for_one_chunk_at_a_time() -> None:
    engine = _engine(blocks=1000)
    streams = [engine.add("a", 4, 300).id for _ in range(3)]
    _steps(engine, 5)
    engine.add("b", 1600, 5)
    start = len(engine.steps)
    _steps(engine, 200)
    kinds = [kind for kind, _ in engine.steps[start:]]
    assert kinds.count(Kind.FILL) == 100
    assert all(one is not other for one, other in pairwise(kinds))
    assert all(names[:3] == streams for kind, names in engine.steps[start:] if kind is Kind.DECODE)


def test_a_short_prompt_passes_a_long_one_of_its_own_tenant() -> None:
    engine = _engine(blocks=1000)
    long = engine.add("a", 800, 5)
    _steps(engine, 3)
    short = engine.add("a", 10, 5)
    engine.run(500)
    assert engine.firsts[short.id] <= 5
    assert engine.firsts[long.id] <= 60


def test_a_long_prompt_is_filled_though_short_ones_never_end() -> None:
    engine = _engine(blocks=1000, max_running=64)
    long = engine.add("a", 160, 5)
    for _ in range(100):
        engine.add("a", 16, 1)
        engine.step()
    assert long.id in engine.firsts


def test_tenants_are_filled_in_turn() -> None:
    engine = _engine(blocks=1000, max_running=64)
    for _ in range(30):
        engine.add("a", 16, 1)
    other = engine.add("b", 64, 5)
    _steps(engine, 10)
    assert other.id in engine.firsts


def test_sequences_of_one_adapter_are_filled_together() -> None:
    engine = _engine(chunk_tokens=64)
    for adapter in ("x", "y", "x", "y", None, "x"):
        engine.add("a", 20, 2, adapter=adapter)
    step = engine.step()
    assert step is not None
    lengths = [(sequence.adapter, length) for sequence, _, length, _ in step.items]
    assert lengths == [("x", 20), ("x", 20), ("x", 20), ("y", 4)]


def test_adapters_with_little_to_do_do_not_join_one_with_much() -> None:
    engine = _engine(chunk_tokens=100)
    for adapter in "vwxyz":
        engine.add("a", 4, 2, adapter=adapter)
    engine.add("a", 70, 2, adapter="long")
    step = engine.step()
    assert step is not None
    assert [one.adapter for one, *_ in step.items] == list("vwxyz")
    engine.run(100)


# memory


def test_for_want_of_memory_the_newest_of_the_largest_tenant_makes_room() -> None:
    engine = _engine(blocks=24, max_running=8, patience_s=1e9)
    for _ in range(2):
        engine.add("a", 8, 80)
    newest = engine.add("a", 8, 80)
    small = engine.add("b", 4, 40)
    _until(engine, lambda: engine.preempted)
    assert engine.preempted == [newest]
    engine.run(2000)
    assert small not in engine.preempted


def test_the_oldest_never_makes_room_for_want_of_memory() -> None:
    engine = _engine(blocks=12, patience_s=1e9)
    oldest = engine.add("a", 20, 20)
    others = [engine.add("b", 8, 20) for _ in range(2)]
    engine.run(2000)
    assert engine.preempted[0] is others[1]
    assert oldest not in engine.preempted


def test_who_had_to_make_room_is_the_next_of_its_tenant() -> None:
    engine = _engine(max_running=2)
    _, preempted, third = (engine.add("a", 4, 60) for _ in range(3))
    _steps(engine, 5)
    engine.add("b", 4, 20)
    _until(engine, lambda: engine.preempted == [preempted])
    _until(engine, lambda: preempted.blocks)
    assert third.admissions == 0
    engine.run(500)


def test_nobody_is_admitted_who_would_soon_have_to_make_room_again() -> None:
    engine = _engine(blocks=10)
    for _ in range(3):
        engine.add("a", 12, 8)
    engine.run(100)
    assert engine.preempted == []


def test_a_preempted_sequence_finds_its_own_beginning_again() -> None:
    engine = _engine(max_running=2, patience_s=0.3)
    for _ in range(2):
        engine.add("a", 40, 100, salt="a")
    _steps(engine, 20)
    engine.add("b", 4, 20)
    _until(engine, lambda: engine.preempted)
    victim = engine.preempted[0]
    known = len(victim.tokens)
    _until(engine, lambda: victim.blocks)
    assert victim.computed >= known - _SIZE, "all but its last block"
    assert victim.cached_tokens == 0, "what the prompt found at first"
    engine.run(1000)


def test_a_prompt_finds_the_beginning_that_another_of_its_salt_and_adapter_left() -> None:
    engine = _engine()
    finds = {}
    engine.add("a", _SYSTEM * 4, 5, adapter="x", salt="a")
    engine.run(50)
    for salt, adapter in (("a", "x"), ("a", "y"), ("a", None), ("b", "x"), ("", "x")):
        one = engine.add("a", _SYSTEM * 4, 5, adapter=adapter, salt=salt)
        engine.run(50)
        finds[salt, adapter] = one.cached_tokens
    assert finds == {("a", "x"): 32, ("a", "y"): 0, ("a", None): 0, ("b", "x"): 0, ("", "x"): 0}


def test_the_last_token_of_a_prompt_is_always_computed() -> None:
    engine = _engine()
    first, second = (engine.add("a", [1] * 16, 3, salt="a") for _ in range(2))
    engine.run(50)
    third = engine.add("a", [1] * 16, 3, salt="a")
    engine.run(50)
    assert (first.cached_tokens, second.cached_tokens, third.cached_tokens) == (0, 0, 12)


def test_a_large_request_is_not_passed_by_small_ones_for_ever() -> None:
    engine = _engine(blocks=40, max_running=8)
    for _ in range(4):
        engine.add("a", 12, 20)
    _steps(engine, 4)
    large = engine.add("a", 120, 5)
    for _ in range(150):
        engine.add("a", 4, 10)
        engine.step()
    assert large.id in engine.firsts


def test_what_does_not_fit_even_alone_is_refused_with_its_numbers() -> None:
    engine = _engine(blocks=10)
    with pytest.raises(UserError) as refused:
        engine.add("a", 30, 11)
    assert refused.value.code is Code.CONTEXT_LENGTH_EXCEEDED
    assert "30" in refused.value.message
    assert "40" in refused.value.message
    with pytest.raises(UserError) as refused:
        engine.add("a", 30, 0)
    assert refused.value.code is Code.CONTEXT_LENGTH_EXCEEDED
    with pytest.raises(UserError) as refused:
        engine.add("a", [], 5)
    assert refused.value.code is Code.INVALID_VALUE
    engine.add("a", 30, 10)
    engine.run(50)


# the caller


def test_a_step_is_advanced_once_with_a_token_for_each_that_chose() -> None:
    engine = _engine()
    one = engine.add("a", 4, 5)
    scheduler = engine.scheduler
    step = scheduler.plan(1.0)
    assert step is not None
    for tokens in ([], [1, 2]):
        with pytest.raises(Fault):
            scheduler.advance(step, tokens)
    assert scheduler.advance(step, [1]) == []
    with pytest.raises(Fault):
        scheduler.advance(step, [1])
    stale = scheduler.plan(1.0)
    assert stale is not None
    assert scheduler.plan(1.0) is not None
    with pytest.raises(Fault):
        scheduler.advance(stale, [1])
    with pytest.raises(Fault):
        scheduler.add(one)


def test_who_leaves_during_a_step_is_gone_and_the_others_get_their_tokens() -> None:
    engine = _engine()
    first, second, third = (engine.add("a", 4, 5) for _ in range(3))

    def leave(step: Step) -> None:
        assert step.choosing == [first, second, third]
        engine.end(second)
        engine.add("b", 4, 3)

    engine.step(leave)
    assert [len(one.output) for one in (first, second, third)] == [1, 0, 1]
    engine.run(50)


def _played(seed: int) -> list[tuple[Kind, list[str]]]:
    chance = random.Random(seed)
    engine = _engine(blocks=50, max_running=4, patience_s=0.3)
    for _ in range(300):
        if chance.random() < 0.4:
            tenant, adapter = chance.choice("abc"), chance.choice([None, "x", "y"])
            length = chance.randint(1, 60)
            engine.add(tenant, length, chance.randint(1, 30), adapter=adapter, salt=tenant)
        engine.step()
    return engine.steps


def test_the_same_requests_are_served_in_the_same_order_every_time() -> None:
    assert _played(1) == _played(1)
    assert _played(1) != _played(2)
