"""Chat completions and completions, as OpenAI shapes them."""

from typing import Any

import orjson

from freehold.serve.meter import Meter
from freehold.serve.shape import usage_of

_DELTA = ("role", "content", "refusal", "tool_calls")
_MESSAGE = ("role", "content", "refusal", "tool_calls", "annotations", "audio")
_LOGPROB = ("token", "logprob", "bytes")


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

    def chunk(self, chunks: list[dict[str, Any]]) -> bytes:
        parts: list[bytes] = []
        for chunk in chunks:
            choices = chunk["choices"]
            if not choices:
                continue
            shaped = {**self._head, "choices": [self._stream_choice(entry) for entry in choices]}
            if self._include_usage:
                shaped["usage"] = None
            parts += (b"data: ", orjson.dumps(shaped), b"\n\n")
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

    def whole(self, content: dict[str, Any], meter: Meter) -> dict[str, Any]:
        return {
            **self._head,
            "object": self._whole_object,
            "choices": [self._whole_choice(choice) for choice in content.get("choices", ())],
            "usage": usage_of(meter, self._shows_cached),
        }

    def _stream_choice(self, choice: dict[str, Any]) -> dict[str, Any]:
        delta = choice.get("delta") or {}
        shaped: dict[str, Any] = {
            "index": choice.get("index", 0),
            "delta": {name: delta[name] for name in _DELTA if name in delta},
            "finish_reason": choice.get("finish_reason"),
        }
        if choice.get("logprobs"):
            shaped["logprobs"] = clean_logprobs(choice["logprobs"])
        return shaped

    def _whole_choice(self, choice: dict[str, Any]) -> dict[str, Any]:
        message = choice.get("message") or {}
        shaped = {name: message[name] for name in _MESSAGE if message.get(name) is not None}
        shaped.setdefault("role", "assistant")
        shaped.setdefault("content", None)
        shaped.setdefault("refusal", None)
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
        return {
            "index": choice.get("index", 0),
            "text": choice.get("text") or "",
            "logprobs": choice.get("logprobs"),
            "finish_reason": choice.get("finish_reason"),
        }

    def _whole_choice(self, choice: dict[str, Any]) -> dict[str, Any]:
        return self._stream_choice(choice)


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
