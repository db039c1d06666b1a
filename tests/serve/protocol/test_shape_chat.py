"""Chat and completion answers look like OpenAI's, to the field."""

from typing import Any

import httpx
import openai
import orjson
import pytest
from openai.types import Completion
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from freehold.core.errors import Code, UserError
from freehold.serve.errors import body_of
from freehold.serve.protocol.assemble import Assembler
from freehold.serve.protocol.meter import Meter
from freehold.serve.protocol.shape_chat import ChatShaper, CompletionShaper

METER = Meter(tokens_in=5, tokens_out=3, tokens_cached=4, is_exact=True)
LOGPROBS = {
    "content": [
        {
            "id": 7, "token": "a", "logprob": -0.5, "bytes": [97],
            "top_logprobs": [{"id": 7, "token": "a", "logprob": -0.5, "bytes": [97]}],
        }
    ]
}  # fmt: skip
CALL = {
    "index": 0, "id": "c1", "type": "function", "slot": 3,
    "function": {"name": "f", "arguments": "{}", "engine": 1},
}  # fmt: skip


def shaper(**options: Any) -> ChatShaper:
    return ChatShaper(
        "chatcmpl-1", "alias", 1700, options.get("usage", False), options.get("cached", False)
    )


def engine_chunk(delta: dict[str, Any], **fields: Any) -> dict[str, Any]:
    """A chunk as engines send it, with what is theirs alone."""
    return {
        "id": "chatcmpl-engine", "model": "sha256:ab", "created": 9, "object": "x",
        "system_fingerprint": "b1", "timings": {"cache_n": 3}, "id_slot": 2,
        "choices": [{"index": 0, "delta": delta, "finish_reason": None, "slot": 1, **fields}],
    }  # fmt: skip


def events(content: bytes) -> list[Any]:
    blocks = content.decode().split("\n\n")
    assert blocks.pop() == ""
    assert all(block.startswith("data: ") for block in blocks)
    return [block if block == "data: [DONE]" else orjson.loads(block[6:]) for block in blocks]


def streamed(content: bytes) -> openai.OpenAI:
    """OpenAI's own client, fed with what the gateway would send."""
    headers = {"content-type": "text/event-stream"}
    transport = httpx.MockTransport(
        lambda request: httpx.Response(200, headers=headers, content=content)
    )
    return openai.OpenAI(
        api_key="x",
        base_url="http://x",
        max_retries=0,
        http_client=httpx.Client(transport=transport),
    )


def test_a_chunk_carries_the_gateway_s_names_and_openai_s_fields_only() -> None:
    delta = {
        "role": "assistant", "content": "a", "reasoning_content": "hm", "tokens": [7],
        "tool_calls": [CALL],
    }  # fmt: skip
    (event,) = events(shaper().chunk([engine_chunk(delta, logprobs=LOGPROBS)]))
    top = {"token": "a", "logprob": -0.5, "bytes": [97]}
    assert event == {
        "id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1700, "model": "alias",
        "choices": [
            {
                "index": 0,
                "delta": {
                    "role": "assistant", "content": "a",
                    "tool_calls": [
                        {"index": 0, "id": "c1", "type": "function",
                         "function": {"name": "f", "arguments": "{}"}},
                    ],
                },
                "logprobs": {"content": [{**top, "top_logprobs": [top]}], "refusal": None},
                "finish_reason": None,
            }
        ],
    }  # fmt: skip
    ChatCompletionChunk.model_validate(event, strict=True)


def test_usage_is_streamed_only_when_asked_for_and_last() -> None:
    chunks = [engine_chunk({"content": "a"}), {"choices": [], "usage": {"completion_tokens": 1}}]
    silent = shaper()
    assert b"usage" not in silent.chunk(chunks) + silent.end(METER)
    asked = shaper(usage=True)
    first, last, done = events(asked.chunk(chunks) + asked.end(METER))
    assert first["usage"] is None
    assert (last["choices"], last["usage"]["total_tokens"], done) == ([], 8, "data: [DONE]")
    ChatCompletionChunk.model_validate(last, strict=True)


def test_cached_tokens_show_only_where_the_cache_is_the_tenant_s_own() -> None:
    content = {"choices": [{"message": {"content": "a"}}]}
    for shows, count in ((False, 0), (True, 4)):
        whole = shaper(cached=shows).whole(content, METER)
        assert whole["usage"]["prompt_tokens_details"] == {"cached_tokens": count}


def test_a_whole_answer_is_what_the_sdk_expects() -> None:
    assembler = Assembler()
    assembler.add([engine_chunk({"role": "assistant", "content": None})])
    called = engine_chunk({"tool_calls": [CALL]}, logprobs=LOGPROBS, finish_reason="tool_calls")
    assembler.add([called])
    whole = shaper().whole(assembler.whole(), METER)
    answer = ChatCompletion.model_validate(whole, strict=True)
    assert answer.model_extra == answer.choices[0].model_extra == {}
    assert answer.choices[0].message.model_extra == {}
    assert answer.choices[0].message.tool_calls is not None
    assert answer.choices[0].message.tool_calls[0].model_dump() == {
        "id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"},
    }  # fmt: skip
    assert (answer.id, answer.model, answer.created) == ("chatcmpl-1", "alias", 1700)


def test_an_upstream_s_whole_answer_loses_what_is_not_openai_s() -> None:
    message = {"role": "assistant", "content": "a", "reasoning_content": "b", "refusal": None,
               "annotations": []}  # fmt: skip
    content = {
        "id": "up", "model": "up", "system_fingerprint": "fp", "timings": {},
        "choices": [{"index": 0, "message": message, "finish_reason": "stop", "stop_reason": 1}],
    }  # fmt: skip
    whole = shaper().whole(content, METER)
    assert set(whole) == {"id", "object", "created", "model", "choices", "usage"}
    assert whole["choices"] == [
        {"index": 0, "logprobs": None, "finish_reason": "stop",
         "message": {"role": "assistant", "content": "a", "refusal": None, "annotations": []}},
    ]  # fmt: skip


def test_completions_are_shaped_alike() -> None:
    shape = CompletionShaper("cmpl-1", "alias", 1700, True, False)
    logprobs = {"tokens": ["a"], "token_logprobs": [-1.0], "top_logprobs": [{"a": -1.0}],
                "text_offset": [0], "token_ids": [7]}  # fmt: skip
    chunk = {"choices": [{"index": 0, "text": "a", "finish_reason": None, "logprobs": logprobs,
                          "tokens": [7]}], "timings": {}}  # fmt: skip
    first, last, done = events(shape.chunk([chunk]) + shape.end(METER))
    assert set(first["choices"][0]) == {"index", "text", "logprobs", "finish_reason"}
    assert set(first["choices"][0]["logprobs"]) == set(logprobs) - {"token_ids"}
    assert (last["usage"]["prompt_tokens"], done) == (5, "data: [DONE]")
    assembler = Assembler()
    assembler.add([chunk, {"choices": [{"index": 0, "text": "b", "finish_reason": "length"}]}])
    answer = Completion.model_validate(shape.whole(assembler.whole(), METER), strict=True)
    assert (answer.choices[0].text, answer.choices[0].finish_reason) == ("ab", "length")


def test_the_sdk_s_own_stream_helper_rebuilds_the_answer() -> None:
    shape = shaper(usage=True)
    deltas: list[dict[str, Any]] = [{"role": "assistant", "content": None}, {"content": "Hel"},
                                    {"content": "lo"}]  # fmt: skip
    content = b"".join(shape.chunk([engine_chunk(delta)]) for delta in deltas)
    content += shape.chunk([engine_chunk({}, finish_reason="stop")]) + shape.end(METER)
    with (
        streamed(content) as client,
        client.chat.completions.stream(model="alias", messages=[]) as stream,
    ):
        answer = stream.get_final_completion()
    assert answer.choices[0].message.content == "Hello"
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 3


def test_an_error_in_the_middle_raises_in_the_sdk() -> None:
    shape = shaper()
    error = body_of(UserError(Code.ENGINE_FAILED, "The engine died: try again."))
    content = shape.chunk([engine_chunk({"content": "a"})]) + shape.error(error)
    with streamed(content) as client:
        stream = client.chat.completions.create(model="alias", messages=[], stream=True)
        assert next(stream).choices[0].delta.content == "a"
        with pytest.raises(openai.APIError) as caught:
            next(stream)
    assert (caught.value.message, caught.value.code) == (
        "The engine died: try again.", "engine_failed",
    )  # fmt: skip


@pytest.mark.parametrize(
    "content",
    [
        {}, {"choices": None}, {"choices": []}, {"choices": ["x"]}, {"choices": [{}]},
        {"choices": [{"message": {"content": 7}}]},
        {"choices": [{"message": {"tool_calls": [{}]}}]},
        {"choices": [{"message": {"content": "a"}, "logprobs": {"content": [7]}}]},
    ],
)  # fmt: skip
def test_an_upstream_s_garbage_is_its_failure_and_not_ours(content: dict[str, Any]) -> None:
    with pytest.raises(UserError) as caught:
        shaper().whole(content, METER)
    assert caught.value.code is Code.ENGINE_FAILED
