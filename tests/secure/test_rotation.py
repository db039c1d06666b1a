"""A key and its successor: one, with the same rights, shown to who made it and to nobody
after."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from freehold.core.binding import Environment, Principal, Scope
from freehold.core.errors import Code, UserError
from freehold.core.secret import Secret
from freehold.secure.keys import KeyRequest, Keyring
from freehold.secure.rotation import Rotation, rotate
from freehold.store.base import KeyRecord
from freehold.store.sql import SqlStore
from tests.databases import stock

_HOUR_US = 3_600_000_000
_ASKED = Rotation("ten_a", Environment.PROD, "", 3600, "t1")
_GRANTOR = Principal(
    "key_0", "ten_a", Environment.PROD, frozenset({Scope.ADMIN, Scope.INFER}), None
)


class _Wall:
    at_us = 1_000_000

    def wall_us(self) -> int:
        return self.at_us

    def monotonic_s(self) -> float:
        return self.at_us / 1e6


@pytest.fixture
def wall() -> _Wall:
    return _Wall()


@pytest.fixture
def keyring(tmp_path: Path, wall: _Wall) -> Iterator[Keyring]:
    store = SqlStore(stock(tmp_path / "freehold.db"))
    store.add_tenant("ten_a", "a", 1)
    yield Keyring(store, Secret(bytes(32).hex()), wall)
    store.close()


def _old(keyring: Keyring, **fields: object) -> tuple[KeyRecord, str, Rotation]:
    wanted = KeyRequest(
        "ten_a", Environment.PROD, "name", frozenset({Scope.INFER}), frozenset({"m"}),
        networks=frozenset({"10.0.0.0/8"}),
    )  # fmt: skip
    record, key = keyring.mint(replace(wanted, **fields))  # type: ignore[arg-type]
    assert key is not None
    return record, key.reveal(), replace(_ASKED, key_id=record.id)


def _refused(keyring: Keyring, asked: Rotation, grantor: Principal | None) -> Code:
    with pytest.raises(UserError) as refused:
        rotate(keyring, asked, grantor)
    return refused.value.code


def test_the_new_key_may_what_the_old_one_might_and_both_open_for_the_grace(
    keyring: Keyring, wall: _Wall
) -> None:
    old, old_key, asked = _old(keyring)
    new, key = rotate(keyring, asked, _GRANTOR)
    assert key is not None
    assert key.reveal().startswith(f"fh_prod_{new.id.removeprefix('key_')}_")
    for name in ("tenant_id", "environment", "name", "scopes", "models", "networks"):
        assert getattr(new, name) == getattr(old, name)
    for each in (old_key, key.reveal()):
        assert keyring.authenticate(each, "10.0.0.1")
    wall.at_us += _HOUR_US - 1
    assert keyring.authenticate(old_key, "10.0.0.1")
    wall.at_us += 1
    with pytest.raises(UserError) as ended:
        keyring.authenticate(old_key, "10.0.0.1")
    assert ended.value.code is Code.EXPIRED_API_KEY
    assert keyring.authenticate(key.reveal(), "10.0.0.1").id == new.id


def test_a_known_key_ends_with_its_grace_though_it_was_known_to_live_on(
    keyring: Keyring, wall: _Wall
) -> None:
    _, key, asked = _old(keyring)
    keyring.authenticate(key, "10.0.0.1")
    assert keyring.cached(key, "10.0.0.1")
    rotate(keyring, replace(asked, grace_s=0), None)
    assert keyring.cached(key, "10.0.0.1") is None
    with pytest.raises(UserError):
        keyring.authenticate(key, "10.0.0.1")


def test_the_same_call_gets_the_same_key_and_its_secret_is_told_once(keyring: Keyring) -> None:
    old, _, asked = _old(keyring)
    with ThreadPoolExecutor(8) as threads:
        made = list(threads.map(lambda _: rotate(keyring, asked, _GRANTOR), range(16)))
    assert len({record.id for record, _ in made}) == 1
    assert len([key for _, key in made if key is not None]) == 1
    assert len(keyring._store.keys("ten_a")) == 2
    later = replace(asked, grace_s=7, token="")
    assert rotate(keyring, later, None) == (made[0][0], None)
    found = keyring.find("ten_a", Environment.PROD, old.id)
    assert found is not None
    assert found.expires_at_us == 1_000_000 + _HOUR_US, "the first call's grace stays"
    assert _refused(keyring, replace(asked, token="t2"), None) is Code.CONFLICT


def test_a_lost_secret_is_replaced_by_rotating_the_key_that_it_was_of(keyring: Keyring) -> None:
    _, old_key, asked = _old(keyring)
    lost, _ = rotate(keyring, asked, None)
    new, key = rotate(keyring, replace(asked, key_id=lost.id, grace_s=0), None)
    assert key is not None
    assert keyring.authenticate(key.reveal(), "10.0.0.1").id == new.id
    assert keyring.authenticate(old_key, "10.0.0.1"), "its grace goes on"


def test_a_key_with_an_end_gets_a_successor_that_lives_as_long_and_ends_with_who_made_it(
    keyring: Keyring, wall: _Wall
) -> None:
    ends = wall.at_us + 10 * _HOUR_US
    _, _, asked = _old(keyring, expires_at_us=ends)
    wall.at_us += 4 * _HOUR_US
    new, _ = rotate(keyring, asked, _GRANTOR)
    assert new.expires_at_us == wall.at_us + 10 * _HOUR_US
    soon = replace(_GRANTOR, expires_at_us=wall.at_us + 5)
    newer, _ = rotate(keyring, replace(asked, key_id=new.id), soon)
    assert newer.expires_at_us == wall.at_us + 5


@pytest.mark.parametrize(
    "less",
    [{"scopes": frozenset({Scope.ADMIN})}, {"models": frozenset({"other"})},
     {"networks": frozenset({"10.1.0.0/16"})}, {"environment": Environment.DEV},
     {"tenant_id": "ten_b"}],
)  # fmt: skip
def test_nobody_comes_by_rights_by_rotating_the_key_of_another(
    keyring: Keyring, less: dict[str, object]
) -> None:
    _, _, asked = _old(keyring)
    grantor = replace(_GRANTOR, **less)  # type: ignore[arg-type]
    assert _refused(keyring, asked, grantor) is Code.FORBIDDEN
    assert len(keyring._store.keys("ten_a")) == 1


@pytest.mark.parametrize("wider", [{"models": None}, {"networks": None}])
def test_nor_does_a_key_become_narrower_by_it(keyring: Keyring, wider: dict[str, object]) -> None:
    _, _, asked = _old(keyring, **wider)
    grantor = replace(
        _GRANTOR, models=frozenset({"m"}), networks=frozenset({"10.0.0.0/8"}),
    )  # fmt: skip
    assert _refused(keyring, asked, grantor) is Code.FORBIDDEN


def test_a_key_that_has_ended_or_is_not_there_has_no_successor(
    keyring: Keyring, wall: _Wall
) -> None:
    revoked, _, asked = _old(keyring)
    keyring.revoke("ten_a", revoked.id)
    assert _refused(keyring, asked, None) is Code.CONFLICT
    _, _, expired = _old(keyring, expires_at_us=wall.at_us + 1)
    wall.at_us += 1
    assert _refused(keyring, expired, None) is Code.CONFLICT
    for elsewhere in (
        {"key_id": "key_none"},
        {"tenant_id": "ten_b"},
        {"environment": Environment.DEV},
    ):
        assert _refused(keyring, replace(asked, **elsewhere), None) is Code.NOT_FOUND  # type: ignore[arg-type]
