"""Decisions stay as they were made; each is checked by one gateway at a time."""

import pytest

from freehold.core.errors import Code, UserError
from freehold.store.sql import SqlStore
from tests.store.making import a_decision


def test_a_decision_comes_back_as_it_was_made_and_the_newest_first(store: SqlStore) -> None:
    first = a_decision("dec_1", content={"option": {"id": "api/x"}, "parts": [1.5, None]})
    second = a_decision("dec_2")
    for each in (first, second):
        store.add_decision("ten_a", each)
    assert store.decision("ten_a", "dec_1") == first
    assert store.decisions("ten_a") == [second, first]
    assert store.decision("ten_a", "dec_3") is None


def test_one_that_is_superseded_says_by_which_and_is_not_checked_any_more(store: SqlStore) -> None:
    store.add_decision("ten_a", a_decision("dec_1"))
    store.add_decision("ten_b", a_decision("dec_2", "ten_b"))
    store.add_decision("ten_a", a_decision("dec_3", supersedes="dec_1"))
    old = store.decision("ten_a", "dec_1")
    assert old is not None
    assert old.superseded_by == "dec_3"
    assert [each.id for each in store.decisions_due(0)] == ["dec_2", "dec_3"]


@pytest.mark.parametrize(
    ("old", "code"), [("dec_1", Code.CONFLICT), ("dec_2", Code.NOT_FOUND), ("x", Code.NOT_FOUND)]
)
def test_only_an_own_current_decision_can_be_superseded(
    store: SqlStore, old: str, code: Code
) -> None:
    store.add_decision("ten_a", a_decision("dec_1"))
    store.add_decision("ten_b", a_decision("dec_2", "ten_b"))
    store.add_decision("ten_a", a_decision("dec_3", supersedes="dec_1"))
    with pytest.raises(UserError) as refused:
        store.add_decision("ten_a", a_decision("dec_4", supersedes=old))
    assert refused.value.code is code
    assert store.decision("ten_a", "dec_4") is None


def test_a_check_is_begun_once_until_it_is_due_again(store: SqlStore) -> None:
    store.add_decision("ten_a", a_decision("dec_1"))
    assert store.begin_check("ten_a", "dec_1", due_us=0, now_us=100)
    assert not store.begin_check("ten_a", "dec_1", due_us=50, now_us=150)
    assert store.decisions_due(50) == []
    assert [each.id for each in store.decisions_due(100)] == ["dec_1"]
    assert store.begin_check("ten_a", "dec_1", due_us=100, now_us=200)
    assert not store.begin_check("ten_b", "dec_1", due_us=10**9, now_us=10**9)
    assert not store.begin_check("ten_a", "dec_2", due_us=10**9, now_us=10**9)


def test_what_departed_is_news_once_and_what_is_over_is_told(store: SqlStore) -> None:
    store.add_decision("ten_a", a_decision("dec_1"))
    store.begin_check("ten_a", "dec_1", due_us=0, now_us=1)
    nothing: frozenset[str] = frozenset()
    assert store.departed("ten_a", "dec_1", ["volume", "rules"]) == ({"volume", "rules"}, nothing)
    assert store.departed("ten_a", "dec_1", ["rules", "volume"]) == (nothing, nothing)
    assert store.departed("ten_a", "dec_1", ["rules", "ttft"]) == ({"ttft"}, {"volume"})
    assert store.departed("ten_a", "dec_1", []) == (nothing, {"rules", "ttft"})
    assert store.departed("ten_a", "dec_1", ["ttft"]) == ({"ttft"}, nothing), "again it is news"


def test_a_tenants_decisions_go_with_it(store: SqlStore) -> None:
    store.add_tenant("ten_a", "a", 1)
    store.add_decision("ten_a", a_decision("dec_1"))
    store.begin_check("ten_a", "dec_1", due_us=0, now_us=1)
    assert store.remove_tenant("ten_a")
    assert store.decisions("ten_a") == []
    assert not store.begin_check("ten_a", "dec_1", due_us=9, now_us=9)
