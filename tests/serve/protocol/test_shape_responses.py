"""Responses, whole and streamed, as OpenAI's own client reads them."""

from typing import Any

import httpx
import openai
import orjson
import pytest
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import BaseModel, TypeAdapter

from freehold.core.errors import Code, UserError
from freehold.serve.errors import body_of
from freehold.serve.protocol.meter import Meter
from freehold.serve.protocol.shape_responses import ResponsesShaper

METER = Meter(tokens_in=5, tokens_out=3, tokens_cached=4, is_exact=True)
EVENT: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)
TOOL = {"type": "function", "name": "f", "parameters": {"type": "object"}}
LOGPROBS = {"content": [{"id": 7, "token": "a", "logprob": -0.5, "bytes": [97],
                         "top_logprobs": []}]}  # fmt: skip


def shaper(**data: Any) -> ResponsesShaper:
    return ResponsesShaper("01", "alias", 1700, data, shows_cached=False)


def chunk(delta: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": delta, **fields}]}


def call(index: int, **fields: Any) -> dict[str, Any]:
    function = {name: fields.pop(name) for name in ("name", "arguments") if name in fields}
    return chunk({"tool_calls": [{"index": index, **fields, "function": function}]})


def stream(*chunks: dict[str, Any], **data: Any) -> bytes:
    shape = shaper(**data)
    return b"".join(shape.chunk([one]) for one in chunks) + shape.end(METER)


def events(content: bytes) -> list[dict[str, Any]]:
    """Each event, checked against the SDK's types, its own name and the count."""
    found = []
    for number, block in enumerate(content.decode().split("\n\n")[:-1]):
        name, data = block.split("\n")
        event = orjson.loads(data.removeprefix("data: "))
        assert name == f"event: {event['type']}"
        assert event["sequence_number"] == number
        EVENT.validate_python(event)
        found.append(event)
    return found


def client(content: bytes, content_type: str = "text/event-stream") -> openai.OpenAI:
    headers = {"content-type": content_type}
    transport = httpx.MockTransport(
        lambda request: httpx.Response(200, headers=headers, content=content)
    )
    return openai.OpenAI(
        api_key="x",
        base_url="http://x",
        max_retries=0,
        http_client=httpx.Client(transport=transport),
    )


def test_text_is_streamed_in_openai_s_order() -> None:
    content = stream(
        chunk({"role": "assistant", "content": None}),
        chunk({"content": "Hel"}, logprobs=LOGPROBS),
        chunk({"content": "lo"}),
        chunk({}, finish_reason="stop"),
    )
    found = events(content)
    assert [event["type"].removeprefix("response.") for event in found] == [
        "created", "in_progress", "output_item.added", "content_part.added", "output_text.delta",
        "output_text.delta", "output_text.done", "content_part.done", "output_item.done",
        "completed",
    ]  # fmt: skip
    assert found[0]["response"]["status"] == "in_progress"
    assert found[-1]["response"]["usage"] == {
        "input_tokens": 5, "output_tokens": 3, "total_tokens": 8,
        "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
        "output_tokens_details": {"reasoning_tokens": 0},
    }  # fmt: skip
    assert b'"id":7' not in content
    with client(content) as sdk, sdk.responses.stream(model="alias", input="x") as streamed:
        answer = streamed.get_final_response()
    assert (answer.output_text, answer.id, answer.model) == ("Hello", "resp_01", "alias")


def test_text_is_closed_before_the_calls_which_may_come_mixed() -> None:
    content = stream(
        chunk({"content": "Let me see"}),
        call(0, id="c0", name="f", arguments="{"),
        call(1, id="c1", name="g", arguments=""),
        call(0, arguments="}"),
        call(1, arguments="[]"),
        chunk({}, finish_reason="tool_calls"),
        tools=[TOOL],
    )
    found = events(content)
    kinds = [event["type"].removeprefix("response.") for event in found]
    assert kinds.index("output_text.done") < kinds.index("function_call_arguments.delta")
    added = [event["output_index"] for event in found if event["type"].endswith("item.added")]
    done = [event["output_index"] for event in found if event["type"].endswith("item.done")]
    assert added == done == [0, 1, 2]
    with client(content) as sdk, sdk.responses.stream(model="alias", input="x") as streamed:
        answer = streamed.get_final_response()
    calls = [item for item in answer.output if item.type == "function_call"]
    assert [(one.call_id, one.name, one.arguments) for one in calls] == [
        ("c0", "f", "{}"), ("c1", "g", "[]"),
    ]  # fmt: skip
    assert answer.output_text == "Let me see"


def test_an_answer_cut_short_is_incomplete_and_says_why() -> None:
    for reason, told in (("length", "max_output_tokens"), ("content_filter", "content_filter")):
        cut = chunk({"content": "a"}, finish_reason=reason)
        last = events(stream(cut))[-1]
        assert last["type"] == "response.incomplete"
        message = {"message": {"content": "a"}, "finish_reason": reason}
        whole = shaper().whole({"choices": [message]}, METER)
        for response in (last["response"], whole):
            assert (response["status"], response["incomplete_details"]) == (
                "incomplete", {"reason": told},
            )  # fmt: skip
            assert response["output"][0]["status"] == "incomplete"


def test_a_refusal_is_a_part_of_its_own() -> None:
    content = stream(
        chunk({"content": "Hm. "}), chunk({"refusal": "No."}), chunk({}, finish_reason="stop")
    )
    assert "response.refusal.done" in [event["type"] for event in events(content)]
    whole = shaper().whole({"choices": [{"message": {"content": None, "refusal": "No."}}]}, METER)
    assert whole["output"][0]["content"] == [{"type": "refusal", "refusal": "No."}]
    Response.model_validate(whole)


def test_an_answer_of_nothing_is_still_a_whole_stream() -> None:
    found = events(stream())
    assert [event["type"] for event in found] == [
        "response.created", "response.in_progress", "response.completed",
    ]  # fmt: skip
    assert found[-1]["response"]["output"] == []


def test_an_error_in_the_middle_raises_in_the_sdk_and_ends_as_failed() -> None:
    shape = shaper()
    content = shape.chunk([chunk({"content": "a"})])
    content += shape.error(body_of(UserError(Code.ENGINE_FAILED, "The engine died: try again.")))
    *_, error, failed = events(content)
    assert (error["type"], error["code"]) == ("error", "engine_failed")
    assert failed["type"] == "response.failed"
    assert failed["response"]["status"] == "failed"
    assert failed["response"]["output"][0]["status"] == "incomplete"
    with client(content) as sdk:
        streamed = sdk.responses.create(model="alias", input="x", stream=True)
        with pytest.raises(openai.APIError, match="The engine died"):
            list(streamed)


def test_a_whole_response_is_what_the_sdk_expects_and_repeats_the_request() -> None:
    data = {
        "instructions": "be brief", "metadata": {"a": "b"}, "temperature": 0.5, "tools": [TOOL],
        "tool_choice": "auto", "max_output_tokens": 9, "top_logprobs": 1,
    }  # fmt: skip
    message = {
        "content": "Hi", "reasoning_content": "hm",
        "tool_calls": [
            {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}},
        ],
    }  # fmt: skip
    choice = {"message": message, "logprobs": LOGPROBS, "finish_reason": "tool_calls"}
    whole = shaper(**data).whole({"choices": [choice], "timings": {}}, METER)
    assert Response.model_validate(whole).model_extra == {"store": False}
    with client(orjson.dumps(whole), "application/json") as sdk:
        answer = sdk.responses.create(model="alias", input="x")
    assert (answer.output_text, answer.status, answer.instructions) == (
        "Hi",
        "completed",
        "be brief",
    )
    assert (answer.metadata, answer.temperature, answer.top_p) == ({"a": "b"}, 0.5, None)
    assert [item.type for item in answer.output] == ["message", "function_call"]
    assert answer.created_at == 1700


def test_a_structured_answer_is_parsed_by_the_sdk() -> None:
    class Capital(BaseModel):
        name: str

    message = {"content": '{"name":"Paris"}'}
    whole = shaper().whole({"choices": [{"message": message, "finish_reason": "stop"}]}, METER)
    with client(orjson.dumps(whole), "application/json") as sdk:
        answer = sdk.responses.parse(model="alias", input="x", text_format=Capital)
    assert answer.output_parsed == Capital(name="Paris")


@pytest.mark.parametrize(
    "content", [{}, {"choices": []}, {"choices": [{}]}, {"choices": [{"message": {"content": 1}}]}]
)
def test_garbage_is_the_engine_s_failure_and_not_ours(content: dict[str, Any]) -> None:
    with pytest.raises(UserError) as caught:
        shaper().whole(content, METER)
    assert caught.value.code is Code.ENGINE_FAILED
    with pytest.raises(UserError) as caught:
        shaper().chunk([chunk({"content": 7})])
    assert caught.value.code is Code.ENGINE_FAILED
