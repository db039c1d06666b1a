"""Sessions, what counts no more, and the roles of groups: in the store, of one tenant each."""

from dataclasses import replace

import pytest

from freehold.core.binding import Environment, Role
from freehold.core.errors import Code, UserError
from freehold.core.role import RoleGrant
from freehold.store.sql import SqlStore
from tests.serve.people import session

_DEV = Environment.DEV
_GRANT = RoleGrant("ten_a", _DEV, "https://login.example", "ml", Role.USER, 5, "key_1")


def test_a_session_comes_back_as_it_went_in_and_is_used(store: SqlStore) -> None:
    made = session("ten_a", groups=frozenset({"ml", "a b", "ä,\"'"}), tenant_value="Acme")
    store.add_session(made, b"hash", b"token", None)
    assert store.session_by_hash(b"hash") == made
    assert store.session_by_hash(b"other") is None
    assert store.sessions("ten_a", 0) == [made]
    assert store.sessions("ten_a", made.expires_at_us) == [], "it has ended by itself"
    assert store.sessions("ten_b", 0) == []
    assert store.last_session("ten_b", made.person_id) is None
    for at_us, last_us in ((9, 9), (7, 9)):
        store.use_session(made.id, at_us)
        assert store.session_by_hash(b"hash") == replace(made, last_used_at_us=last_us)


def test_a_token_is_exchanged_once(store: SqlStore) -> None:
    store.add_session(session("ten_a"), b"hash", b"token", None)
    for other, hashed in (("ten_a", b"hash2"), ("ten_b", b"hash2")):
        with pytest.raises(UserError) as refused:
            store.add_session(session(other, id="ses_02"), hashed, b"token", None)
        assert refused.value.code is Code.CONFLICT
    assert store.session_by_hash(b"hash2") is None


def test_a_session_ends_once_and_everybody_hears_of_it(store: SqlStore) -> None:
    made = session("ten_a")
    store.add_session(made, b"hash", b"token", None)
    before = store.access_number()
    assert store.end_session("ten_b", made.id, 8, "key_1") is None
    assert store.end_session("ten_a", made.id, 8, "key_1", "per_other") is None
    assert store.living_sessions([made.id, "ses_none"]) == {made.id}
    assert store.access_number() == before
    ended = store.end_session("ten_a", made.id, 8, "key_1")
    assert ended == replace(made, ended_at_us=8, ended_by="key_1")
    assert store.access_number() == before + 1
    assert store.end_session("ten_a", made.id, 9, "key_2") == ended
    assert store.access_number() == before + 1
    assert store.living_sessions([made.id]) == frozenset()
    assert store.last_session("ten_a", made.person_id) == ended


def test_a_new_login_ends_the_one_before_also_of_another_tenant(store: SqlStore) -> None:
    store.add_session(session("ten_b"), b"hash", b"token", None)
    new = session("ten_a", id="ses_02", created_at_us=6)
    store.add_session(new, b"hash2", b"token2", b"hash")
    old = store.session_by_hash(b"hash")
    assert old is not None
    assert old.ended_at_us == 6


def test_what_is_long_over_is_forgotten(store: SqlStore) -> None:
    made = session("ten_a", expires_at_us=4, token_expires_at_us=3)
    store.add_session(made, b"hash", b"token", None)
    week_us = 7 * 24 * 3600 * 1_000_000
    for number, (at_us, is_there) in enumerate(((week_us, True), (week_us + 5, False))):
        new = session("ten_b", id=f"ses_new{number}", created_at_us=at_us)
        store.add_session(new, b"n%d" % number, b"t%d" % number, None)
        assert (store.session_by_hash(b"hash") is not None) is is_there


def test_a_cut_ends_sessions_of_one_tenant_and_is_moved_by_the_next(store: SqlStore) -> None:
    for number, tenant_id in enumerate(("ten_a", "ten_a", "ten_b")):
        who = "per_1" if number else "per_2"
        made = session(tenant_id, id=f"ses_{number}", person_id=who)
        store.add_session(made, b"h%d" % number, b"t%d" % number, None)
    assert store.cut_off("ten_a", "per_1", 10, "key_1") == 1
    assert store.living_sessions(["ses_0", "ses_1", "ses_2"]) == {"ses_0", "ses_2"}
    assert store.cut_off("ten_a", None, 12, "key_1") == 1
    assert store.cut_off("ten_a", "per_1", 11, "key_1") == 0
    assert store.every_cut_off() == {("ten_a", "per_1"): 11, ("ten_a", ""): 12}
    assert store.living_sessions(["ses_2"]) == {"ses_2"}


def test_a_role_is_granted_once_listed_and_taken_away(store: SqlStore) -> None:
    before = store.access_number()
    for each in (_GRANT, _GRANT, replace(_GRANT, tenant_id="ten_b", role=Role.ADMIN)):
        store.grant_role(each)
    assert store.role_grants("ten_a", _DEV) == [_GRANT]
    assert store.role_grants("ten_a", Environment.PROD) == []
    assert len(store.every_role_grant()) == 2
    assert store.access_number() == before + 3
    assert [(each.kind, each.id, each.name) for each in store.holdings("ten_a", 0)] == [
        ("role", "ml", "user")
    ]
    for other in ({"group": "Ml"}, {"environment": Environment.PROD}, {"tenant_id": "ten_c"}):
        assert not store.revoke_role(replace(_GRANT, **other))
    assert store.revoke_role(replace(_GRANT, granted_by=""))
    assert not store.revoke_role(_GRANT)
    assert store.role_grants("ten_a", _DEV) == []


def test_nothing_of_people_is_left_of_a_tenant_that_is_removed(store: SqlStore) -> None:
    store.add_tenant("ten_a", "acme", 1)
    store.add_session(session("ten_a"), b"hash", b"token", None)
    store.grant_role(_GRANT)
    store.cut_off("ten_a", None, 9, "key_1")
    store.remove_tenant("ten_a")
    assert store.session_by_hash(b"hash") is None
    assert store.every_role_grant() == []
    assert store.every_cut_off() == {}
