"""Chunks become one answer again, and only what OpenAI defines of it."""

from typing import Any

import pytest

from freehold.core.errors import Code, UserError
from freehold.serve.protocol.assemble import Assembler


def chat(delta: dict[str, Any], index: int = 0, **fields: Any) -> dict[str, Any]:
    return {"choices": [{"index": index, "delta": delta, **fields}]}


def assembled(*chunks: dict[str, Any]) -> list[dict[str, Any]]:
    assembler = Assembler()
    for chunk in chunks:
        assembler.add([chunk])
    choices: list[dict[str, Any]] = assembler.whole()["choices"]
    return choices


def test_text_logprobs_and_the_reason_of_the_end_are_joined() -> None:
    def entry(token: str) -> dict[str, Any]:
        return {"content": [{"token": token, "logprob": -1.0, "bytes": None, "top_logprobs": []}]}

    (choice,) = assembled(
        chat({"role": "assistant", "content": None}),
        chat({"content": "Hel"}, logprobs=entry("Hel")),
        chat({"content": "lo"}, logprobs=entry("lo")),
        chat({}, finish_reason="length"),
        {"choices": [], "usage": {"completion_tokens": 2}},
    )
    assert choice["message"] == {"role": "assistant", "content": "Hello"}
    assert choice["finish_reason"] == "length"
    assert [entry["token"] for entry in choice["logprobs"]["content"]] == ["Hel", "lo"]


def test_tool_calls_are_joined_by_their_index_even_when_interleaved() -> None:
    (choice,) = assembled(
        chat({"tool_calls": [{"index": 1, "id": "b", "function": {"name": "g"}}]}),
        chat(
            {"tool_calls": [{"index": 0, "id": "a", "function": {"name": "f", "arguments": "{"}}]}
        ),
        chat({"tool_calls": [{"index": 1, "function": {"arguments": "[]"}}]}),
        chat({"tool_calls": [{"index": 0, "function": {"arguments": "}"}}]}),
        chat({}, finish_reason="tool_calls"),
    )
    assert choice["message"] == {
        "role": "assistant",
        "content": None,
        "tool_calls": [
            {"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}},
            {"id": "b", "type": "function", "function": {"name": "g", "arguments": "[]"}},
        ],
    }


def test_choices_keep_apart_and_in_order() -> None:
    choices = assembled(
        chat({"content": "b"}, 1), chat({"content": "a"}), chat({"content": "B"}, 1)
    )
    assert [choice["message"]["content"] for choice in choices] == ["a", "bB"]


def test_a_refusal_and_an_empty_answer_stay_what_they_are() -> None:
    (refused,) = assembled(chat({"refusal": "I will "}), chat({"refusal": "not"}))
    assert refused["message"] == {"role": "assistant", "content": None, "refusal": "I will not"}
    (empty,) = assembled(chat({}, finish_reason="stop"))
    assert empty["message"] == {"role": "assistant", "content": ""}


def test_completions_are_text() -> None:
    (choice,) = assembled(
        {"choices": [{"text": "a", "index": 0}]},
        {"choices": [{"text": "b", "index": 0, "finish_reason": "stop"}]},
    )
    assert choice == {"index": 0, "text": "ab", "finish_reason": "stop"}


@pytest.mark.parametrize(
    "delta",
    [
        {"content": 7}, {"content": ["x"]}, {"refusal": 7}, {"tool_calls": 7},
        {"tool_calls": ["x"]}, {"tool_calls": [{"id": 7}]},
        {"tool_calls": [{"function": {"arguments": {}}}]}, {"tool_calls": [{"index": []}]},
    ],
)  # fmt: skip
def test_garbage_is_the_engine_s_failure_and_not_ours(delta: dict[str, Any]) -> None:
    with pytest.raises(UserError) as caught:
        assembled(chat(delta))
    assert caught.value.code is Code.ENGINE_FAILED
