"""Tools on the shared-base engine through a whole gateway and OpenAI's own client. The
models are tiny and random: what they say is what the grammar lets them say."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import openai
import pytest
import pytest_asyncio

from freehold.config.schema import OpenVinoSettings
from freehold.engines.openvino.engine import OpenVino
from tests.engines.openvino.tool_models import FAMILIES, local_model
from tests.harness import running

pytestmark = pytest.mark.asyncio(loop_scope="module")

_MODEL = "fake-model"
_SETTINGS = OpenVinoSettings(
    threads=1, streams=4, context_length=2048, weights="float32", kv_cache_bytes=16 * 1024 * 1024
)
_PARAMETERS = {
    "type": "object",
    "properties": {"city": {"enum": ["Paris", "Rome"]}, "days": {"enum": [1, 2]}},
    "required": ["city", "days"],
    "additionalProperties": False,
}
_WEATHER = {"name": "weather", "parameters": _PARAMETERS, "strict": True}
_TOOLS: Any = [{"type": "function", "function": _WEATHER}]
_NOW: Any = {"type": "function", "function": {"name": "now"}}
_ASKED: Any = [{"role": "user", "content": "Weather?"}]
_NO_END = {"0": -100, "2": -100}  # the tokens by which the tiny models end an answer
_ONE: Any = {
    "model": _MODEL, "tool_choice": "required", "parallel_tool_calls": False, "temperature": 0,
}  # fmt: skip


@asynccontextmanager
async def _served(folder: Path, name: str) -> AsyncIterator[openai.AsyncOpenAI]:
    model = local_model(folder / "models", FAMILIES[name])
    engine = OpenVino(_SETTINGS)
    async with (
        running(folder / "home", engine=engine, model=model) as world,
        openai.AsyncOpenAI(
            base_url=f"{world.url}/v1", api_key=world.key, max_retries=0, timeout=60
        ) as client,
    ):
        yield client


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=["qwen", "llama"])
async def client(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[openai.AsyncOpenAI]:
    async with _served(tmp_path_factory.mktemp(request.param), request.param) as found:
        yield found


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def mistral(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[openai.AsyncOpenAI]:
    async with _served(tmp_path_factory.mktemp("mistral"), "mistral, named") as found:
        yield found


def _check(arguments: str) -> None:
    found = json.loads(arguments)
    assert found.keys() == {"city", "days"}
    assert found["city"] in ("Paris", "Rome")
    assert found["days"] in (1, 2)


async def test_a_required_call_streams_in_the_client_s_own_events(
    client: openai.AsyncOpenAI,
) -> None:
    pieces, done = [], []
    async with client.chat.completions.stream(**_ONE, messages=_ASKED, tools=_TOOLS) as stream:
        async for event in stream:
            if event.type == "tool_calls.function.arguments.delta":
                pieces.append(event.arguments_delta)
            elif event.type == "tool_calls.function.arguments.done":
                done.append((event.index, event.name, event.arguments))
        final = (await stream.get_final_completion()).choices[0]
    (call,) = final.message.tool_calls or ()
    assert (call.type, call.function.name, final.finish_reason) == (
        "function", "weather", "tool_calls",
    )  # fmt: skip
    assert call.id.startswith("call_")
    _check(call.function.arguments)
    assert final.message.content is None
    assert done == [(0, "weather", call.function.arguments)]
    assert "".join(pieces) == call.function.arguments
    assert len(pieces) > 3


async def test_the_stream_s_deltas_are_those_of_openai(client: openai.AsyncOpenAI) -> None:
    stream = await client.chat.completions.create(
        **_ONE, messages=_ASKED, tools=_TOOLS, stream=True, stream_options={"include_usage": True}
    )
    chunks = [chunk.model_dump(exclude_unset=True) async for chunk in stream]
    *parts, usage = chunks
    assert usage["choices"] == []
    assert usage["usage"]["completion_tokens"] > 5
    choices = [part["choices"][0] for part in parts]
    assert choices[0]["delta"]["role"] == "assistant"
    assert all("role" not in choice["delta"] for choice in choices[1:])
    deltas = [d for choice in choices for d in choice["delta"].get("tool_calls", ())]
    first, *rest = deltas
    assert first.keys() == {"index", "id", "type", "function"}
    assert first["function"].keys() == {"name", "arguments"}
    assert all(d.keys() == {"index", "function"} for d in rest)
    assert all(d["function"].keys() == {"arguments"} for d in rest)
    assert [choice["finish_reason"] for choice in choices if choice["finish_reason"]] == [
        "tool_calls"
    ]


async def test_a_result_is_sent_back_as_the_client_has_it(client: openai.AsyncOpenAI) -> None:
    first = await client.chat.completions.create(**_ONE, messages=_ASKED, tools=_TOOLS)
    message = first.choices[0].message
    (call,) = message.tool_calls or ()
    assert call.type == "function"
    _check(call.function.arguments)
    result: Any = {"role": "tool", "tool_call_id": call.id, "content": "rainy"}
    again = await client.chat.completions.create(
        model=_MODEL, tools=_TOOLS, max_tokens=4, messages=[*_ASKED, message, result]
    )
    assert first.usage is not None
    assert again.usage is not None
    assert again.usage.prompt_tokens > first.usage.prompt_tokens + 20


async def test_a_named_function_is_called_and_none_is_not(client: openai.AsyncOpenAI) -> None:
    tools = [*_TOOLS, _NOW]
    named: Any = {"type": "function", "function": {"name": "now"}}
    answer = await client.chat.completions.create(
        **{**_ONE, "tool_choice": named}, messages=_ASKED, tools=tools
    )
    (call,) = answer.choices[0].message.tool_calls or ()
    assert call.type == "function"
    assert (call.function.name, call.function.arguments) == ("now", "{}")
    silent = await client.chat.completions.create(
        model=_MODEL, tool_choice="none", messages=_ASKED, tools=tools, max_tokens=8, temperature=0
    )
    assert silent.choices[0].message.tool_calls is None
    assert silent.choices[0].message.content
    with_tools, without = answer.usage, silent.usage
    assert with_tools is not None
    assert without is not None
    assert with_tools.prompt_tokens > without.prompt_tokens + 20


async def test_where_the_model_may_choose_it_may_talk(client: openai.AsyncOpenAI) -> None:
    answer = await client.chat.completions.create(
        model=_MODEL, messages=_ASKED, tools=_TOOLS, max_tokens=12, temperature=0
    )
    assert answer.choices[0].message.content
    assert answer.choices[0].finish_reason == "length"


async def test_responses_call_functions_too(client: openai.AsyncOpenAI) -> None:
    tools: Any = [{"type": "function", **_WEATHER}]
    events = []
    async with client.responses.stream(**_ONE, input="Weather?", tools=tools) as stream:
        async for event in stream:
            events.append(event)
        final = await stream.get_final_response()
    (item,) = final.output
    assert item.type == "function_call"
    assert (item.name, item.status, final.status) == ("weather", "completed", "completed")
    _check(item.arguments)
    kinds = [event.type for event in events]
    deltas = [e.delta for e in events if e.type == "response.function_call_arguments.delta"]
    assert "".join(deltas) == item.arguments
    assert len(deltas) > 3
    assert kinds.index("response.output_item.added") < kinds.index(
        "response.function_call_arguments.delta"
    )
    assert kinds[-2:] == ["response.output_item.done", "response.completed"]
    back: Any = [
        {"role": "user", "content": "Weather?"},
        {"type": "function_call", "call_id": item.call_id, "name": "weather", "arguments": "{}"},
        {"type": "function_call_output", "call_id": item.call_id, "output": "rainy"},
    ]
    again = await client.responses.create(
        model=_MODEL, input=back, tools=tools, max_output_tokens=4
    )
    assert again.usage is not None
    assert final.usage is not None
    assert again.usage.input_tokens > final.usage.input_tokens + 10


async def test_parameters_that_cannot_be_kept_strictly_are_refused_by_name(
    client: openai.AsyncOpenAI,
) -> None:
    odd = {"type": "object", "properties": {"a": {"type": "string", "format": "int32"}}}
    tools: Any = [
        {"type": "function", "function": {"name": "f", "parameters": odd, "strict": True}}
    ]
    with pytest.raises(openai.BadRequestError) as refused:
        await client.chat.completions.create(model=_MODEL, messages=_ASKED, tools=tools)
    assert (refused.value.code, refused.value.param) == ("invalid_value", "tools")


async def test_several_calls_of_one_answer_are_several(mistral: openai.AsyncOpenAI) -> None:
    """A model that never ends makes as many as an answer may have."""
    asked: Any = {
        "model": _MODEL, "messages": _ASKED, "tool_choice": "required", "logit_bias": _NO_END,
        "tools": [{**_NOW, "function": {**_NOW["function"], "strict": True}}],
    }  # fmt: skip
    async with mistral.chat.completions.stream(**asked) as stream:
        final = (await stream.get_final_completion()).choices[0]
    calls = final.message.tool_calls or []
    assert [(call.function.name, call.function.arguments) for call in calls] == [("now", "{}")] * 16
    assert len({call.id for call in calls}) == 16
    assert final.finish_reason == "tool_calls"
    whole = (await mistral.chat.completions.create(**asked)).choices[0]
    assert len(whole.message.tool_calls or ()) == 16
    alone = await mistral.chat.completions.create(**asked, parallel_tool_calls=False)
    assert len(alone.choices[0].message.tool_calls or ()) == 1
    response = await mistral.responses.create(
        model=_MODEL, input="?", tool_choice="required", parallel_tool_calls=False,
        tools=[{"type": "function", "name": "now", "parameters": None, "strict": False}],
    )  # fmt: skip
    assert [item.type for item in response.output] == ["function_call"]
