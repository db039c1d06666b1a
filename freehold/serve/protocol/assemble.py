"""Chunks put together again, for clients that did not ask for a stream."""

from typing import Any

from freehold.serve.protocol.shape import reads_engine, text_of


class Assembler:
    """Takes chat and completion chunks of any number of choices, in order."""

    def __init__(self) -> None:
        self._choices: dict[int, dict[str, Any]] = {}

    @reads_engine
    def add(self, chunks: list[dict[str, Any]]) -> None:
        for chunk in chunks:
            for part in chunk["choices"]:
                index = part.get("index", 0)
                choice = self._choices.setdefault(index, {"index": index, "texts": []})
                self._add_part(choice, part)

    def whole(self) -> dict[str, Any]:
        return {"choices": [_finished(self._choices[index]) for index in sorted(self._choices)]}

    def _add_part(self, choice: dict[str, Any], part: dict[str, Any]) -> None:
        if part.get("finish_reason"):
            choice["finish_reason"] = part["finish_reason"]
        if part.get("logprobs"):
            _add_logprobs(choice.setdefault("logprobs", {}), part["logprobs"])
        delta = part.get("delta")
        if delta is None:
            choice["texts"].append(text_of(part.get("text")))
            choice["is_text"] = True
            return
        choice["texts"].append(text_of(delta.get("content")))
        if delta.get("refusal"):
            choice["refusal"] = choice.get("refusal", "") + text_of(delta["refusal"])
        for call in delta.get("tool_calls") or ():
            add_tool_call(choice.setdefault("tool_calls", {}), call)


def add_tool_call(calls: dict[int, dict[str, Any]], delta: dict[str, Any]) -> dict[str, Any]:
    """Merges one delta into the calls by index; returns the call as it is now."""
    index = delta.get("index", 0)
    call = calls.setdefault(
        index, {"id": "", "type": "function", "function": {"name": "", "arguments": ""}}
    )
    call["id"] = text_of(delta.get("id")) or call["id"]
    function = delta.get("function") or {}
    call["function"]["name"] = text_of(function.get("name")) or call["function"]["name"]
    call["function"]["arguments"] += text_of(function.get("arguments"))
    return call


def _add_logprobs(there: dict[str, Any], logprobs: dict[str, Any]) -> None:
    for name, value in logprobs.items():
        if isinstance(value, list):
            there.setdefault(name, []).extend(value)


def _finished(choice: dict[str, Any]) -> dict[str, Any]:
    text = "".join(choice.pop("texts"))
    calls, refusal = choice.pop("tool_calls", None), choice.pop("refusal", None)
    if choice.pop("is_text", False):
        return {**choice, "text": text}
    has_text = bool(text) or not (calls or refusal)
    message: dict[str, Any] = {"role": "assistant", "content": text if has_text else None}
    if refusal:
        message["refusal"] = refusal
    if calls:
        message["tool_calls"] = [calls[index] for index in sorted(calls)]
    return {**choice, "message": message}
