"""The real clients of the field, against the real model."""

import asyncio
import json
import subprocess

import openai
import pydantic
import pytest

from tests.installation import Installation

MODEL = "smollm2-135m-instruct"
QUESTION = [{"role": "user", "content": "What is the weather in Paris?"}]
WEATHER = {
    "name": "get_weather",
    "description": "The weather in a city",
    "parameters": {
        "type": "object",
        "properties": {"city": {"type": "string"}},
        "required": ["city"],
    },
}
TOOLS = [{"type": "function", "function": WEATHER}]


class Person(pydantic.BaseModel):
    name: str
    age: int


@pytest.fixture
def client(installation: Installation) -> openai.OpenAI:
    return openai.OpenAI(
        base_url=f"{installation.url}/v1", api_key=installation.key, max_retries=0, timeout=60
    )


def test_a_greedy_answer_is_the_same_streamed_and_whole(client: openai.OpenAI) -> None:
    fields = {"model": MODEL, "messages": QUESTION, "max_tokens": 24, "temperature": 0}
    whole = client.chat.completions.create(**fields)  # type: ignore[call-overload]
    text, usage = "", None
    stream = client.chat.completions.create(  # type: ignore[call-overload]
        **fields, stream=True, stream_options={"include_usage": True}
    )
    for chunk in stream:
        text += (chunk.choices[0].delta.content or "") if chunk.choices else ""
        usage = chunk.usage or usage
    assert text == whole.choices[0].message.content
    assert whole.usage is not None
    for found in (usage, whole.usage):
        assert found.prompt_tokens == whole.usage.prompt_tokens
        assert found.completion_tokens == 24
        assert found.total_tokens == found.prompt_tokens + 24
    assert whole.choices[0].finish_reason == "length"


def test_sampling_fields_have_their_effect(client: openai.OpenAI) -> None:
    def ask(**fields: object) -> openai.types.chat.ChatCompletion:
        base = {"model": MODEL, "messages": QUESTION, "max_tokens": 16}
        return client.chat.completions.create(**{**base, **fields})  # type: ignore[call-overload,no-any-return]

    def text(**fields: object) -> str:
        return ask(**fields).choices[0].message.content or ""

    assert text(seed=7, temperature=1) == text(seed=7, temperature=1)
    assert text(seed=7, temperature=1) != text(seed=8, temperature=1)
    plain = text(temperature=0)
    word = plain.split()[2]
    assert word not in text(temperature=0, stop=[word])
    assert text(temperature=0, presence_penalty=2, max_tokens=40) != text(
        temperature=0, max_tokens=40
    )
    three = ask(n=3, temperature=1, seed=1)
    assert [choice.index for choice in three.choices] == [0, 1, 2]
    assert len({choice.message.content for choice in three.choices}) > 1
    assert three.usage is not None
    assert three.usage.completion_tokens > 16
    detailed = ask(temperature=0, logprobs=True, top_logprobs=3, max_tokens=4).choices[0].logprobs
    assert detailed is not None
    assert detailed.content is not None
    assert len(detailed.content) == 4
    assert detailed.content[0].logprob == detailed.content[0].top_logprobs[0].logprob
    usage = client.chat.completions.create(  # type: ignore[call-overload]
        model=MODEL, messages=QUESTION, max_completion_tokens=3
    ).usage
    assert usage.completion_tokens == 3


@pytest.mark.parametrize(
    "choice", ["required", {"type": "function", "function": {"name": "get_weather"}}]
)
@pytest.mark.parametrize("streams", [False, True])
def test_tools_are_called(client: openai.OpenAI, choice: object, streams: bool) -> None:
    fields = {
        "model": MODEL, "messages": QUESTION, "tools": TOOLS, "tool_choice": choice,
        "temperature": 0, "max_tokens": 60,
    }  # fmt: skip
    if streams:
        name, arguments, reason = "", "", None
        for chunk in client.chat.completions.create(**fields, stream=True):  # type: ignore[call-overload]
            for call in chunk.choices[0].delta.tool_calls or ():
                name += call.function.name or ""
                arguments += call.function.arguments or ""
            reason = chunk.choices[0].finish_reason or reason
    else:
        choice_made = client.chat.completions.create(**fields).choices[0]  # type: ignore[call-overload]
        call = choice_made.message.tool_calls[0]
        name, arguments, reason = (
            call.function.name, call.function.arguments, choice_made.finish_reason,
        )  # fmt: skip
    assert name == "get_weather"
    assert set(json.loads(arguments)) == {"city"}
    assert reason == "tool_calls"


def test_structured_output_parses(client: openai.OpenAI) -> None:
    messages = [{"role": "user", "content": "Anna is 5 years old. Who is she?"}]
    parsed = client.chat.completions.parse(
        model=MODEL,
        messages=messages,
        response_format=Person,
        max_tokens=60,  # type: ignore[arg-type]
    )
    assert isinstance(parsed.choices[0].message.parsed, Person)
    loose = client.chat.completions.create(
        model=MODEL, messages=messages, max_tokens=80, temperature=0,  # type: ignore[arg-type]
        response_format={"type": "json_object"},
    )  # fmt: skip
    assert (loose.choices[0].message.content or "").lstrip().startswith("{")
    response = client.responses.parse(model=MODEL, input=messages[0]["content"], text_format=Person)
    assert isinstance(response.output_parsed, Person)


def test_the_responses_api_streams_and_calls_tools(client: openai.OpenAI) -> None:
    with client.responses.stream(model=MODEL, input="Say hi", max_output_tokens=12) as stream:
        events = list(stream)
    assert events[0].type == "response.created"
    assert events[-1].type in ("response.completed", "response.incomplete")
    final = events[-1].response
    assert final.output_text
    assert final.usage is not None
    assert final.usage.output_tokens <= 12
    called = client.responses.create(
        model=MODEL, input="Weather in Rome?", tool_choice="required",
        tools=[{"type": "function", "strict": True, **WEATHER}],  # type: ignore[list-item]
    )  # fmt: skip
    assert called.output[0].type == "function_call"


def test_completions_continue_a_text(client: openai.OpenAI) -> None:
    whole = client.completions.create(
        model=MODEL, prompt="Once upon a", max_tokens=8, temperature=0
    )
    parts = client.completions.create(
        model=MODEL, prompt="Once upon a", max_tokens=8, temperature=0, stream=True
    )
    text = "".join(part.choices[0].text for part in parts if part.choices)
    assert text == whole.choices[0].text


def test_completions_tell_the_probabilities_of_their_tokens(client: openai.OpenAI) -> None:
    fields = {
        "model": MODEL, "prompt": "Once upon a", "max_tokens": 6, "temperature": 0, "logprobs": 2,
    }  # fmt: skip
    whole = client.completions.create(**fields).choices[0]  # type: ignore[call-overload]
    assert "".join(whole.logprobs.tokens) == whole.text
    assert whole.logprobs.text_offset[0] == len("Once upon a")
    assert [len(likeliest) for likeliest in whole.logprobs.top_logprobs] == [2] * 6
    parts = client.completions.create(**fields, stream=True)  # type: ignore[call-overload]
    told = [part.choices[0].logprobs for part in parts if part.choices]
    assert [token for one in told if one for token in one.tokens] == whole.logprobs.tokens


def test_sdk_errors_carry_our_codes(client: openai.OpenAI, installation: Installation) -> None:
    with pytest.raises(openai.NotFoundError) as missing:
        client.chat.completions.create(model="gpt-4o", messages=QUESTION)  # type: ignore[arg-type]
    assert missing.value.code == "model_not_found"
    with pytest.raises(openai.BadRequestError) as long:
        client.chat.completions.create(
            model=MODEL, messages=[{"role": "user", "content": "word " * 6000}]
        )
    assert long.value.code == "context_length_exceeded"
    with pytest.raises(openai.BadRequestError) as embeddings:
        client.embeddings.create(model=MODEL, input="x")
    assert embeddings.value.code == "unsupported_endpoint"
    stranger = openai.OpenAI(base_url=f"{installation.url}/v1", api_key="sk-no", max_retries=0)
    with pytest.raises(openai.AuthenticationError) as refused:
        stranger.models.list()
    assert refused.value.code == "invalid_api_key"


async def test_thirty_two_async_streams_at_once(installation: Installation) -> None:
    client = openai.AsyncOpenAI(
        base_url=f"{installation.url}/v1", api_key=installation.key, max_retries=0
    )

    async def one(number: int) -> tuple[int, int]:
        stream = await client.chat.completions.create(
            model=MODEL, max_tokens=12, stream=True, stream_options={"include_usage": True},
            messages=[{"role": "user", "content": f"Count from {number}"}],
        )  # fmt: skip
        seen, billed = 0, 0
        async for chunk in stream:
            seen += sum(bool(choice.delta.content) for choice in chunk.choices)
            billed = chunk.usage.completion_tokens if chunk.usage else billed
        return seen, billed

    for seen, billed in await asyncio.gather(*(one(number) for number in range(32))):
        assert 0 < seen <= billed <= 12
    await client.close()


def test_curl_streams(installation: Installation) -> None:
    body = {"model": MODEL, "messages": QUESTION, "max_tokens": 6, "stream": True}
    ended = subprocess.run(
        [
            "curl", "-sN", f"{installation.url}/v1/chat/completions",
            "-H", f"Authorization: Bearer {installation.key}", "-d", json.dumps(body),
        ],
        capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    assert ended.stdout.rstrip().endswith("data: [DONE]")


@pytest.mark.filterwarnings("ignore")
def test_langchain_chats_streams_and_calls_tools(installation: Installation) -> None:
    from langchain_openai import ChatOpenAI

    chat = ChatOpenAI(
        model=MODEL, base_url=f"{installation.url}/v1", api_key=installation.key,  # type: ignore[arg-type]
        temperature=0, max_tokens=64, max_retries=0,  # type: ignore[call-arg]
    )  # fmt: skip
    assert chat.invoke("Say hi").content
    assert "".join(str(part.content) for part in chat.stream("Say hi"))
    bound = chat.bind_tools(TOOLS, tool_choice="get_weather")
    assert bound.invoke("Weather in Paris?").tool_calls[0]["name"] == "get_weather"
    structured = chat.with_structured_output(Person)
    assert isinstance(structured.invoke("Anna is 5."), Person)


@pytest.mark.filterwarnings("ignore")
async def test_semantic_kernel_chats(installation: Installation) -> None:
    from semantic_kernel.connectors.ai.open_ai import (
        OpenAIChatCompletion,
        OpenAIChatPromptExecutionSettings,
    )
    from semantic_kernel.contents import ChatHistory

    client = openai.AsyncOpenAI(base_url=f"{installation.url}/v1", api_key=installation.key)
    service = OpenAIChatCompletion(ai_model_id=MODEL, async_client=client)
    history = ChatHistory()
    history.add_user_message("Say hi")
    settings = OpenAIChatPromptExecutionSettings(max_tokens=12, temperature=0)
    answer = await service.get_chat_message_content(history, settings)
    assert str(answer)
    parts = [
        str(part) async for parts in service.get_streaming_chat_message_contents(history, settings)
        for part in parts
    ]  # fmt: skip
    assert "".join(parts) == str(answer)
    await client.close()
