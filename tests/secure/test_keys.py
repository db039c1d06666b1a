"""API keys: how they look, what is stored of them, and when they stop opening."""

import base64
import hashlib
import hmac
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from freehold.core.binding import Environment, Principal, Scope
from freehold.core.errors import Code, UserError
from freehold.core.secret import Secret
from freehold.secure import keys
from freehold.secure.keys import KeyRequest, Keyring
from freehold.store.base import KeyRecord
from freehold.store.sql import SqlStore

_PEPPER = bytes(range(32))
_KEY = re.compile(r"fh_(dev|staging|prod)_([0-9A-HJKMNP-TV-Z]{26})_([a-z2-7]{52})")


@dataclass
class _Wall:
    """A clock whose wall a test moves."""

    at_us: int = 1_000_000

    def wall_us(self) -> int:
        return self.at_us

    def monotonic_s(self) -> float:
        return self.at_us / 1e6


class _Store(SqlStore):
    """The real store; counts what it is asked, and lets a test act in between."""

    asked = 0
    after_read: Callable[[], object] | None = None

    def key_by_hash(self, hashed: bytes) -> KeyRecord | None:
        self.asked += 1
        found = super().key_by_hash(hashed)
        act, self.after_read = self.after_read, None
        if act is not None:
            act()
        return found


@pytest.fixture
def store(tmp_path: Path) -> Iterator[_Store]:
    opened = _Store(tmp_path / "freehold.db")
    for tenant in ("ten_a", "ten_b", "ten_x"):
        opened.add_tenant(tenant, tenant, 1)
    yield opened
    opened.close()


@pytest.fixture
def wall() -> _Wall:
    return _Wall()


@pytest.fixture
def keyring(store: _Store, wall: _Wall) -> Keyring:
    return Keyring(store, Secret(_PEPPER.hex()), wall, wrong_keys_a_minute=10_000)


def _wanted(
    tenant: str = "ten_a",
    environment: Environment = Environment.DEV,
    scopes: frozenset[Scope] = frozenset({Scope.INFER}),
    models: frozenset[str] | None = None,
    expires_at_us: int | None = None,
    sha256: bytes | None = None,
) -> KeyRequest:
    return KeyRequest(tenant, environment, "a name", scopes, models, expires_at_us, sha256)


def _mint(keyring: Keyring, wanted: KeyRequest | None = None) -> tuple[KeyRecord, str]:
    record, key = keyring.mint(wanted or _wanted())
    assert key is not None
    return record, key.reveal()


def _known(keyring: Keyring, key: str) -> Principal:
    """As the gateway asks: from memory where that can be, else from the store."""
    return keyring.cached(key) or keyring.authenticate(key)


def _refused(keyring: Keyring, key: str) -> Code:
    with pytest.raises(UserError) as refused:
        _known(keyring, key)
    assert len(key) < 4 or key not in refused.value.message
    return refused.value.code


@pytest.mark.parametrize("environment", list(Environment))
def test_a_key_names_its_environment_and_id_and_holds_256_random_bits(
    keyring: Keyring, environment: Environment
) -> None:
    record, key = _mint(keyring, _wanted(environment=environment))

    found = _KEY.fullmatch(key)
    assert found
    assert found[1] == environment.value
    assert f"key_{found[2]}" == record.id
    assert len(base64.b32decode(found[3].upper() + "====")) == 32


def test_no_two_keys_share_their_secret(keyring: Keyring) -> None:
    made = [_mint(keyring)[1].rpartition("_")[2] for _ in range(50)]
    assert len({secret[:8] for secret in made}) == len(made)


def test_a_principal_is_what_its_key_was_made_for(keyring: Keyring) -> None:
    wanted = _wanted(
        "ten_x", Environment.STAGING, frozenset({Scope.ADMIN}), frozenset({"a/b:c", "d"})
    )
    record, key = _mint(keyring, wanted)
    expected = Principal(record.id, "ten_x", Environment.STAGING, wanted.scopes, wanted.models)

    assert _known(keyring, key) == expected
    assert _known(keyring, key) == expected, "from memory"
    none_at_all = _mint(keyring, _wanted(models=frozenset()))[1]
    assert _known(keyring, none_at_all).models == frozenset()


def test_only_a_peppered_hash_is_stored(keyring: Keyring, store: _Store, tmp_path: Path) -> None:
    record, key = _mint(keyring)
    _known(keyring, key)
    store.close()
    stored = b"".join(path.read_bytes() for path in tmp_path.iterdir())

    sha256 = hashlib.sha256(key.encode())
    secret = key.rpartition("_")[2]
    for telling in (key, secret, secret.upper(), sha256.hexdigest(), _PEPPER.hex()):
        assert telling.encode() not in stored
    assert sha256.digest() not in stored
    assert _PEPPER not in stored
    assert record.hash == hmac.digest(_PEPPER, sha256.digest(), "sha256")
    assert record.hash in stored


def test_with_another_pepper_no_key_opens(keyring: Keyring, store: _Store, wall: _Wall) -> None:
    _, key = _mint(keyring)
    other = Keyring(store, Secret(bytes(32).hex()), wall)
    assert _refused(other, key) is Code.INVALID_API_KEY
    assert other.check() != keyring.check()


def test_the_fingerprint_of_a_pepper_is_stable_and_does_not_tell_it(
    keyring: Keyring, store: _Store, wall: _Wall
) -> None:
    again = Keyring(store, Secret(_PEPPER.hex()), wall)
    assert keyring.check() == again.check()
    assert keyring.check() not in (_PEPPER.hex(), hashlib.sha256(_PEPPER).hexdigest())


def test_a_key_of_another_gateway_opens_once_its_hash_is_taken_over(keyring: Keyring) -> None:
    foreign = "sk-from-another-gateway"
    assert _refused(keyring, foreign) is Code.INVALID_API_KEY
    hashed = hashlib.sha256(foreign.encode()).digest()

    record, key = keyring.mint(_wanted(sha256=hashed))

    assert key is None
    assert _known(keyring, foreign).id == record.id
    with pytest.raises(UserError) as twice:
        keyring.mint(_wanted("ten_b", sha256=hashed))
    assert twice.value.code is Code.CONFLICT
    keyring.revoke("ten_a", record.id)
    assert _refused(keyring, foreign) is Code.INVALID_API_KEY


def test_a_known_key_is_not_looked_up_again(keyring: Keyring, store: _Store) -> None:
    _, key = _mint(keyring)
    for _ in range(5):
        _known(keyring, key)
    assert store.asked == 1


def test_a_key_expires_at_its_moment_though_it_is_known(keyring: Keyring, wall: _Wall) -> None:
    _, key = _mint(keyring, _wanted(expires_at_us=wall.at_us + 100))
    wall.at_us += 99
    assert _known(keyring, key)
    wall.at_us += 1
    assert _refused(keyring, key) is Code.EXPIRED_API_KEY
    fresh = Keyring(keyring._store, Secret(_PEPPER.hex()), wall)
    assert _refused(fresh, key) is Code.EXPIRED_API_KEY


def test_a_clock_that_was_set_back_does_not_end_a_key_early(keyring: Keyring, wall: _Wall) -> None:
    _, key = _mint(keyring, _wanted(expires_at_us=wall.at_us + 100))
    wall.at_us -= 999_999
    assert _known(keyring, key)


def test_a_revoked_key_is_forgotten_at_once_and_others_are_not(
    keyring: Keyring, store: _Store
) -> None:
    (record, key), (_, other) = _mint(keyring), _mint(keyring)
    _known(keyring, key)
    _known(keyring, other)
    asked = store.asked

    keyring.revoke("ten_a", record.id)

    assert _refused(keyring, key) is Code.INVALID_API_KEY
    for _ in range(3):
        assert _known(keyring, other)
    assert store.asked == asked + 2, "the other one was looked up once more"


def test_a_key_revoked_while_it_is_looked_up_is_not_remembered(
    keyring: Keyring, store: _Store
) -> None:
    record, key = _mint(keyring)
    store.after_read = lambda: keyring.revoke("ten_a", record.id)
    keyring.authenticate(key)  # its answer was read before the revocation
    assert _refused(keyring, key) is Code.INVALID_API_KEY


def test_only_its_own_tenant_revokes_a_key(keyring: Keyring) -> None:
    record, key = _mint(keyring)
    assert keyring.revoke("ten_b", record.id) is None
    assert keyring.revoke("ten_a", "key_none") is None
    assert _known(keyring, key)


def test_revoking_again_keeps_the_first_time(keyring: Keyring, wall: _Wall) -> None:
    record, _ = _mint(keyring)
    first = keyring.revoke("ten_a", record.id)
    wall.at_us += 5
    assert keyring.revoke("ten_a", record.id) == first
    assert first is not None
    assert first.revoked_at_us == wall.at_us - 5


def test_the_memory_of_keys_is_bounded(
    keyring: Keyring, store: _Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keys, "_CACHE_ENTRIES", 3)
    made = [_mint(keyring)[1] for _ in range(8)]
    for key in made:
        _known(keyring, key)
    assert [keyring.cached(key) is not None for key in made] == [False] * 5 + [True] * 3
    for number in range(50):
        assert _refused(keyring, f"wrong-{number}") is Code.INVALID_API_KEY
    assert keyring.cached(made[-1]), "wrong keys push no right one out"


@pytest.mark.parametrize(
    "key",
    ["", " ", "x", "fh_dev__", "fh_dev_\u00e4", "\u212a" * 20, "\ud800", "a\0b", "x" * 512,
     "x" * 513, "x" * 10_000_000, "fh_" * 200, "' OR 1=1 --", "\u202e"],
    ids=lambda key: f"{len(key)}-{key[:6]!a}",
)  # fmt: skip
def test_a_malformed_key_is_just_not_valid(keyring: Keyring, key: str) -> None:
    assert _refused(keyring, key) is Code.INVALID_API_KEY


def test_a_huge_or_foreign_key_never_reaches_the_store(keyring: Keyring, store: _Store) -> None:
    for key in ("", "x" * 513, "x" * 10_000_000, "\u00e4", "\ud800"):
        _refused(keyring, key)
    assert store.asked == 0


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(data=st.data())
def test_no_change_of_a_key_opens(keyring: Keyring, data: st.DataObject) -> None:
    key = _mint(keyring)[1]
    place = data.draw(st.integers(0, len(key)))
    kind = data.draw(st.sampled_from(["cut", "insert", "replace", "case"]))
    character = data.draw(st.characters())
    changed = {
        "cut": key[:place],
        "insert": key[:place] + character + key[place:],
        "replace": key[:place] + character + key[place + 1 :],
        "case": key[:place] + key[place:].swapcase(),
    }[kind]
    if changed != key:
        assert _refused(keyring, changed) is Code.INVALID_API_KEY


def test_names_from_the_pepper_differ_by_every_part_and_tell_nothing(keyring: Keyring) -> None:
    made = {
        keyring.keyed("idempotency", "a", "b"), keyring.keyed("idempotency", "ab"),
        keyring.keyed("idempotency", "a", "c"), keyring.salt("a", "b"), keyring.salt("b", "a"),
        keyring.keyed("salt", "a"),
    }  # fmt: skip
    assert len(made) == 6
    assert all(re.fullmatch(r"[0-9a-f]{64}", name) for name in made)
    assert keyring.salt("a", "b") == keyring.salt("a", "b") == keyring.keyed("salt", "a", "b")
