"""What each field of a request does, said as something that can be seen in the answer."""

import json
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from freehold.core.engine import CHAT, COMPLETIONS
from tests.contract.engines.llama_cpp import CITY
from tests.contract.entry import Running, Said, text_of

Effect = Callable[[Running, str], Awaitable[None]]

PROMPT = "Once upon a time"
BASE: Mapping[str, dict[str, Any]] = {
    CHAT: {"messages": [{"role": "user", "content": "What is the weather in Paris?"}]},
    COMPLETIONS: {"prompt": PROMPT},
}
PERSON = {
    "type": "object",
    "properties": {"name": {"type": "string", "maxLength": 8}, "age": {"const": 5}},
    "required": ["name", "age"],
    "additionalProperties": False,
}


def tool(name: str) -> dict[str, Any]:
    parameters = {
        "type": "object",
        "properties": {"city": {"enum": ["Paris", "Rome"]}},
        "required": ["city"],
    }
    return {"type": "function", "function": {"name": name, "parameters": parameters}}


# A value of each field that asks for more than what happens anyway.
SAMPLES: Mapping[str, Any] = {
    "audio": {"voice": "alloy", "format": "wav"},
    "best_of": 2,
    "echo": True,
    "frequency_penalty": 1.5,
    "function_call": "auto",
    "functions": [{"name": "f"}],
    "logit_bias": {CITY: 100},
    "logprobs": {CHAT: True, COMPLETIONS: 2},
    "max_completion_tokens": 3,
    "max_tokens": 3,
    "messages": [{"role": "user", "content": "Count to ten."}],
    "modalities": ["text", "audio"],
    "moderation": {"model": "omni"},
    "n": 2,
    "parallel_tool_calls": False,
    "prediction": {"type": "content", "content": "It"},
    "presence_penalty": 1.5,
    "prompt": "The capital of France is",
    "prompt_cache_options": {"mode": "explicit"},
    "prompt_cache_retention": "24h",
    "reasoning_effort": "high",
    "response_format": {"type": "json_object"},
    "seed": 7,
    "service_tier": "flex",
    "stop": ["e"],
    "store": True,
    "suffix": "The end.",
    "temperature": 0.7,
    "tool_choice": "required",
    "tools": [tool("get_weather")],
    "top_logprobs": 3,
    "top_p": 0.5,
    "verbosity": "high",
    "web_search_options": {"search_context_size": "low"},
}


def sample(endpoint: str, name: str) -> dict[str, Any]:
    """A body that has the field, and what the field cannot be without."""
    value = SAMPLES[name]
    fields: dict[str, Any] = {name: value[endpoint] if name == "logprobs" else value}
    if name == "top_logprobs":
        fields["logprobs"] = True
    if name == "tool_choice":
        fields["tools"] = SAMPLES["tools"]
    return {**BASE[endpoint], **fields}


async def _greedy(running: Running, endpoint: str, **fields: Any) -> Said:
    body = {**BASE[endpoint], "max_tokens": 12, "temperature": 0, **fields}
    return await running.ask(endpoint, **body)


async def _texts(running: Running, endpoint: str, **fields: Any) -> set[str]:
    """The answers under three seeds."""
    said = [await _greedy(running, endpoint, seed=seed, **fields) for seed in (1, 2, 3)]
    return {one.text for one in said}


async def _prompt_is_read(running: Running, endpoint: str) -> None:
    name = "messages" if endpoint == CHAT else "prompt"
    other = await _greedy(running, endpoint, **{name: SAMPLES[name]})
    assert other.text != (await _greedy(running, endpoint)).text


async def _tokens_are_limited(running: Running, endpoint: str, name: str = "max_tokens") -> None:
    said = await running.ask(endpoint, **BASE[endpoint], **{name: 3})
    assert (said.usage["completion_tokens"], said.reason) == (3, "length")


async def _completion_tokens_are_limited(running: Running, endpoint: str) -> None:
    await _tokens_are_limited(running, endpoint, "max_completion_tokens")


async def _answer_stops(running: Running, endpoint: str) -> None:
    plain = (await _greedy(running, endpoint)).text
    end = _late_part(plain)
    for stop in (end, [end], ["never said", end]):
        said = await _greedy(running, endpoint, stop=stop)
        assert (said.text, said.reason) == (plain[: plain.index(end)], "stop")


def _late_part(text: str) -> str:
    """Three characters that come in the second half first, a token's end or not."""
    parts = (text[place : place + 3] for place in range(len(text) // 2, len(text) - 3))
    return next(part for part in parts if text.index(part) >= len(text) // 2)


async def _seed_decides(running: Running, endpoint: str) -> None:
    first = [await _greedy(running, endpoint, temperature=1.5, seed=1) for _ in range(2)]
    assert first[0].text == first[1].text
    assert len(await _texts(running, endpoint, temperature=1.5)) > 1


async def _temperature_decides(running: Running, endpoint: str) -> None:
    assert len(await _texts(running, endpoint, temperature=0)) == 1
    assert len(await _texts(running, endpoint, temperature=1.5)) > 1


async def _top_p_narrows(running: Running, endpoint: str) -> None:
    assert len(await _texts(running, endpoint, temperature=1.5, top_p=1)) > 1
    narrow = await _texts(running, endpoint, temperature=1.5, top_p=1e-6)
    assert narrow == await _texts(running, endpoint)


async def _repetition_costs(running: Running, endpoint: str, name: str) -> None:
    """A penalty makes an answer of more different pieces than a reward does."""
    pieces = []
    for penalty in (-2, 2):
        text = (await _greedy(running, endpoint, max_tokens=32, **{name: penalty})).text
        pieces.append(len({text[place : place + 4] for place in range(len(text))}) / len(text))
    assert pieces[0] < pieces[1]


async def _frequency_costs(running: Running, endpoint: str) -> None:
    await _repetition_costs(running, endpoint, "frequency_penalty")


async def _presence_costs(running: Running, endpoint: str) -> None:
    await _repetition_costs(running, endpoint, "presence_penalty")


async def _tokens_are_favoured(running: Running, endpoint: str) -> None:
    said = await _greedy(running, endpoint, max_tokens=3, logit_bias={CITY: 100})
    assert said.text == " city city city"
    plain = await _greedy(running, endpoint, max_tokens=3, logit_bias={CITY: 100, "1": -100})
    assert plain.text == said.text
    both = await _greedy(running, endpoint, max_tokens=3, logit_bias={CITY: -100})
    assert "city" not in both.text


async def _chat_logprobs(running: Running, endpoint: str, count: int | None = None) -> None:
    fields = {} if count is None else {"top_logprobs": count}
    said = await _greedy(running, endpoint, logprobs=True, **fields)
    entries = said.choices[0]["logprobs"]["content"]
    assert len(entries) == said.usage["completion_tokens"]
    assert "".join(entry["token"] for entry in entries) == said.text
    for entry in entries:
        assert entry["logprob"] <= 0
        assert bytes(entry["bytes"]).decode() == entry["token"]
        assert len(entry["top_logprobs"]) == (count or 0)
        if count:
            best = entry["top_logprobs"][0]
            assert (best["token"], best["logprob"]) == (entry["token"], entry["logprob"])


async def _chat_alternatives(running: Running, endpoint: str) -> None:
    for count in (0, 1, 3):
        await _chat_logprobs(running, endpoint, count)


async def _text_logprobs(running: Running, endpoint: str) -> None:
    plain = await _greedy(running, endpoint)
    stopped, emoji = {"stop": _late_part(plain.text)}, {"prompt": "🎉 🎉 🎉 🎉 🎉 🎉"}
    for count, changed in ((0, {}), (3, {}), (1, emoji), (3, stopped)):
        said = await _greedy(running, endpoint, logprobs=count, **changed)
        lists = said.choices[0]["logprobs"]
        tokens, start = lists["tokens"], len(changed.get("prompt", PROMPT))
        pieces = [_bytes_of(token) for token in tokens]
        assert b"".join(pieces).decode(errors="replace") == said.text
        if not changed:
            assert len(tokens) == said.usage["completion_tokens"]
        for place, token in enumerate(tokens):
            likeliest = lists["top_logprobs"][place]
            assert lists["token_logprobs"][place] == likeliest[token] == max(likeliest.values())
            assert len(likeliest) == max(count, 1)
            before = b"".join(pieces[:place]).decode(errors="ignore")
            assert lists["text_offset"][place] == start + len(before)


def _bytes_of(token: str) -> bytes:
    """OpenAI writes a part of a character as `bytes:\\xf0\\x9f`."""
    if not token.startswith("bytes:"):
        return token.encode()
    return bytes.fromhex(token.removeprefix("bytes:").replace("\\x", ""))


async def _form_is_kept(running: Running, endpoint: str) -> None:
    schema = {"type": "json_schema", "json_schema": {"name": "person", "schema": PERSON}}
    said = await _greedy(running, endpoint, max_tokens=60, response_format=schema)
    person = json.loads(said.text)
    assert (set(person), person["age"]) == ({"name", "age"}, 5)
    loose = await _greedy(running, endpoint, response_format={"type": "json_object"})
    assert loose.text.lstrip().startswith("{")
    plain = await _greedy(running, endpoint, response_format={"type": "text"})
    assert plain.text == (await _greedy(running, endpoint)).text


async def _called(running: Running, *names: str, **fields: Any) -> Said:
    tools = [tool(name) for name in names]
    return await _greedy(running, CHAT, max_tokens=60, tools=tools, **fields)


async def _tools_are_told(running: Running, endpoint: str) -> None:
    plain = await _greedy(running, endpoint)
    said = await _called(running, "get_weather")
    assert said.usage["prompt_tokens"] > plain.usage["prompt_tokens"] + 10
    assert said.calls or said.text


async def _choice_is_kept(running: Running, endpoint: str) -> None:
    named = {"type": "function", "function": {"name": "get_time"}}
    for choice, expected in (("required", {"get_weather", "get_time"}), (named, {"get_time"})):
        said = await _called(running, "get_weather", "get_time", tool_choice=choice)
        assert said.reason == "tool_calls"
        assert said.calls
        for call in said.calls:
            assert call["name"] in expected
            assert json.loads(call["arguments"])["city"] in ("Paris", "Rome")
    said = await _called(running, "get_weather", tool_choice="none")
    assert said.text
    assert not said.calls


async def _one_call_at_most(running: Running, endpoint: str) -> None:
    said = await _called(
        running, "get_weather", "get_time", tool_choice="required", parallel_tool_calls=False
    )
    assert len(said.calls) == 1


async def _choices_are_made(running: Running, endpoint: str) -> None:
    said = await _greedy(running, endpoint, n=3, temperature=1.5, seed=1)
    assert [choice["index"] for choice in said.choices] == [0, 1, 2]
    assert len({text_of(choice) for choice in said.choices}) > 1


_BOTH: Mapping[str, Effect] = {
    "frequency_penalty": _frequency_costs,
    "logit_bias": _tokens_are_favoured,
    "max_tokens": _tokens_are_limited,
    "n": _choices_are_made,
    "presence_penalty": _presence_costs,
    "seed": _seed_decides,
    "stop": _answer_stops,
    "temperature": _temperature_decides,
    "top_p": _top_p_narrows,
}
EFFECTS: Mapping[str, Mapping[str, Effect]] = {
    CHAT: {
        **_BOTH,
        "logprobs": _chat_logprobs,
        "max_completion_tokens": _completion_tokens_are_limited,
        "messages": _prompt_is_read,
        "parallel_tool_calls": _one_call_at_most,
        "response_format": _form_is_kept,
        "tool_choice": _choice_is_kept,
        "tools": _tools_are_told,
        "top_logprobs": _chat_alternatives,
    },
    COMPLETIONS: {**_BOTH, "logprobs": _text_logprobs, "prompt": _prompt_is_read},
}
