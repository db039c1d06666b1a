"""Chat completions and completions, as OpenAI shapes them."""

from typing import Any

import orjson

from freehold.serve.protocol.meter import Meter
from freehold.serve.protocol.shape import reads_engine, text_of, usage_of

_DELTA = ("role", "content", "refusal")
_MESSAGE = ("annotations", "audio")
_LOGPROB = ("token", "logprob", "bytes")
_TEXT_LOGPROBS = ("text_offset", "token_logprobs", "tokens", "top_logprobs")


class ChatShaper:
    _chunk_object = "chat.completion.chunk"
    _whole_object = "chat.completion"

    def __init__(
        self, answer_id: str, model: str, created: int, include_usage: bool, shows_cached: bool
    ) -> None:
        self._head = {
            "id": answer_id,
            "object": self._chunk_object,
            "created": created,
            "model": model,
        }
        self._include_usage = include_usage
        self._shows_cached = shows_cached
        # What every chunk begins and ends with, written once.
        self._before = b"data: " + orjson.dumps(self._head)[:-1] + b',"choices":'
        self._after = b',"usage":null}\n\n' if include_usage else b"}\n\n"

    @reads_engine
    def chunk(self, chunks: list[dict[str, Any]]) -> bytes:
        parts: list[bytes] = []
        for chunk in chunks:
            choices = chunk["choices"]
            if choices:
                shaped = orjson.dumps([self._stream_choice(entry) for entry in choices])
                parts += (self._before, shaped, self._after)
        return b"".join(parts)

    def end(self, meter: Meter) -> bytes:
        done = b"data: [DONE]\n\n"
        if not self._include_usage:
            return done
        usage = usage_of(meter, self._shows_cached)
        return (
            b"data: " + orjson.dumps({**self._head, "choices": [], "usage": usage}) + b"\n\n" + done
        )

    def error(self, body: dict[str, Any]) -> bytes:
        return b"data: " + orjson.dumps(body) + b"\n\n"

    @reads_engine
    def whole(self, content: dict[str, Any], meter: Meter) -> dict[str, Any]:
        choices = [self._whole_choice(choice) for choice in content["choices"]]
        if not choices:
            raise ValueError("no choices")
        return {
            **self._head,
            "object": self._whole_object,
            "choices": choices,
            "usage": usage_of(meter, self._shows_cached),
        }

    def _stream_choice(self, choice: dict[str, Any]) -> dict[str, Any]:
        delta = choice.get("delta") or {}
        shaped: dict[str, Any] = {name: delta[name] for name in _DELTA if name in delta}
        if delta.get("tool_calls"):
            shaped["tool_calls"] = [_call_delta(call) for call in delta["tool_calls"]]
        logprobs = choice.get("logprobs")
        return {
            "index": choice.get("index", 0),
            "delta": shaped,
            "logprobs": clean_logprobs(logprobs) if logprobs else None,
            "finish_reason": choice.get("finish_reason"),
        }

    def _whole_choice(self, choice: dict[str, Any]) -> dict[str, Any]:
        message = choice["message"]
        shaped: dict[str, Any] = {
            "role": "assistant",
            "content": None if message.get("content") is None else text_of(message["content"]),
            "refusal": text_of(message.get("refusal")) or None,
        }
        shaped |= {name: message[name] for name in _MESSAGE if message.get(name) is not None}
        if message.get("tool_calls"):
            shaped["tool_calls"] = [whole_call(call) for call in message["tool_calls"]]
        logprobs = choice.get("logprobs")
        return {
            "index": choice.get("index", 0),
            "message": shaped,
            "logprobs": clean_logprobs(logprobs) if logprobs else None,
            "finish_reason": choice.get("finish_reason") or "stop",
        }


class CompletionShaper(ChatShaper):
    _chunk_object = "text_completion"
    _whole_object = "text_completion"

    def _stream_choice(self, choice: dict[str, Any]) -> dict[str, Any]:
        logprobs = choice.get("logprobs")
        return {
            "index": choice.get("index", 0),
            "text": text_of(choice.get("text")),
            "logprobs": {name: logprobs.get(name) for name in _TEXT_LOGPROBS} if logprobs else None,
            "finish_reason": choice.get("finish_reason"),
        }

    def _whole_choice(self, choice: dict[str, Any]) -> dict[str, Any]:
        shaped = self._stream_choice(choice)
        shaped["finish_reason"] = shaped["finish_reason"] or "stop"
        return shaped


def whole_call(call: dict[str, Any]) -> dict[str, Any]:
    function = call["function"]
    named = {name: text_of(function.get(name)) for name in ("name", "arguments")}
    return {"id": text_of(call.get("id")), "type": "function", "function": named}


def _call_delta(call: dict[str, Any]) -> dict[str, Any]:
    shaped: dict[str, Any] = {name: call[name] for name in ("index", "id", "type") if name in call}
    function = call.get("function")
    if function:
        names = ("name", "arguments")
        shaped["function"] = {name: function[name] for name in names if name in function}
    return shaped


def clean_logprobs(logprobs: dict[str, Any]) -> dict[str, Any]:
    """OpenAI's fields only; engines add token numbers of their own."""
    content = logprobs.get("content")
    if not isinstance(content, list):
        return {"content": None, "refusal": None}
    return {"content": [_logprob(entry) for entry in content], "refusal": None}


def _logprob(entry: dict[str, Any]) -> dict[str, Any]:
    shaped = {name: entry.get(name) for name in _LOGPROB}
    shaped["top_logprobs"] = [
        {name: top.get(name) for name in _LOGPROB} for top in entry.get("top_logprobs") or ()
    ]
    return shaped
