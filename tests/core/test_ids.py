"""Identifiers: unique, ordered by time, and digests told from look-alikes."""

import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from freehold.core.ids import RisingIds, is_digest, new_id, request_of

_CROCKFORD = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"


def _milliseconds(identifier: str) -> int:
    number = 0
    for character in identifier.partition("_")[2]:
        number = number * 32 + _CROCKFORD.index(character)
    return number >> 80


def test_an_id_is_its_prefix_and_a_ulid_that_tells_its_time() -> None:
    before = time.time_ns() // 1_000_000
    identifier = new_id("req")
    after = time.time_ns() // 1_000_000

    assert re.fullmatch(r"req_[0-7][0-9A-HJKMNP-TV-Z]{25}", identifier)
    assert before <= _milliseconds(identifier) <= after


def test_ids_never_repeat_and_later_ones_sort_after_earlier_ones() -> None:
    made = [new_id("x") for _ in range(20_000)]

    assert len(set(made)) == len(made)
    times = [_milliseconds(identifier) for identifier in made]
    assert times == sorted(times), "records are paged by id, so ids must follow time"
    first, last = made[0], new_id("x")
    while _milliseconds(last) == _milliseconds(first):
        last = new_id("x")
    assert first < last


def test_two_ids_of_one_millisecond_share_no_random_part() -> None:
    tails = [new_id("x")[-16:] for _ in range(1000)]
    assert len(set(tails)) == len(tails)
    for place in range(16):
        assert len({tail[place] for tail in tails}) == 32, "every character is random"


@given(st.text(alphabet="0123456789abcdef", min_size=64, max_size=64))
def test_a_digest_is_known_by_its_form(digits: str) -> None:
    assert is_digest(f"sha256:{digits}")
    for wrong in (digits, f"sha512:{digits}", f"sha256:{digits}0", f"sha256:{digits[1:]}",
                  f"sha256:{digits}\n", f" sha256:{digits}", f"sha256:g{digits[1:]}"):  # fmt: skip
        assert not is_digest(wrong)


@pytest.mark.parametrize("other", ["", "sha256:", "sha256:" + "A" * 64, "sha256:" + "\u0660" * 64])
def test_what_only_looks_like_a_digest_is_none(other: str) -> None:
    assert not is_digest(other)


def test_rising_ids_come_one_after_the_other_within_a_millisecond_and_when_the_clock_is_set_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ids = RisingIds()
    made = [ids.new("evt") for _ in range(1000)]
    monkeypatch.setattr(time, "time_ns", lambda: 1)
    made += [ids.new("evt") for _ in range(10)]
    assert made == sorted(set(made))


@pytest.mark.parametrize("prefix", ["chatcmpl-", "cmpl-", "resp_", "req_"])
def test_an_answer_tells_its_request(prefix: str) -> None:
    identifier = new_id("req")
    assert request_of(prefix + identifier.removeprefix("req_")) == identifier


@pytest.mark.parametrize("other", ["", "chatcmpl-", "chatcmpl-nope", "per_" + "0" * 26])
def test_what_is_no_answer_stays_as_it_is(other: str) -> None:
    assert request_of(other) == other
