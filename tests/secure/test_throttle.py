"""Guesses: few are heard, and whoever guesses, the right keys of others go on."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from freehold.core.binding import Environment, Scope
from freehold.core.errors import Code, UserError
from freehold.core.secret import Secret
from freehold.secure import throttle
from freehold.secure.keys import KeyRequest, Keyring
from freehold.secure.throttle import Throttle
from freehold.store.sql import SqlStore
from tests.databases import stock


class _Clock:
    at_s = 100.0

    def wall_us(self) -> int:
        return int(self.at_s * 1e6)

    def monotonic_s(self) -> float:
        return self.at_s


@pytest.fixture
def clock() -> _Clock:
    return _Clock()


@pytest.fixture
def keyring(tmp_path: Path, clock: _Clock) -> Iterator[Keyring]:
    store = SqlStore(stock(tmp_path / "freehold.db"))
    store.add_tenant("ten_a", "a", 1)
    yield Keyring(store, Secret(bytes(32).hex()), clock, wrong_keys_a_minute=10)
    store.close()


def _mint(keyring: Keyring) -> str:
    wanted = KeyRequest("ten_a", Environment.DEV, "x", frozenset({Scope.INFER}))
    _, key = keyring.mint(wanted)
    assert key is not None
    return key.reveal()


def _guess(keyring: Keyring, key: str, peer: str) -> Code:
    """As the gateway asks; what the guesser gets."""
    with pytest.raises(UserError) as refused:
        keyring.cached(key, peer) or keyring.authenticate(key, peer)
    return refused.value.code


def _exhaust(keyring: Keyring, peer: str) -> None:
    while _guess(keyring, "wrong", peer) is Code.INVALID_API_KEY:
        pass


def test_an_address_is_heard_so_often_and_as_often_again_a_minute(
    keyring: Keyring, clock: _Clock
) -> None:
    codes = [_guess(keyring, f"wrong {number}", "10.0.0.1") for number in range(30)]
    assert codes == [Code.INVALID_API_KEY] * 10 + [Code.TOO_MANY_ATTEMPTS] * 20
    with pytest.raises(UserError) as refused:
        keyring.authenticate("wrong", "10.0.0.1")
    assert refused.value.retry_after_s == pytest.approx(6)
    clock.at_s += 6
    assert _guess(keyring, "wrong", "10.0.0.1") is Code.INVALID_API_KEY
    assert _guess(keyring, "wrong", "10.0.0.1") is Code.TOO_MANY_ATTEMPTS
    clock.at_s += 600
    codes = [_guess(keyring, f"wrong {number}", "10.0.0.1") for number in range(11)]
    assert codes == [Code.INVALID_API_KEY] * 10 + [Code.TOO_MANY_ATTEMPTS]


def test_an_address_that_is_not_heard_learns_nothing_even_from_the_right_key(
    keyring: Keyring,
) -> None:
    key = _mint(keyring)
    _exhaust(keyring, "10.0.0.1")
    assert _guess(keyring, key, "10.0.0.1") is Code.TOO_MANY_ATTEMPTS
    assert keyring.authenticate(key, "10.0.0.2").tenant_id == "ten_a"


def test_a_key_that_was_accepted_from_an_address_goes_on_there_while_others_guess(
    keyring: Keyring,
) -> None:
    """Also when it must be looked up again."""
    key = _mint(keyring)
    keyring.authenticate(key, "10.0.0.1")
    _exhaust(keyring, "10.0.0.1")
    assert keyring.cached(key, "10.0.0.1")
    keyring.changed()
    assert keyring.cached(key, "10.0.0.1") is None
    assert keyring.authenticate(key, "10.0.0.1")


def test_guessing_at_one_key_from_everywhere_does_not_shut_its_owner_out(
    keyring: Keyring,
) -> None:
    key = _mint(keyring)
    guess = key[:-4] + "aaaa"
    codes = [_guess(keyring, guess, f"10.0.{number}.1") for number in range(50)]
    assert codes == [Code.INVALID_API_KEY] * 10 + [Code.TOO_MANY_ATTEMPTS] * 40
    assert keyring.authenticate(key, "192.168.0.1"), "from an address that never guessed"
    other = _mint(keyring)[:-4] + "aaaa"
    assert _guess(keyring, other, "192.168.0.2") is Code.INVALID_API_KEY


@pytest.mark.parametrize("key", ["", "\u00e4", "x" * 600, "fh_dev_short", "fh_local_guess"])
def test_what_is_no_key_counts_as_a_guess(keyring: Keyring, key: str) -> None:
    codes = {_guess(keyring, key, "10.0.0.1") for _ in range(12)}
    assert codes == {Code.INVALID_API_KEY, Code.TOO_MANY_ATTEMPTS}


def test_a_key_that_was_right_once_is_no_guess(keyring: Keyring) -> None:
    key = _mint(keyring)
    keyring.revoke("ten_a", "key_" + key.split("_")[2])
    assert {_guess(keyring, key, "10.0.0.1") for _ in range(30)} == {Code.INVALID_API_KEY}


def test_an_ipv6_site_counts_as_one_and_an_ipv4_address_by_whatever_name(clock: _Clock) -> None:
    counted = Throttle(10, clock)
    for number in range(10):
        counted.wrong(f"2001:db8:0:1::{number:x}", None)
        counted.wrong("::ffff:10.0.0.1", None)
    for peer in ("2001:db8:0:1:ffff::1", "10.0.0.1"):
        with pytest.raises(UserError):
            counted.check(peer)
    for peer in ("2001:db8:0:2::1", "10.0.0.2", ""):
        counted.check(peer)


def test_memory_is_bounded_and_who_guessed_last_is_not_forgotten(
    clock: _Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(throttle, "_REMEMBERED", 50)
    counted = Throttle(1, clock)
    for number in range(500):
        counted.wrong(f"10.1.{number // 250}.{number % 250}", f"ID{number}")
    assert len(counted._peers) == len(counted._ids) == 50
    with pytest.raises(UserError):
        counted.check("10.1.1.249")


@given(st.lists(st.floats(0, 30), min_size=1, max_size=80), st.integers(1, 20))
def test_in_any_minute_at_most_twice_the_allowance_is_heard(
    pauses: list[float], a_minute: int
) -> None:
    clock = _Clock()
    counted = Throttle(a_minute, clock)
    heard: list[float] = []
    waits: list[float] = []
    for pause_s in pauses:
        clock.at_s += pause_s
        try:
            counted.wrong("10.0.0.1", None)
        except UserError as error:
            waits.append(error.retry_after_s or 0)
        else:
            heard.append(clock.at_s)
    assert all(0 < wait_s <= 60 for wait_s in waits)
    for begin in heard:
        in_minute = [at_s for at_s in heard if begin <= at_s < begin + 60]
        assert len(in_minute) <= 2 * a_minute
