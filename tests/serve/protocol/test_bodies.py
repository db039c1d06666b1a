"""Bodies are parsed closed, and what an engine cannot do is refused by name."""

import contextlib
import json
import typing
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openai.types import completion_create_params, embedding_create_params
from openai.types.chat import completion_create_params as chat_create_params
from openai.types.responses import response_create_params

from freehold.core.engine import CHAT, COMPLETIONS, EMBEDDINGS, Capabilities
from freehold.core.errors import Code, UserError
from freehold.serve.protocol.bodies import RESPONSES, SHAPES, admit, parse

SAMPLING = {
    "frequency_penalty", "logit_bias", "max_tokens", "presence_penalty", "seed", "stop",
    "temperature", "top_p",
}  # fmt: skip
LOCAL = Capabilities(
    fields={
        CHAT: frozenset(
            SAMPLING
            | {
                "logprobs", "max_completion_tokens", "messages", "response_format",
                "tool_choice", "tools", "top_logprobs",
            }
        ),
        COMPLETIONS: frozenset(SAMPLING | {"prompt"}),
        EMBEDDINGS: frozenset({"input"}),
    },
    context_length=4096,
    concurrency=8,
)  # fmt: skip
UPSTREAM = Capabilities(
    fields={
        CHAT: LOCAL.fields[CHAT] | {"prediction", "reasoning_effort", "verbosity", "n"},
        COMPLETIONS: LOCAL.fields[COMPLETIONS] | {"logprobs"},
        EMBEDDINGS: LOCAL.fields[EMBEDDINGS] | {"dimensions"},
    },
    context_length=None,
    concurrency=8,
    vision=True,
    answers_whole=True,
)
LEAST: dict[str, dict[str, Any]] = {
    CHAT: {"model": "m", "messages": [{"role": "user", "content": "hi"}]},
    COMPLETIONS: {"model": "m", "prompt": "hi"},
    EMBEDDINGS: {"model": "m", "input": "hi"},
    RESPONSES: {"model": "m", "input": "hi"},
}
IMAGE = {"type": "image_url", "image_url": {"url": "http://169.254.169.254/"}}


def nested(depth: int) -> dict[str, Any]:
    value: dict[str, Any] = {}
    for _ in range(depth):
        value = {"a": value}
    return value


def said(*content: Any, role: str = "user", **fields: Any) -> dict[str, Any]:
    return {"messages": [{"role": role, **({"content": content[0]} if content else {}), **fields}]}


def function(name: str = "f", **fields: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, **fields}}


def through(
    endpoint: str, fields: dict[str, Any], capabilities: Capabilities = LOCAL
) -> dict[str, Any]:
    """What the engine would get, as it would be sent."""
    raw = json.dumps({**LEAST[endpoint], **fields}).encode()
    sent: dict[str, Any] = orjson.loads(orjson.dumps(admit(parse(endpoint, raw), capabilities)))
    return sent


def refusal(endpoint: str, fields: dict[str, Any], capabilities: Capabilities = LOCAL) -> UserError:
    with pytest.raises(UserError) as caught:
        through(endpoint, fields, capabilities)
    error = caught.value
    assert "\n" not in error.message
    assert len(error.message) < 500
    assert error.message.endswith(".")
    assert len(error.param or "") <= 200
    return error


BAD = [
    (CHAT, {"messages": []}, "messages"),
    (CHAT, {"messages": "hello"}, "messages"),
    (CHAT, {"messages": [{"role": "user", "content": "x"}] * 10_001}, "messages"),
    (CHAT, said("x", role="robot"), "messages[0].role"),
    (CHAT, {"messages": [{"content": "x"}]}, "messages[0].role"),
    (CHAT, said(), "messages[0].content"),
    (CHAT, said(None), "messages[0].content"),
    (CHAT, said(7), "messages[0].content"),
    (CHAT, said({"type": "text", "text": "x"}), "messages[0].content"),
    (CHAT, said(IMAGE), "messages[0].content"),
    (CHAT, said([]), "messages[0].content"),
    (CHAT, said([{"type": "text"}]), "messages[0].content[0].text"),
    (CHAT, said([{"type": "video"}]), "messages[0].content[0].type"),
    (CHAT, said(role="assistant"), "messages[0].content"),
    (CHAT, said(None, role="assistant", tool_calls=[]), "messages[0].content"),
    (CHAT, said("x", role="tool"), "messages[0].tool_call_id"),
    (CHAT, {"model": ""}, "model"),
    (CHAT, {"model": 7}, "model"),
    (CHAT, {"model": None}, "model"),
    (CHAT, {"model": "m" * 300}, "model"),
    (CHAT, {"temperature": -0.1}, "temperature"),
    (CHAT, {"temperature": 2.1}, "temperature"),
    (CHAT, {"temperature": "hot"}, "temperature"),
    (CHAT, {"temperature": True}, "temperature"),
    (CHAT, {"top_p": 0}, "top_p"),
    (CHAT, {"frequency_penalty": -2.5}, "frequency_penalty"),
    (CHAT, {"presence_penalty": 1e300}, "presence_penalty"),
    (CHAT, {"max_tokens": 0}, "max_tokens"),
    (CHAT, {"max_tokens": -1}, "max_tokens"),
    (CHAT, {"max_tokens": 10**30}, "max_tokens"),
    (CHAT, {"max_tokens": 5, "max_completion_tokens": 6}, "max_tokens"),
    (CHAT, {"n": 0}, "n"),
    (CHAT, {"n": 17}, "n"),
    (CHAT, {"n": 1.5}, "n"),
    (CHAT, {"seed": 2**63}, "seed"),
    (CHAT, {"seed": 0.5}, "seed"),
    (CHAT, {"stop": ""}, "stop"),
    (CHAT, {"stop": {}}, "stop"),
    (CHAT, {"stop": ["x"] * 10_000}, "stop"),
    (CHAT, {"stop": ["a", ""]}, "stop[1]"),
    (CHAT, {"stop": "x" * 1025}, "stop"),
    (CHAT, {"logit_bias": {"1": 101}}, "logit_bias.1"),
    (CHAT, {"logit_bias": {str(token): 1 for token in range(1025)}}, "logit_bias"),
    (CHAT, {"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
    (CHAT, {"top_logprobs": 2}, "top_logprobs"),
    (CHAT, {"tools": [function("no spaces")]}, "tools[0].function.name"),
    (CHAT, {"tools": [function(f"f{index}") for index in range(129)]}, "tools"),
    (CHAT, {"tools": [function(parameters=nested(40))]}, "tools[0].function.parameters"),
    (CHAT, {"tools": [function(parameters={"enum": ["x"] * 1001})]},
     "tools[0].function.parameters"),
    (CHAT, {"tools": [function(parameters={str(index): 1 for index in range(6000)})]},
     "tools[0].function.parameters"),
    (CHAT, {"tools": [function(parameters={"$ref": "http://169.254.169.254/"})]},
     "tools[0].function.parameters"),
    (CHAT, {"tool_choice": "required"}, "tool_choice"),
    (CHAT, {"tool_choice": []}, "tool_choice"),
    (CHAT, {"tools": [function()], "tool_choice": function("g")}, "tool_choice"),
    (CHAT, {"response_format": {"type": "xml"}}, "response_format.type"),
    (CHAT, {"response_format": {"type": "json_schema", "json_schema": {"name": "a",
     "schema": nested(900)}}}, "response_format.json_schema.schema"),
    (CHAT, {"metadata": {str(label): "x" for label in range(17)}}, "metadata"),
    (CHAT, {"metadata": nested(900)}, "metadata.a"),
    (CHAT, {"stream_options": {"include_usage": True}}, "stream_options"),
    (CHAT, {"prediction": nested(900)}, "prediction"),
    (CHAT, said([{"type": "file", "file": nested(900)}]), "messages[0].content[0].file"),
    (COMPLETIONS, {"prompt": {}}, "prompt"),
    (COMPLETIONS, {"prompt": []}, "prompt"),
    (COMPLETIONS, {"prompt": ["a", 1]}, "prompt[1]"),
    (COMPLETIONS, {"logprobs": 6}, "logprobs"),
    (EMBEDDINGS, {"input": ""}, "input"),
    (EMBEDDINGS, {"input": []}, "input"),
    (EMBEDDINGS, {"input": ["a", ""]}, "input[1]"),
    (EMBEDDINGS, {"input": {}}, "input"),
    (EMBEDDINGS, {"input": ["x"] * 2049}, "input"),
    (EMBEDDINGS, {"encoding_format": "hex"}, "encoding_format"),
    (RESPONSES, {"input": {}}, "input"),
    (RESPONSES, {"input": []}, "input"),
    (RESPONSES, {"input": [{"role": "robot", "content": "x"}]}, "input[0].role"),
    (RESPONSES, {"include": ["nonsense"]}, "include[0]"),
    (RESPONSES, {"tool_choice": "required"}, "tool_choice"),
    (RESPONSES, {"max_output_tokens": 0}, "max_output_tokens"),
    (RESPONSES, {"text": {"format": {"type": "json_schema"}}}, "text.format"),
    (RESPONSES, {"text": {"format": {"type": "text", "schema": nested(900)}}},
     "text.format.schema"),
    (RESPONSES, {"tools": [{"type": "function", "name": "f", "parameters": nested(900)}]},
     "tools[0].parameters"),
]  # fmt: skip


@pytest.mark.parametrize(("endpoint", "fields", "param"), BAD)
def test_a_wrong_value_is_refused_by_its_place(
    endpoint: str, fields: dict[str, Any], param: str
) -> None:
    error = refusal(endpoint, fields)
    assert (error.code, error.param) == (Code.INVALID_VALUE, param)


UNSUPPORTED = [
    (CHAT, {"audio": {"voice": "alloy", "format": "wav"}}, "audio"),
    (CHAT, {"functions": [{"name": "f"}]}, "functions"),
    (CHAT, {"modalities": ["text", "audio"]}, "modalities"),
    (CHAT, {"parallel_tool_calls": False}, "parallel_tool_calls"),
    (CHAT, {"prediction": {"type": "content", "content": "x"}}, "prediction"),
    (CHAT, {"reasoning_effort": "high"}, "reasoning_effort"),
    (CHAT, {"service_tier": "flex"}, "service_tier"),
    (CHAT, {"store": True}, "store"),
    (CHAT, {"verbosity": "low"}, "verbosity"),
    (CHAT, {"web_search_options": {}}, "web_search_options"),
    (CHAT, {"stream": True, "stream_options": {"include_obfuscation": True}},
     "stream_options.include_obfuscation"),
    (CHAT, said("x", role="function", name="f"), "messages[0].role"),
    (CHAT, said(None, role="assistant", function_call={"name": "f", "arguments": ""}),
     "messages[0].function_call"),
    (CHAT, said([{"type": "text", "text": "what is it?"}, IMAGE]), "messages[0].content[1]"),
    (CHAT, said([{"type": "file", "file": {"file_id": "x"}}]), "messages[0].content[0]"),
    (CHAT, {"tools": [{"type": "custom", "custom": {"name": "x"}}]}, "tools[0].type"),
    (COMPLETIONS, {"best_of": 3}, "best_of"),
    (COMPLETIONS, {"echo": True}, "echo"),
    (COMPLETIONS, {"suffix": "x"}, "suffix"),
    (COMPLETIONS, {"logprobs": 0}, "logprobs"),
    (COMPLETIONS, {"prompt": ["a", "b"]}, "prompt"),
    (COMPLETIONS, {"prompt": [1, 2]}, "prompt"),
    (EMBEDDINGS, {"input": [1, 2]}, "input[0]"),
    (EMBEDDINGS, {"input": [[1], [2]]}, "input[0]"),
    (EMBEDDINGS, {"dimensions": 4}, "dimensions"),
    (RESPONSES, {"background": True}, "background"),
    (RESPONSES, {"conversation": "conv_1"}, "conversation"),
    (RESPONSES, {"previous_response_id": "resp_1"}, "previous_response_id"),
    (RESPONSES, {"store": True}, "store"),
    (RESPONSES, {"truncation": "auto"}, "truncation"),
    (RESPONSES, {"reasoning": {"effort": "high"}}, "reasoning.effort"),
    (RESPONSES, {"reasoning": {"summary": "auto"}}, "reasoning.summary"),
    (RESPONSES, {"text": {"verbosity": "low"}}, "text.verbosity"),
    (RESPONSES, {"tools": [{"type": "web_search"}]}, "tools[0].type"),
    (RESPONSES, {"tools": [{"type": "file_search", "vector_store_ids": ["x"]}]}, "tools[0].type"),
    (RESPONSES, {"tools": [{"type": "mcp", "server_label": "x"}]}, "tools[0].type"),
    (RESPONSES, {"input": [{"type": "item_reference", "id": "x"}]}, "input[0].type"),
    (RESPONSES, {"input": [{"role": "user", "content": [{"type": "input_image",
     "image_url": "http://169.254.169.254/"}]}]}, "input[0].content[0]"),
]  # fmt: skip


@pytest.mark.parametrize(("endpoint", "fields", "param"), UNSUPPORTED)
def test_what_openai_defines_and_the_engine_cannot_do_is_refused_by_name(
    endpoint: str, fields: dict[str, Any], param: str
) -> None:
    error = refusal(endpoint, fields)
    assert (error.code, error.param) == (Code.UNSUPPORTED_PARAMETER, param)


@pytest.mark.parametrize("endpoint", list(LEAST))
@pytest.mark.parametrize(
    "name",
    [
        "top_k", "min_p", "lora", "id_slot", "cache_prompt", "cache_salt", "n_discard", "n_predict",
        "chat_template", "chat_template_kwargs", "prompt_embeds", "grammar", "guided_json",
        "reasoning_format", "timings_per_token", "return_tokens", "x" * 100_000, "a\nb",
    ],
)  # fmt: skip
def test_engine_internal_and_invented_fields_never_pass(endpoint: str, name: str) -> None:
    for capabilities in (LOCAL, UPSTREAM):
        error = refusal(endpoint, {name: 1}, capabilities)
        assert error.code is Code.UNKNOWN_PARAMETER
        assert (error.param or "").startswith(name[:1])
        assert len(error.message) < 120


def test_nested_unknown_fields_are_refused_by_their_place() -> None:
    error = refusal(CHAT, said("x", cache_control={"type": "ephemeral"}))
    assert (error.code, error.param) == (Code.UNKNOWN_PARAMETER, "messages[0].cache_control")
    error = refusal(CHAT, {"tools": [function(secret=1)]})
    assert error.param == "tools[0].function.secret"


def test_a_caller_s_own_text_is_not_repeated_in_a_refusal() -> None:
    canary = "canary" * 40
    for fields in (said("x", role=canary), said(canary, role=7), {"temperature": canary},
                   {"tools": [{"type": canary}]}, said([{"type": canary}])):  # fmt: skip
        assert canary[:61] not in refusal(CHAT, fields).message


@pytest.mark.parametrize(
    "raw",
    [
        b"", b"{", b"[]", b'"x"', b"null", b"\xff\xfe{}", b"\xef\xbb\xbf{}", b"[" * 100_000,
        b'{"a":' * 100_000, b'{"model": NaN}', b'{"temperature": -Infinity}',
        b'{"temperature": 1e999}', b'{"model": "\\ud800"}', b'{"model": "\xed\xa0\x80"}',
        b"{'model': 1}", b'{"model": "m",}', b'{"model": "m"} {}',
    ],
)  # fmt: skip
def test_what_is_no_json_object_is_refused_as_such(raw: bytes) -> None:
    for endpoint in LEAST:
        with pytest.raises(UserError) as caught:
            parse(endpoint, raw)
        assert caught.value.code is Code.INVALID_JSON


def test_a_repeated_key_is_read_once_and_sent_once() -> None:
    raw = b'{"model":"a","messages":[],"model":"b","messages":[{"role":"user","content":"x"}]}'
    body = parse(CHAT, raw)
    assert body.model == "b"
    assert admit(body, LOCAL) == {"messages": [{"role": "user", "content": "x"}]}


def test_a_million_mistakes_are_told_in_one_sentence() -> None:
    assert refusal(CHAT, {f"k{index}": 1 for index in range(100_000)}).param == "k0"
    error = refusal(CHAT, said("x", **{f"k{index}": 1 for index in range(100_000)}))
    assert "100,000 places" in error.message


def test_gateway_fields_are_consumed_and_harmless_values_change_nothing() -> None:
    fields = {
        "stream": True, "stream_options": {"include_usage": True, "include_obfuscation": False},
        "user": "u", "metadata": {"a": "b"}, "safety_identifier": "s", "prompt_cache_key": "k",
        "n": 1, "store": False, "logprobs": False, "service_tier": "auto", "modalities": ["text"],
        "parallel_tool_calls": True, "reasoning_effort": "none", "verbosity": "medium",
        "audio": None, "functions": None, "seed": None,
    }  # fmt: skip
    sent = through(CHAT, fields)
    assert sent == {"messages": LEAST[CHAT]["messages"], "logprobs": False}
    body = parse(CHAT, json.dumps({**LEAST[CHAT], **fields}).encode())
    assert (body.model, body.stream, body.include_usage, body.n) == ("m", True, True, 1)


def test_n_goes_to_engines_that_know_it_and_stays_with_the_gateway_otherwise() -> None:
    assert "n" not in through(CHAT, {"n": 3})
    assert through(CHAT, {"n": 3}, UPSTREAM)["n"] == 3


def test_a_token_limit_given_twice_alike_is_sent_once() -> None:
    sent = through(CHAT, {"max_tokens": 5, "max_completion_tokens": 5})
    assert (sent.get("max_tokens"), sent["max_completion_tokens"]) == (None, 5)


def test_messages_reach_a_text_engine_as_plain_text() -> None:
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    nulls = {"annotations": [], "audio": None, "function_call": None, "refusal": None}
    messages = [
        {"role": "developer", "content": "be kind", "name": None},
        {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
        {"role": "assistant", "content": None, "tool_calls": [call], **nulls},
        {"role": "tool", "tool_call_id": "c", "content": [{"type": "text", "text": "7"}]},
        {"role": "assistant", "content": "seven", "tool_calls": None, **nulls},
        {"role": "assistant", "content": None, "refusal": "no"},
    ]
    assert through(CHAT, {"messages": messages})["messages"] == [
        {"role": "system", "content": "be kind"},
        {"role": "user", "content": "a\nb"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c", "content": "7"},
        {"role": "assistant", "content": "seven"},
        {"role": "assistant", "content": "no"},
    ]


def test_an_upstream_with_vision_gets_images_and_roles_as_they_are() -> None:
    messages = said([{"type": "text", "text": "a"}, IMAGE], role="user")
    assert through(CHAT, messages, UPSTREAM) == messages


def test_an_endpoint_that_the_model_does_not_serve_is_named() -> None:
    only = Capabilities({EMBEDDINGS: frozenset({"input"})}, 512, 1)
    for endpoint in (CHAT, COMPLETIONS, RESPONSES):
        error = refusal(endpoint, {}, only)
        assert error.code is Code.UNSUPPORTED_ENDPOINT
        assert "/v1/embeddings" in error.message


def test_a_responses_conversation_becomes_a_chat_conversation() -> None:
    call = {"type": "function_call", "call_id": "c1", "name": "f", "arguments": "{}"}
    sent = through(
        RESPONSES,
        {
            "instructions": "be brief",
            "input": [
                {"role": "developer", "content": "and kind"},
                {"role": "user", "content": [{"type": "input_text", "text": "hi"}]},
                {"type": "message", "id": "msg_1", "role": "assistant", "status": "completed",
                 "content": [{"type": "output_text", "text": "yes", "annotations": [],
                              "logprobs": []}]},
                {**call, "id": "fc_1", "status": "completed"},
                {**call, "call_id": "c2", "name": "g"},
                {"type": "function_call_output", "call_id": "c1", "output": "7"},
                {"type": "function_call_output", "call_id": "c2",
                 "output": [{"type": "input_text", "text": "8"}]},
            ],
            "tools": [{"type": "function", "name": "f", "parameters": {"type": "object"},
                       "strict": True}],
            "tool_choice": {"type": "function", "name": "f"},
            "text": {"format": {"type": "json_schema", "name": "a", "description": "b",
                                "schema": {"type": "object"}, "strict": True}},
            "max_output_tokens": 9, "temperature": 0.5, "top_p": 0.9, "top_logprobs": 2,
            "metadata": {"a": "b"}, "store": False,
        },
    )  # fmt: skip
    assert sent == {
        "messages": [
            {"role": "system", "content": "be brief"},
            {"role": "system", "content": "and kind"},
            {"role": "user", "content": "hi"},
            {"role": "assistant", "content": "yes"},
            {"role": "assistant", "content": None, "tool_calls": [
                {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}},
                {"id": "c2", "type": "function", "function": {"name": "g", "arguments": "{}"}},
            ]},
            {"role": "tool", "tool_call_id": "c1", "content": "7"},
            {"role": "tool", "tool_call_id": "c2", "content": "8"},
        ],
        "tools": [function(parameters={"type": "object"}, strict=True)],
        "tool_choice": function(),
        "response_format": {"type": "json_schema", "json_schema": {
            "name": "a", "description": "b", "schema": {"type": "object"}, "strict": True}},
        "max_completion_tokens": 9, "temperature": 0.5, "top_p": 0.9,
        "logprobs": True, "top_logprobs": 2,
    }  # fmt: skip
    assert (
        through(RESPONSES, {"reasoning": {"effort": "low"}}, UPSTREAM)["reasoning_effort"] == "low"
    )


def test_every_field_of_the_current_openai_api_is_known_and_no_other() -> None:
    sdk = {
        CHAT: (
            chat_create_params.CompletionCreateParamsNonStreaming,
            chat_create_params.CompletionCreateParamsStreaming,
        ),
        COMPLETIONS: (
            completion_create_params.CompletionCreateParamsNonStreaming,
            completion_create_params.CompletionCreateParamsStreaming,
        ),
        EMBEDDINGS: (embedding_create_params.EmbeddingCreateParams,),
        RESPONSES: (
            response_create_params.ResponseCreateParamsNonStreaming,
            response_create_params.ResponseCreateParamsStreaming,
        ),
    }
    for endpoint, shape in SHAPES.items():
        defined = {name for params in sdk[endpoint] for name in typing.get_type_hints(params)}
        assert set(shape.model_fields) == defined, endpoint
        assert shape.model_config["extra"] == "forbid"


KNOWN = {endpoint: sorted(shape.model_fields) for endpoint, shape in SHAPES.items()}
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(list(LEAST)), st.binary(max_size=200))
def test_no_bytes_whatever_break_the_parser(endpoint: str, raw: bytes) -> None:
    with pytest.raises(UserError):
        parse(endpoint, raw)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_no_value_of_any_field_breaks_parsing_admitting_or_sending(data: st.DataObject) -> None:
    endpoint = data.draw(st.sampled_from(list(LEAST)))
    known = KNOWN[endpoint]
    names = data.draw(st.lists(st.sampled_from(known), min_size=1, max_size=3, unique=True))
    fields = {name: data.draw(json_values) for name in names}
    raw = json.dumps({**LEAST[endpoint], **fields}).encode()
    for capabilities in (LOCAL, UPSTREAM):
        with contextlib.suppress(UserError):
            orjson.dumps(admit(parse(endpoint, raw), capabilities))
