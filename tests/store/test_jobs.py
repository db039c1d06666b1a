"""Jobs: one gateway does each, and who lost it hears of that."""

import pytest

from freehold.core.binding import Environment
from freehold.core.errors import Code, UserError
from freehold.core.job import JobState
from freehold.store.sql import SqlStore
from tests.store.making import a_job

_DEV = ("ten_a", Environment.DEV)


def test_a_job_comes_back_as_it_was_made_and_the_newest_first(store: SqlStore) -> None:
    first, second = a_job("job_1", spec={"epochs": 2, "base": "ä"}), a_job("job_2")
    for each in (first, second):
        store.add_job("ten_a", each)
    assert store.job(*_DEV, "job_1") == first
    assert store.jobs(*_DEV, 10) == [second, first]
    assert store.jobs(*_DEV, 10, "job_2") == [first]
    assert store.job("ten_a", Environment.PROD, "job_1") is None


def test_of_two_gateways_one_does_a_job_until_it_falls_silent(store: SqlStore) -> None:
    job = a_job("job_1")
    store.add_job("ten_a", job)
    taken = store.take_job("ten_a", job.id, "gw_1", 100, 200)
    assert taken is not None
    assert (taken.state, taken.started_at_us) == (JobState.RUNNING, 100)
    assert store.take_job("ten_a", job.id, "gw_2", 150, 250) is None
    assert store.open_jobs("gw_2", 150) == []
    assert [each.id for each in store.open_jobs("gw_1", 150)] == ["job_1"], "it may adopt its own"
    assert store.hold_job("ten_a", job.id, "gw_1", 300, {"step": 1}) is not None
    assert store.take_job("ten_a", job.id, "gw_2", 250, 350) is None, "it was held meanwhile"
    other = store.take_job("ten_a", job.id, "gw_2", 301, 400)
    assert other is not None
    assert (other.started_at_us, other.progress) == (100, {"step": 1})
    assert store.hold_job("ten_a", job.id, "gw_1", 999) is None, (
        "the first one hears that it lost it"
    )
    assert not store.end_job("ten_a", job.id, "gw_1", JobState.DONE, 302)
    assert store.end_job("ten_a", job.id, "gw_2", JobState.DONE, 303, result={"x": 1})
    ended = store.job(*_DEV, "job_1")
    assert ended is not None
    assert (ended.state, ended.result, ended.ended_at_us) == (JobState.DONE, {"x": 1}, 303)
    assert store.open_jobs("gw_2", 10**15) == []


def test_a_waiting_job_is_cancelled_at_once_and_a_running_one_is_marked(store: SqlStore) -> None:
    store.add_job("ten_a", a_job("job_1"))
    store.add_job("ten_a", a_job("job_2"))
    store.take_job("ten_a", "job_2", "gw", 1, 99)
    waiting, running = (store.cancel_job(*_DEV, each, 7) for each in ("job_1", "job_2"))
    assert waiting is not None
    assert running is not None
    assert (waiting.state, waiting.ended_at_us) == (JobState.CANCELLED, 7)
    assert (running.state, running.is_cancelled) == (JobState.RUNNING, True)
    assert store.cancel_job(*_DEV, "job_3", 8) is None


def test_only_a_job_that_ended_early_is_resumed(store: SqlStore) -> None:
    store.add_job("ten_a", a_job("job_1"))
    with pytest.raises(UserError) as refused:
        store.resume_job(*_DEV, "job_1")
    assert refused.value.code is Code.CONFLICT
    store.take_job("ten_a", "job_1", "gw", 1, 99)
    store.end_job("ten_a", "job_1", "gw", JobState.FAILED, 5, error={"code": "x", "message": "y"})
    again = store.resume_job(*_DEV, "job_1")
    assert again is not None
    assert (again.state, again.error, again.ended_at_us) == (JobState.QUEUED, None, None)
    assert store.take_job("ten_a", again.id, "gw_2", 6, 99) is not None


def test_a_tenants_jobs_go_with_it(store: SqlStore) -> None:
    store.add_tenant("ten_a", "a", 1)
    store.add_job("ten_a", a_job("job_1"))
    store.take_job("ten_a", "job_1", "gw", 1, 99)
    assert store.remove_tenant("ten_a")
    assert store.hold_job("ten_a", "job_1", "gw", 199) is None
