from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer as Library
from tokenizers import models

from freehold.engines.openvino import detokenize
from freehold.engines.openvino.detokenize import Detokenizer, StopStrings
from freehold.engines.openvino.tokenizer import SpacePrefix, Special, Tokenizer, Vocabulary

_RELAXED = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
# An alphabet so small that stops are found, overlap and nearly match.
_WORDS = st.text("ab", max_size=60)
_STOPS = st.lists(st.text("ab", min_size=3, max_size=8) | st.text("ab", min_size=1), max_size=3)


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    """Each byte is a token; 256 is a control token, 257 a word of four bytes."""
    pieces = [bytes((byte,)) for byte in range(256)]
    return Tokenizer(
        Vocabulary(
            pieces=[*pieces, b"<end>", "🙂".encode()],
            specials=[Special("<end>", 256, control=True)],
            ends=frozenset({256}),
            bos=None,
            eos=256,
            add_bos=False,
            add_eos=False,
            prefix=SpacePrefix.NONE,
            chat_template=None,
            library=Library(models.BPE()),
        )
    )


def _chunks(whole: Sequence[int] | str, cuts: list[int]) -> list[Sequence[int] | str]:
    borders = sorted({0, len(whole), *(cut % (len(whole) + 1) for cut in cuts)})
    return [whole[a:b] for a, b in pairwise(borders)]


@given(st.lists(st.integers(0, 257), max_size=40), st.lists(st.integers(0, 99), max_size=8))
@_RELAXED
def test_pieces_of_text_are_the_text_of_all_ids_at_once(
    tokenizer: Tokenizer, ids: list[int], cuts: list[int]
) -> None:
    detokenizer = Detokenizer(tokenizer)
    given = "".join(detokenizer.push(chunk) for chunk in _chunks(ids, cuts)) + detokenizer.finish()
    assert given == b"".join(map(tokenizer.shown_bytes, ids)).decode("utf-8", "replace")


@given(st.text())
@_RELAXED
def test_no_character_is_ever_cut_in_two(tokenizer: Tokenizer, text: str) -> None:
    try:
        ids = list(text.encode())
    except UnicodeEncodeError:
        return
    detokenizer, given = Detokenizer(tokenizer), ""
    for id in ids:
        given += detokenizer.push([id])
        assert text.startswith(given)
    assert given + detokenizer.finish() == text


def test_a_control_token_has_no_text_and_does_not_part_a_character(tokenizer: Tokenizer) -> None:
    detokenizer = Detokenizer(tokenizer)
    assert detokenizer.push([0xC3, 256, 0xA9, 256, 257]) == "é🙂"
    assert detokenizer.finish() == ""


def test_an_unfinished_character_is_replaced_in_the_end(tokenizer: Tokenizer) -> None:
    detokenizer = Detokenizer(tokenizer)
    assert detokenizer.push(b"a\xf0\x9f") == "a"
    assert detokenizer.finish() == "\ufffd"


def _naive(text: str, stops: list[str]) -> tuple[str, str | None]:
    for end in range(len(text) + 1):
        found = [stop for stop in stops if text[:end].endswith(stop)]
        if found:
            longest = max(found, key=len)
            return text[: end - len(longest)], longest
    return text, None


@given(_WORDS, _STOPS, st.lists(st.integers(0, 99), max_size=20))
@example("aab", ["ab", "aab"], [1, 2])
@example("abab", ["abc", "bb"], [2])
@example("aaab", ["aab"], [])
def test_the_cut_is_where_the_first_stop_gets_complete(
    text: str, stops: list[str], cuts: list[int]
) -> None:
    watch = StopStrings(stops)
    given = "".join(watch.push(str(chunk)) for chunk in _chunks(text, cuts)) + watch.finish()
    assert (given, watch.found) == _naive(text, stops)


@given(_WORDS, _STOPS)
def test_only_what_can_still_begin_a_stop_is_held_back(text: str, stops: list[str]) -> None:
    watch, given = StopStrings(stops), ""
    for at, character in enumerate(text, 1):
        given += watch.push(character)
        if watch.found is not None:
            return
        read = text[:at]
        begun = [n for stop in stops for n in range(len(stop)) if read.endswith(stop[:n])]
        assert given == read[: at - max(begun, default=0)]


def test_held_text_comes_when_the_answer_ends_otherwise() -> None:
    watch = StopStrings(["</answer>", ""])
    assert watch.push("Yes.</ans") == "Yes."
    assert watch.finish() == "</ans"
    assert watch.found is None


def test_nothing_comes_after_a_stop() -> None:
    watch = StopStrings(["\n"])
    assert watch.push("a\nb") == "a"
    assert watch.push("c") == watch.finish() == ""
    assert watch.found == "\n"


def test_the_work_for_a_token_does_not_grow_with_the_answer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    looked_at = 0

    class Counting(detokenize._Matcher):
        def reads(self, character: str) -> bool:
            nonlocal looked_at
            looked_at += 1
            return super().reads(character)

    monkeypatch.setattr(detokenize, "_Matcher", Counting)
    stop = "a" * 5_000 + "b"
    watch = StopStrings([stop])
    for _ in range(10_000):
        watch.push("a")
    assert looked_at <= 10_000
    assert len(watch.finish()) == 5_000
