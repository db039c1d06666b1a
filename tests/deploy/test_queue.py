"""The fair queue: nobody is lost, tenants take turns, batch work comes last."""

from collections import defaultdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from freehold.core.binding import Priority
from freehold.deploy.queue import FairQueue

_INTERACTIVE, _BATCH = Priority.INTERACTIVE, Priority.BATCH
_tenants = st.sampled_from(["a", "b", "c", "d"])
_priorities = st.sampled_from(Priority)
_push = st.tuples(st.just("push"), _tenants, _priorities)
_pop = st.tuples(st.just("pop"), st.none(), st.none())
_remove = st.tuples(st.just("remove"), st.integers(0, 99), st.none())
_steps = st.lists(_push | _push | _pop | _remove, max_size=120)


class _Waiter:
    """Told apart by identity, as the futures of requests are."""

    def __init__(self, tenant: str, priority: Priority, number: int) -> None:
        self.tenant, self.priority, self.number = tenant, priority, number


def _drained(queue: FairQueue[_Waiter]) -> list[_Waiter]:
    return [queue.pop() for _ in range(len(queue))]


@given(_steps)
def test_every_waiter_is_served_once_or_removed_whatever_happens(
    steps: list[tuple[str, object, object]],
) -> None:
    queue: FairQueue[_Waiter] = FairQueue(1000)
    waiting: list[_Waiter] = []
    turns: defaultdict[tuple[str, Priority], list[int]] = defaultdict(list)
    for number, (step, first, second) in enumerate(steps):
        if step == "push":
            assert isinstance(first, str)
            assert isinstance(second, Priority)
            waiter = _Waiter(first, second, number)
            queue.push(first, second, waiter)
            waiting.append(waiter)
        elif step == "remove" and waiting:
            assert isinstance(first, int)
            waiter = waiting.pop(first % len(waiting))
            queue.remove(waiter.tenant, waiter.priority, waiter)
            queue.remove(waiter.tenant, waiter.priority, waiter)
        elif step == "pop" and waiting:
            waiter = queue.pop()
            waiting.remove(waiter)
            turns[waiter.tenant, waiter.priority].append(waiter.number)
            queue.remove(waiter.tenant, waiter.priority, waiter)
        elif step == "pop":
            with pytest.raises(IndexError):
                queue.pop()
        assert len(queue) == len(waiting)
    for waiter in _drained(queue):
        waiting.remove(waiter)
        turns[waiter.tenant, waiter.priority].append(waiter.number)
    assert waiting == []
    assert all(numbers == sorted(numbers) for numbers in turns.values()), "in their order"


@given(_steps)
def test_while_one_waits_every_other_tenant_is_served_at_most_once_before_it(
    steps: list[tuple[str, object, object]],
) -> None:
    queue: FairQueue[_Waiter] = FairQueue(1000)
    lengths: defaultdict[str, int] = defaultdict(int)
    ahead: defaultdict[str, list[str]] = defaultdict(list)  # who was served while it waited
    for number, (step, first, _) in enumerate(steps):
        if step == "push":
            assert isinstance(first, str)
            queue.push(first, _INTERACTIVE, _Waiter(first, _INTERACTIVE, number))
            lengths[first] += 1
        elif len(queue):
            served = queue.pop().tenant
            lengths[served] -= 1
            ahead[served].clear()
            for tenant, length in lengths.items():
                if length and tenant != served:
                    ahead[tenant].append(served)
                    assert len(set(ahead[tenant])) == len(ahead[tenant])


@given(st.lists(st.tuples(_tenants, _priorities), min_size=1))
def test_batch_work_waits_until_nobody_interactive_does(
    pushed: list[tuple[str, Priority]],
) -> None:
    queue: FairQueue[_Waiter] = FairQueue(1000)
    for number, (tenant, priority) in enumerate(pushed):
        queue.push(tenant, priority, _Waiter(tenant, priority, number))
    served = [waiter.priority for waiter in _drained(queue)]
    assert served == sorted(served, key=[_INTERACTIVE, _BATCH].index)


def test_a_crowd_of_one_tenant_does_not_delay_the_single_request_of_another() -> None:
    queue: FairQueue[str] = FairQueue(1000)
    for number in range(100):
        queue.push("crowd", _INTERACTIVE, f"crowd {number}")
    queue.push("one", _INTERACTIVE, "one")
    assert [queue.pop(), queue.pop()] == ["crowd 0", "one"]


def test_who_left_and_comes_again_goes_to_the_end() -> None:
    queue: FairQueue[str] = FairQueue(10)
    queue.push("a", _INTERACTIVE, "a1")
    queue.push("b", _INTERACTIVE, "b1")
    queue.remove("a", _INTERACTIVE, "a1")
    queue.push("a", _INTERACTIVE, "a2")
    assert [queue.pop(), queue.pop()] == ["b1", "a2"]


def test_it_says_when_it_is_full() -> None:
    queue: FairQueue[int] = FairQueue(2)
    for number in range(2):
        assert not queue.is_full
        queue.push("a", Priority(list(Priority)[number]), number)
    assert queue.is_full
    queue.pop()
    assert not queue.is_full
    assert FairQueue(0).is_full


def test_removing_from_another_line_changes_nothing() -> None:
    queue: FairQueue[str] = FairQueue(10)
    queue.push("a", _INTERACTIVE, "w")
    for tenant, priority in (("b", _INTERACTIVE), ("a", _BATCH), ("", _BATCH)):
        queue.remove(tenant, priority, "w")
    queue.remove("a", _INTERACTIVE, "other")
    assert len(queue) == 1
    assert queue.pop() == "w"
