"""llama.cpp's numbers about tokens become OpenAI's. The entries are as it sends them."""

from typing import Any

import pytest

from freehold.core.engine import CHAT, COMPLETIONS
from freehold.engines.logprobs import ChatLogprobs, TextLogprobs, prepared

EIGHT, NINE = (4475, " eight", -0.5), (7462, " nine", -2.0)
_Token = tuple[int, str, float]


def entry(token: _Token, *likeliest: _Token, sent: str | None = None) -> dict[str, Any]:
    """`sent` is the text that came with the token, where it is not the token's own."""
    number, text, logprob = token
    return {
        **_told((number, text if sent is None else sent, logprob)),
        "top_logprobs": [_told(other) for other in likeliest or (token,)],
    }


def _told(token: _Token) -> dict[str, Any]:
    number, text, logprob = token
    content = text.encode("utf-8", "surrogateescape")
    shown = content.decode("utf-8", "replace")
    return {"id": number, "token": shown, "bytes": list(content), "logprob": logprob}


def chunk(text: str, *entries: dict[str, Any]) -> dict[str, Any]:
    logprobs = {"content": list(entries)} if entries else None
    return {"choices": [{"index": 0, "text": text, "logprobs": logprobs, "finish_reason": None}]}


def lists(reader: TextLogprobs, *chunks: dict[str, Any]) -> dict[str, list[Any]]:
    """What all chunks together say, as the gateway joins them."""
    joined: dict[str, list[Any]] = {
        "tokens": [], "token_logprobs": [], "top_logprobs": [], "text_offset": [],
    }  # fmt: skip
    for one in chunks:
        for name, values in (reader.chunk(one)["choices"][0]["logprobs"] or {}).items():
            joined[name] += values
    return joined


def test_offsets_count_characters_from_the_beginning_of_the_prompt() -> None:
    found = lists(
        TextLogprobs("Zählen: sieben", 1),
        chunk("é", entry((1, "é", -1.0))),
        chunk("🎉", entry((2, "🎉", -1.0))),
        chunk(" eight", entry(EIGHT)),
        chunk(""),
    )
    assert found["tokens"] == ["é", "🎉", " eight"]
    assert found["text_offset"] == [14, 15, 16]


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [(0, [" nine"]), (1, [" eight", " nine"]), (2, [" eight", " nine"]), (3, None)],
)
def test_the_taken_token_is_told_beside_as_many_as_were_asked_for(
    wanted: int, expected: list[str] | None
) -> None:
    likeliest = (EIGHT, NINE, (3, " ten", -3.0), (4, " six", -4.0))
    found = lists(TextLogprobs("", wanted), chunk(" nine", entry(NINE, *likeliest)))
    assert found["token_logprobs"] == [-2.0]
    assert list(found["top_logprobs"][0]) == (expected or [" eight", " nine", " ten"])
    assert found["top_logprobs"][0][" nine"] == -2.0


def test_a_part_of_a_character_is_named_by_its_bytes() -> None:
    half = (10813, b"\xf0\x9f".decode("utf-8", "surrogateescape"), -3.0)
    found = lists(TextLogprobs("", 2), chunk(" eight", entry(EIGHT, EIGHT, half)))
    assert found["top_logprobs"] == [{" eight": -0.5, "bytes:\\xf0\\x9f": -3.0}]


def test_numbers_of_text_that_is_kept_back_wait_for_it() -> None:
    held = entry(EIGHT, sent="")
    found = lists(
        TextLogprobs("", 1),
        chunk("", held),
        chunk("", held),
        chunk(" eight eight nine", entry(NINE, NINE, sent=" eight eight nine")),
    )
    assert found["tokens"] == [" eight", " eight", " nine"]
    assert found["token_logprobs"] == [-0.5, -0.5, -2.0]
    assert found["text_offset"] == [0, 6, 12]


def test_numbers_of_text_that_a_stop_sequence_cuts_off_are_left_out() -> None:
    held = entry(EIGHT, sent="")
    found = lists(
        TextLogprobs("", 1),
        chunk("", held),
        chunk(" ei", entry(NINE, NINE, sent=" ei")),
        chunk(""),
    )
    assert (found["tokens"], found["token_logprobs"]) == ([" ei"], [-0.5])
    assert lists(TextLogprobs("", 1), chunk("", held), chunk(""))["tokens"] == []


def test_a_kept_back_token_without_a_name_leaves_its_text_to_the_one_that_frees_it() -> None:
    unlikely = entry((5, " seven", -9.0), EIGHT, sent="")
    found = lists(
        TextLogprobs("", 1),
        chunk("", unlikely),
        chunk(" seven nine", entry(NINE, sent=" seven nine")),
    )
    assert (found["tokens"], found["token_logprobs"]) == (["", " seven nine"], [-9.0, -2.0])
    assert found["text_offset"] == [0, 0]


def test_chat_gets_as_many_alternatives_as_it_asked_for() -> None:
    for wanted in (0, 1):
        given = {
            "choices": [
                {"delta": {"content": "x"}, "logprobs": {"content": [entry(EIGHT, EIGHT, NINE)]}},
                {"delta": {}},
            ]
        }
        read = ChatLogprobs(wanted).chunk(given)
        (told,) = read["choices"][0]["logprobs"]["content"]
        assert [other["token"] for other in told["top_logprobs"]] == [" eight"][:wanted]


@pytest.mark.parametrize(
    ("endpoint", "body", "asked", "reads"),
    [
        (CHAT, {}, {}, False),
        (CHAT, {"logprobs": True}, {"logprobs": True, "top_logprobs": 1}, True),
        (CHAT, {"logprobs": True, "top_logprobs": 0}, {"logprobs": True, "top_logprobs": 1}, True),
        (CHAT, {"logprobs": True, "top_logprobs": 5}, {"logprobs": True, "top_logprobs": 5}, True),
        (CHAT, {"logprobs": False, "top_logprobs": 0}, {"logprobs": False}, False),
        (COMPLETIONS, {"prompt": "a", "logprobs": 0}, {"prompt": "a", "logprobs": 1}, True),
        (COMPLETIONS, {"prompt": "a", "logprobs": 5}, {"prompt": "a", "logprobs": 5}, True),
    ],
)
def test_the_engine_is_asked_for_one_alternative_at_least(
    endpoint: str, body: dict[str, Any], asked: dict[str, Any], reads: bool
) -> None:
    sent, reader = prepared(endpoint, body)
    assert (sent, reader is not None) == (asked, reads)
