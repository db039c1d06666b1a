"""What `EngineClient` and `Answer` promise about calls, on every engine."""

import asyncio
from contextlib import AsyncExitStack
from typing import Any

import psutil
import pytest

from freehold.core.engine import CHAT, COMPLETIONS
from freehold.core.errors import Code, UserError
from tests.contract.effects import BASE, tool
from tests.contract.entry import Entry, Promise, Running

pytestmark = pytest.mark.asyncio(loop_scope="session")
_ENDPOINTS = pytest.mark.parametrize("endpoint", [CHAT, COMPLETIONS])
_PATIENCE_S = 60
_SOON_S = 1.5  # of a processor; the answers that are left would take many more


@_ENDPOINTS
async def test_a_stream_holds_text_one_reason_and_the_usage_at_its_end(
    running: Running, endpoint: str
) -> None:
    call = running.call(endpoint, {**BASE[endpoint], "max_tokens": 8})
    chunks: list[dict[str, Any]] = []
    async with running.client.stream(call) as answer:
        while (found := await answer.read()) is not None:
            assert found
            chunks += found
        assert await answer.read() is None
    *before, last = chunks
    usage = last["usage"]
    assert not any(chunk.get("usage") for chunk in before)
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
    assert usage["completion_tokens"] == 8
    parts = [part for chunk in chunks for part in chunk["choices"]]
    assert [part["finish_reason"] for part in parts if part.get("finish_reason")] == ["length"]
    texts = [
        part["text"] if endpoint == COMPLETIONS else part["delta"].get("content") for part in parts
    ]
    assert sum(bool(text) for text in texts) > 1


@_ENDPOINTS
async def test_each_chunk_names_the_weights_that_are_loaded_whatever_was_asked_for(
    entry: Entry, running: Running, endpoint: str
) -> None:
    if Promise.IDENTITY in entry.cannot:
        asked = running.model  # an upstream serves what it is asked for
        expected = {asked}
    else:
        asked = "sha256:" + "0" * 64
        expected = {running.model}
    call = running.call(endpoint, {**BASE[endpoint], "max_tokens": 2})
    names = set()
    async with running.client.stream(type(call)(endpoint, asked, call.body, "req")) as answer:
        while (chunks := await answer.read()) is not None:
            names |= {chunk["model"] for chunk in chunks}
    assert names == expected


@_ENDPOINTS
async def test_a_whole_answer_is_the_streamed_one(running: Running, endpoint: str) -> None:
    body = {**BASE[endpoint], "max_tokens": 8, "temperature": 0}
    said = await running.ask(endpoint, **body)
    whole = await running.client.whole(running.call(endpoint, body))
    assert _plain(whole["choices"]) == _plain(said.choices)
    assert _counts(whole["usage"]) == _counts(said.usage)


async def test_a_whole_answer_calls_tools_as_a_streamed_one_does(running: Running) -> None:
    body = {
        **BASE[CHAT], "tools": [tool("get_weather")], "tool_choice": "required",
        "temperature": 0, "max_tokens": 60,
    }  # fmt: skip
    said = await running.ask(CHAT, **body)
    whole = await running.client.whole(running.call(CHAT, body))
    assert _plain(whole["choices"]) == _plain(said.choices)
    assert _counts(whole["usage"]) == _counts(said.usage)


def _counts(usage: dict[str, Any]) -> dict[str, Any]:
    """Without what was found again of an earlier call."""
    return {name: count for name, count in usage.items() if name != "prompt_tokens_details"}


def _plain(choices: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
    found = []
    for choice in choices:
        message = choice.get("message") or {}
        calls = [call["function"] for call in message.get("tool_calls") or ()]
        text = choice.get("text") or message.get("content") or ""
        found.append((choice["finish_reason"], text, calls))
    return found


@pytest.mark.parametrize("way", ["left", "cancelled"])
async def test_leaving_early_frees_the_engine_at_once(
    entry: Entry, running: Running, way: str
) -> None:
    places = running.capabilities.concurrency
    begun = asyncio.Event()
    count = 0

    async def listen() -> None:
        nonlocal count
        async with running.client.stream(running.call(CHAT, running.endless)) as answer:
            for _ in range(3):
                assert await answer.read() is not None
            count += 1
            if count == places:
                begun.set()
            await (begun.wait() if way == "left" else asyncio.Event().wait())

    listening = [asyncio.create_task(listen()) for _ in range(places)]
    async with asyncio.timeout(_PATIENCE_S):
        await begun.wait()
    if way == "cancelled":
        assert not all([await entry.is_idle(running) for _ in range(5)])
        for task in listening:
            task.cancel()
    ended = await asyncio.gather(*listening, return_exceptions=True)
    assert all(result is None or isinstance(result, asyncio.CancelledError) for result in ended)
    before = entry.worked_s(running)
    async with asyncio.timeout(_PATIENCE_S):
        while not await entry.is_idle(running):
            pass
    assert entry.worked_s(running) - before < _SOON_S


async def test_as_many_calls_as_it_says_run_side_by_side(running: Running) -> None:
    async with asyncio.timeout(_PATIENCE_S), AsyncExitStack() as stack:
        answers = [
            await stack.enter_async_context(
                running.client.stream(running.call(CHAT, running.endless))
            )
            for _ in range(running.capabilities.concurrency)
        ]
        for _ in range(3):
            assert all([await answer.read() for answer in answers])


async def test_many_calls_at_once_get_each_its_own_answer(entry: Entry, running: Running) -> None:
    numbers = range(1000, 1000 + 2 * running.capabilities.concurrency)
    owns = [entry.own(number) for number in numbers]
    said = await asyncio.gather(*(running.ask(CHAT, **body) for body, _ in owns))
    assert ["".join(one.text.split()) for one in said] == [
        "".join(expected.split()) for _, expected in owns
    ]


async def test_calls_leave_no_connections_behind(running: Running) -> None:
    async def leave() -> None:
        async with running.client.stream(running.call(CHAT, running.endless)) as answer:
            await answer.read()

    async def round_of_calls() -> None:
        for _ in range(3):
            await leave()
            await running.ask(CHAT, **BASE[CHAT], max_tokens=1)
            await running.client.whole(running.call(CHAT, {**BASE[CHAT], "max_tokens": 1}))

    await round_of_calls()
    before = _open_sockets()
    await round_of_calls()
    assert _open_sockets() <= before


def _open_sockets() -> int:
    return len(psutil.Process().net_connections(kind="all"))


@_ENDPOINTS
async def test_a_prompt_that_is_too_long_is_refused_as_such(
    running: Running, endpoint: str
) -> None:
    assert running.capabilities.context_length
    text = "word " * (running.capabilities.context_length + 1)
    long = {"prompt": text} if endpoint == COMPLETIONS else {"messages": [_user(text)]}
    for refused in (
        running.ask(endpoint, **long),
        running.client.whole(running.call(endpoint, long)),
    ):
        with pytest.raises(UserError) as caught:
            await refused
        assert caught.value.code is Code.CONTEXT_LENGTH_EXCEEDED


async def test_a_prompt_without_text_is_answered_or_refused_and_the_engine_lives(
    running: Running,
) -> None:
    code = None
    try:
        await running.ask(COMPLETIONS, prompt="", max_tokens=1)
    except UserError as refused:
        code = refused.code
    assert code in (None, Code.INVALID_VALUE)
    assert (await running.ask(COMPLETIONS, prompt="a", max_tokens=1)).chunks


async def test_a_refusal_is_the_caller_s_mistake_and_quotes_nothing(
    entry: Entry, running: Running
) -> None:
    schema = {"type": "canary4711"}
    form = {"type": "json_schema", "json_schema": {"name": "own", "schema": schema}}
    body = {**BASE[CHAT], "response_format": form}
    if Promise.REFUSES in entry.cannot:
        assert (await running.ask(CHAT, **body)).text
        return
    for refused in (running.ask(CHAT, **body), running.client.whole(running.call(CHAT, body))):
        with pytest.raises(UserError) as caught:
            await refused
        assert caught.value.code is Code.INVALID_VALUE
        assert "canary" not in caught.value.message


@pytest.mark.parametrize(
    ("endpoint", "body"),
    [
        (COMPLETIONS, {"prompt": "One two three"}),
        (COMPLETIONS, {"prompt": "ünïcödé 🎉 漢字\n\n"}),
        (CHAT, BASE[CHAT]),
        (CHAT, {"messages": [{"role": "system", "content": "Be short."}, *BASE[CHAT]["messages"]]}),
        (CHAT, {**BASE[CHAT], "tools": [tool("get_weather")]}),
        (CHAT, {**BASE[CHAT], "tools": [tool("get_weather")], "tool_choice": "required"}),
        (CHAT, {**BASE[CHAT], "tools": [tool("get_weather")], "tool_choice": "none"}),
        (CHAT, {**BASE[CHAT], "response_format": {"type": "json_object"}}),
    ],
)
async def test_a_prompt_is_counted_as_the_engine_bills_it(
    entry: Entry, running: Running, endpoint: str, body: dict[str, Any]
) -> None:
    count = await running.client.count_prompt_tokens(running.call(endpoint, body))
    if Promise.COUNT in entry.cannot:
        assert count is None
    else:
        assert count == (await running.ask(endpoint, **body, max_tokens=1)).usage["prompt_tokens"]


async def test_no_answer_comes_out_of_another_request_s_cache(
    entry: Entry, running: Running
) -> None:
    """A, B, A: the second A is read and answered like the first."""
    one, two = ({"messages": [_user(f"Tell of {what} " * 12)]} for what in ("Rome", "Oslo"))
    said = [
        await running.ask(CHAT, **body, temperature=0, max_tokens=8)
        for body in (one, two, one, one)
    ]
    cached = [answer.usage["prompt_tokens_details"]["cached_tokens"] for answer in said]
    if Promise.KEEPS_NOTHING in entry.cannot:
        assert cached[3] > 0
        # What is kept was computed in other parts, and near ties may fall.
        assert all("Oslo" not in said[each].text for each in (0, 2, 3))
    else:
        assert cached == [0, 0, 0, 0]
        assert said[0].text == said[2].text == said[3].text
    assert _counts(said[0].usage) == _counts(said[2].usage) == _counts(said[3].usage)


async def test_text_that_may_begin_a_stop_sequence_comes_when_the_answer_ends_first(
    entry: Entry, running: Running
) -> None:
    plain = await running.ask(COMPLETIONS, **BASE[COMPLETIONS], temperature=0, max_tokens=4)
    stop = plain.text[-4:] + "never said"
    held = await running.ask(
        COMPLETIONS, **BASE[COMPLETIONS], temperature=0, max_tokens=4, stop=stop
    )
    assert held.reason == plain.reason == "length"
    if Promise.HELD_TEXT in entry.cannot and "stop" not in entry.without_effect:
        assert plain.text.startswith(held.text)
        assert held.text != plain.text
    else:
        assert held.text == plain.text


async def test_a_probe_succeeds_while_the_engine_lives(running: Running) -> None:
    await running.client.probe()


async def test_nothing_on_the_socket_is_told_as_such(entry: Entry) -> None:
    client = entry.nobody()
    running = Running(client, None, "m", psutil.Process(), {})  # type: ignore[arg-type]
    call = running.call(CHAT, BASE[CHAT])
    for asked in (running.ask(CHAT, **BASE[CHAT]), client.whole(call)):
        with pytest.raises(UserError) as caught:
            await asked
        assert caught.value.code is Code.ENGINE_UNAVAILABLE
        assert caught.value.retry_after_s
    if Promise.PROBE in entry.cannot:
        await client.probe()
    else:
        with pytest.raises(UserError) as caught:
            await client.probe()
        assert caught.value.code is Code.ENGINE_UNAVAILABLE
    await client.close()


def _user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}
