"""Kept answers open with the caller's own key and with nothing else."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from freehold.core.errors import Fault
from freehold.secure.seal import seal, unseal

_visible = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1, max_size=80)


@given(st.binary(max_size=2000), _visible, _visible)
def test_what_was_sealed_opens_again(content: bytes, key: str, idempotency: str) -> None:
    sealed = seal(key, idempotency, content)
    assert unseal(key, idempotency, sealed) == content
    assert len(content) < 8 or content not in sealed


@given(_visible, _visible, _visible, _visible)
def test_another_key_or_another_idempotency_key_does_not_open(
    key: str, idempotency: str, other_key: str, other_idempotency: str
) -> None:
    sealed = seal(key, idempotency, b"an answer")
    if (other_key, other_idempotency) == (key, idempotency):
        return
    with pytest.raises(Fault):
        unseal(other_key, other_idempotency, sealed)


def test_where_one_key_ends_and_the_next_begins_matters() -> None:
    with pytest.raises(Fault):
        unseal("ab", "c", seal("a", "bc", b"an answer"))


def test_a_change_or_a_cut_at_any_byte_is_noticed() -> None:
    sealed = seal("key", "idempotency", b"an answer")
    for place in range(len(sealed)):
        changed = bytearray(sealed)
        changed[place] ^= 1
        for damaged in (bytes(changed), sealed[:place], sealed[place + 1 :]):
            with pytest.raises(Fault) as refused:
                unseal("key", "idempotency", damaged)
            assert "answer" not in refused.value.message.replace("reply", "")


def test_the_same_answer_is_never_sealed_the_same_way_twice() -> None:
    made = {seal("key", "idempotency", b"an answer") for _ in range(100)}
    assert len({sealed[:12] for sealed in made}) == 100
    assert len({sealed[12:] for sealed in made}) == 100
