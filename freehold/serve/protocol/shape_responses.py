"""Chat answers in the shape of the Responses API, streamed and whole."""

from typing import Any

import orjson

from freehold.serve.protocol.assemble import add_tool_call
from freehold.serve.protocol.meter import Meter
from freehold.serve.protocol.shape import reads_engine, text_of
from freehold.serve.protocol.shape_chat import clean_logprobs, whole_call

# What a response repeats of its request, and what stands there when the request
# did not say. Sampling values are the engine's to choose then, so they stay null.
_ECHOED: dict[str, Any] = {
    "background": False,
    "instructions": None,
    "max_output_tokens": None,
    "max_tool_calls": None,
    "metadata": {},
    "parallel_tool_calls": True,
    "prompt_cache_key": None,
    "reasoning": {"effort": None, "summary": None},
    "safety_identifier": None,
    "temperature": None,
    "text": {"format": {"type": "text"}},
    "tool_choice": "auto",
    "top_logprobs": 0,
    "top_p": None,
    "truncation": "disabled",
    "user": None,
}
_TOOL = ("type", "name", "description", "parameters", "strict")
# How an answer ended, in chat's words, and why it is then not complete.
_INCOMPLETE = {"length": "max_output_tokens", "content_filter": "content_filter"}


class ResponsesShaper:
    """The stream is a small state machine: message and function call items, each
    opened by its first delta. A message is closed before a call opens; calls, which
    an engine may interleave, are closed at the end."""

    def __init__(
        self, answer_id: str, model: str, created: int, data: dict[str, Any], shows_cached: bool
    ) -> None:
        self._id = f"resp_{answer_id}"
        self._model = model
        self._created = created
        self._echo = {name: data.get(name, default) for name, default in _ECHOED.items()}
        self._echo["tools"] = [
            {name: tool.get(name) for name in _TOOL} for tool in data.get("tools", ())
        ]
        self._shows_cached = shows_cached
        self._sequence = 0
        self._has_begun = False
        self._items: list[dict[str, Any]] = []
        self._message: _OpenMessage | None = None
        self._calls: dict[int, dict[str, Any]] = {}
        self._call_places: dict[int, int] = {}
        self._finish: str | None = None

    # streaming

    @reads_engine
    def chunk(self, chunks: list[dict[str, Any]]) -> bytes:
        parts = self._begin()
        for chunk in chunks:
            for choice in chunk["choices"]:
                self._finish = choice.get("finish_reason") or self._finish
                delta = choice.get("delta") or {}
                if delta.get("content"):
                    text = text_of(delta["content"])
                    parts += self._add_text("output_text", text, _logprobs(choice.get("logprobs")))
                if delta.get("refusal"):
                    parts += self._add_text("refusal", text_of(delta["refusal"]), [])
                for call in delta.get("tool_calls") or ():
                    parts += self._add_call(call)
        return b"".join(parts)

    def end(self, meter: Meter) -> bytes:
        parts = self._begin()
        status = "incomplete" if self._finish in _INCOMPLETE else "completed"
        parts += self._close_message(status)
        for index in self._calls:
            parts += self._close_call(index, status)
        response = self._response(status, self._items, meter)
        return b"".join([*parts, self._event(f"response.{status}", response=response)])

    def error(self, body: dict[str, Any]) -> bytes:
        """OpenAI's flat `error` event; the nested copy is what its SDKs raise on."""
        error = body["error"]
        for item in self._items:
            if item["status"] == "in_progress":
                item["status"] = "incomplete"
        failed = self._response("failed", self._items, None)
        failed["error"] = {"code": "server_error", "message": error["message"]}
        flat = {name: error[name] for name in ("code", "message", "param")}
        return self._event("error", **flat, error=error) + self._event(
            "response.failed", response=failed
        )

    def _begin(self) -> list[bytes]:
        if self._has_begun:
            return []
        self._has_begun = True
        response = self._response("in_progress", [], None)
        names = ("response.created", "response.in_progress")
        return [self._event(name, response=response) for name in names]

    def _add_text(self, kind: str, text: str, entries: list[dict[str, Any]]) -> list[bytes]:
        parts: list[bytes] = []
        message = self._message
        if message is None or message.kind != kind:
            parts += self._close_message("completed")
            message = self._message = self._new_message(kind)
            parts += self._opening(message)
        message.texts.append(text)
        message.logprobs += entries
        fields = {"logprobs": entries} if kind == "output_text" else {}
        parts.append(self._event(f"response.{kind}.delta", **message.at, delta=text, **fields))
        return parts

    def _new_message(self, kind: str) -> "_OpenMessage":
        place = len(self._items)
        item = _message(self._message_id(place), "in_progress", [])
        self._items.append(item)
        return _OpenMessage(kind, item, place)

    def _opening(self, message: "_OpenMessage") -> list[bytes]:
        place = message.at["output_index"]
        added = self._event("response.output_item.added", output_index=place, item=message.item)
        part = _part(message.kind, "", [])
        return [added, self._event("response.content_part.added", **message.at, part=part)]

    def _close_message(self, status: str) -> list[bytes]:
        message, self._message = self._message, None
        if message is None:
            return []
        text = "".join(message.texts)
        part = _part(message.kind, text, message.logprobs)
        message.item |= {"status": status, "content": [part]}
        said = {name: value for name, value in part.items() if name not in ("type", "annotations")}
        place = message.at["output_index"]
        return [
            self._event(f"response.{message.kind}.done", **message.at, **said),
            self._event("response.content_part.done", **message.at, part=part),
            self._event("response.output_item.done", output_index=place, item=message.item),
        ]

    def _add_call(self, delta: dict[str, Any]) -> list[bytes]:
        index = delta.get("index", 0)
        call = add_tool_call(self._calls, delta)
        parts: list[bytes] = []
        if index not in self._call_places:
            parts += self._close_message("completed")
            place = self._call_places[index] = len(self._items)
            item = {**_call_item(self._call_id(place), call, "in_progress"), "arguments": ""}
            self._items.append(item)
            parts.append(self._event("response.output_item.added", output_index=place, item=item))
        place = self._call_places[index]
        item = self._items[place]
        item["arguments"] = call["function"]["arguments"]
        text = text_of((delta.get("function") or {}).get("arguments"))
        if text:
            name = "response.function_call_arguments.delta"
            parts.append(self._event(name, item_id=item["id"], output_index=place, delta=text))
        return parts

    def _close_call(self, index: int, status: str) -> list[bytes]:
        place = self._call_places[index]
        item = self._items[place] = _call_item(self._call_id(place), self._calls[index], status)
        return [
            self._event(
                "response.function_call_arguments.done",
                item_id=item["id"],
                output_index=place,
                name=item["name"],
                arguments=item["arguments"],
            ),
            self._event("response.output_item.done", output_index=place, item=item),
        ]

    def _event(self, kind: str, **fields: Any) -> bytes:
        event = {"type": kind, "sequence_number": self._sequence, **fields}
        self._sequence += 1
        return b"event: " + kind.encode() + b"\ndata: " + orjson.dumps(event) + b"\n\n"

    # whole

    @reads_engine
    def whole(self, content: dict[str, Any], meter: Meter) -> dict[str, Any]:
        choice = content["choices"][0]
        message = choice["message"]
        self._finish = choice.get("finish_reason")
        status = "incomplete" if self._finish in _INCOMPLETE else "completed"
        items: list[dict[str, Any]] = []
        text, refusal = text_of(message.get("content")), text_of(message.get("refusal"))
        if text:
            part = _part("output_text", text, _logprobs(choice.get("logprobs")))
            items.append(_message(self._message_id(0), status, [part]))
        if refusal:
            part = _part("refusal", refusal, [])
            items.append(_message(self._message_id(len(items)), status, [part]))
        for call in message.get("tool_calls") or ():
            items.append(_call_item(self._call_id(len(items)), whole_call(call), status))
        return self._response(status, items, meter)

    def _response(
        self, status: str, items: list[dict[str, Any]], meter: Meter | None
    ) -> dict[str, Any]:
        reason = _INCOMPLETE.get(self._finish or "") if status == "incomplete" else None
        return {
            "id": self._id,
            "object": "response",
            "created_at": self._created,
            "status": status,
            "error": None,
            "incomplete_details": {"reason": reason} if reason else None,
            "model": self._model,
            "output": items,
            "previous_response_id": None,
            "store": False,
            "usage": None if meter is None else self._usage(meter),
            **self._echo,
        }

    def _usage(self, meter: Meter) -> dict[str, Any]:
        cached = meter.tokens_cached if self._shows_cached else 0
        return {
            "input_tokens": meter.tokens_in,
            "input_tokens_details": {"cached_tokens": cached, "cache_write_tokens": 0},
            "output_tokens": meter.tokens_out,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": meter.tokens_in + meter.tokens_out,
        }

    def _message_id(self, place: int) -> str:
        return f"msg_{self._id[5:]}_{place}"

    def _call_id(self, place: int) -> str:
        return f"fc_{self._id[5:]}_{place}"


class _OpenMessage:
    """The message item that text goes to now; `at` is its place in every event."""

    def __init__(self, kind: str, item: dict[str, Any], output_index: int) -> None:
        self.kind = kind
        self.item = item
        self.at = {"item_id": item["id"], "output_index": output_index, "content_index": 0}
        self.texts: list[str] = []
        self.logprobs: list[dict[str, Any]] = []


def _logprobs(logprobs: dict[str, Any] | None) -> list[dict[str, Any]]:
    return (clean_logprobs(logprobs)["content"] or []) if logprobs else []


def _message(item_id: str, status: str, parts: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "id": item_id,
        "type": "message",
        "role": "assistant",
        "status": status,
        "content": parts,
    }


def _part(kind: str, text: str, logprobs: list[dict[str, Any]]) -> dict[str, Any]:
    if kind == "refusal":
        return {"type": kind, "refusal": text}
    return {"type": kind, "text": text, "annotations": [], "logprobs": logprobs}


def _call_item(item_id: str, call: dict[str, Any], status: str) -> dict[str, Any]:
    return {
        "id": item_id,
        "type": "function_call",
        "call_id": call["id"],
        "name": call["function"]["name"],
        "arguments": call["function"]["arguments"],
        "status": status,
    }
