"""Chat answers in the shape of the Responses API, streamed and whole."""

from typing import Any

import orjson

from freehold.serve.assemble import add_tool_call
from freehold.serve.meter import Meter
from freehold.serve.shape_chat import clean_logprobs

_ECHOED: dict[str, Any] = {
    "instructions": None,
    "max_output_tokens": None,
    "metadata": {},
    "parallel_tool_calls": True,
    "temperature": 1.0,
    "text": {"format": {"type": "text"}},
    "tool_choice": "auto",
    "tools": [],
    "top_logprobs": 0,
    "top_p": 1.0,
    "truncation": "disabled",
    "user": None,
}


class ResponsesShaper:
    """The stream is a small state machine: at most one message item, then function
    call items, each opened when its first delta comes and closed at the end."""

    def __init__(
        self, answer_id: str, model: str, created: int, data: dict[str, Any], shows_cached: bool
    ) -> None:
        self._id = f"resp_{answer_id}"
        self._model = model
        self._created = created
        self._echo = {name: data.get(name, default) for name, default in _ECHOED.items()}
        self._shows_cached = shows_cached
        self._sequence = 0
        self._has_begun = False
        self._text: list[str] = []
        self._logprobs: list[dict[str, Any]] = []
        self._items: list[dict[str, Any]] = []
        self._message: dict[str, Any] | None = None
        self._calls: dict[int, dict[str, Any]] = {}
        self._call_items: dict[int, dict[str, Any]] = {}
        self._finish: str | None = None

    # streaming

    def chunk(self, chunks: list[dict[str, Any]]) -> bytes:
        parts: list[bytes] = []
        if not self._has_begun:
            self._has_begun = True
            for name in ("response.created", "response.in_progress"):
                parts.append(self._event(name, response=self._response("in_progress", [], None)))
        for chunk in chunks:
            for choice in chunk["choices"]:
                self._finish = choice.get("finish_reason") or self._finish
                delta = choice.get("delta") or {}
                if delta.get("content"):
                    parts += self._add_text(delta["content"], choice.get("logprobs"))
                for call in delta.get("tool_calls") or ():
                    parts += self._add_call(call)
        return b"".join(parts)

    def end(self, meter: Meter) -> bytes:
        parts = [self.chunk([]), *self._close_items()]
        status = "incomplete" if self._finish == "length" else "completed"
        response = self._response(status, self._items, meter)
        return b"".join([*parts, self._event(f"response.{status}", response=response)])

    def error(self, body: dict[str, Any]) -> bytes:
        error = body["error"]
        failed = self._response("failed", self._items, None)
        failed["error"] = {"code": "server_error", "message": error["message"]}
        told = self._event(
            "error", code=error["code"], message=error["message"], param=error["param"]
        )
        return told + self._event("response.failed", response=failed)

    def _add_text(self, text: str, logprobs: dict[str, Any] | None) -> list[bytes]:
        parts = [] if self._message is not None else self._open_message()
        self._text.append(text)
        entries = (clean_logprobs(logprobs)["content"] or []) if logprobs else []
        self._logprobs += entries
        parts.append(
            self._event(
                "response.output_text.delta",
                **self._place(self._message or {}),
                content_index=0,
                delta=text,
                logprobs=entries,
            )
        )
        return parts

    def _open_message(self) -> list[bytes]:
        self._message = _message(f"msg_{self._id[5:]}", "in_progress", [])
        self._items.append(self._message)
        empty = {"type": "output_text", "text": "", "annotations": [], "logprobs": []}
        place = self._place(self._message)
        return [
            self._event(
                "response.output_item.added",
                output_index=place["output_index"],
                item=self._message,
            ),
            self._event("response.content_part.added", **place, content_index=0, part=empty),
        ]

    def _add_call(self, delta: dict[str, Any]) -> list[bytes]:
        index = delta.get("index", 0)
        call = add_tool_call(self._calls, delta)
        parts = []
        item = self._call_items.get(index)
        if item is None:
            item = _call_item(f"fc_{self._id[5:]}_{index}", call, "in_progress")
            self._call_items[index] = item
            self._items.append(item)
            shown = {**item, "arguments": ""}
            place = self._place(item)
            parts.append(
                self._event(
                    "response.output_item.added", output_index=place["output_index"], item=shown
                )
            )
        item["arguments"] = call["function"]["arguments"]
        text = (delta.get("function") or {}).get("arguments")
        if text:
            parts.append(
                self._event(
                    "response.function_call_arguments.delta", **self._place(item), delta=text
                )
            )
        return parts

    def _close_items(self) -> list[bytes]:
        parts = []
        for item in self._items:
            place = self._place(item)
            item["status"] = "completed"
            if item["type"] == "message":
                text = "".join(self._text)
                part = _text_part(text, self._logprobs)
                item["content"] = [part]
                parts.append(
                    self._event(
                        "response.output_text.done",
                        **place,
                        content_index=0,
                        text=text,
                        logprobs=self._logprobs,
                    )
                )
                parts.append(
                    self._event("response.content_part.done", **place, content_index=0, part=part)
                )
            else:
                parts.append(
                    self._event(
                        "response.function_call_arguments.done",
                        **place,
                        name=item["name"],
                        arguments=item["arguments"],
                    )
                )
            parts.append(
                self._event(
                    "response.output_item.done", output_index=place["output_index"], item=item
                )
            )
        return parts

    def _place(self, item: dict[str, Any]) -> dict[str, Any]:
        return {"item_id": item["id"], "output_index": self._items.index(item)}

    def _event(self, kind: str, **fields: Any) -> bytes:
        event = {"type": kind, "sequence_number": self._sequence, **fields}
        self._sequence += 1
        return b"event: " + kind.encode() + b"\ndata: " + orjson.dumps(event) + b"\n\n"

    # whole

    def whole(self, content: dict[str, Any], meter: Meter) -> dict[str, Any]:
        choice = content["choices"][0]
        message = choice.get("message") or {}
        items: list[dict[str, Any]] = []
        text = message.get("content")
        if text:
            logprobs = clean_logprobs(choice.get("logprobs") or {})["content"] or []
            parts = [_text_part(text, logprobs)]
            items.append(_message(f"msg_{self._id[5:]}", "completed", parts))
        for index, call in enumerate(message.get("tool_calls") or ()):
            items.append(_call_item(f"fc_{self._id[5:]}_{index}", call, "completed"))
        status = "incomplete" if choice.get("finish_reason") == "length" else "completed"
        return self._response(status, items, meter)

    def _response(
        self, status: str, items: list[dict[str, Any]], meter: Meter | None
    ) -> dict[str, Any]:
        reason = {"reason": "max_output_tokens"} if status == "incomplete" else None
        return {
            "id": self._id,
            "object": "response",
            "created_at": self._created,
            "status": status,
            "error": None,
            "incomplete_details": reason,
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


def _message(item_id: str, status: str, parts: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "id": item_id,
        "type": "message",
        "role": "assistant",
        "status": status,
        "content": parts,
    }


def _text_part(text: str, logprobs: list[dict[str, Any]]) -> dict[str, Any]:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": logprobs}


def _call_item(item_id: str, call: dict[str, Any], status: str) -> dict[str, Any]:
    return {
        "id": item_id,
        "type": "function_call",
        "call_id": call["id"],
        "name": call["function"]["name"],
        "arguments": call["function"]["arguments"],
        "status": status,
    }
