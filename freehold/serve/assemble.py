"""Chunks put together again, for clients that did not ask for a stream."""

from typing import Any


class Assembler:
    """Takes chat and completion chunks of any number of choices, in order."""

    def __init__(self) -> None:
        self._choices: dict[int, dict[str, Any]] = {}

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
        _add_logprobs(choice, part.get("logprobs"))
        delta = part.get("delta")
        if delta is None:
            choice["texts"].append(part.get("text") or "")
            choice["is_text"] = True
            return
        if delta.get("content"):
            choice["texts"].append(delta["content"])
        for call in delta.get("tool_calls") or ():
            add_tool_call(choice.setdefault("tool_calls", {}), call)


def add_tool_call(calls: dict[int, dict[str, Any]], delta: dict[str, Any]) -> dict[str, Any]:
    """Merges one delta into the calls by index; returns the call as it is now."""
    index = delta.get("index", 0)
    call = calls.setdefault(
        index, {"id": "", "type": "function", "function": {"name": "", "arguments": ""}}
    )
    call["id"] = delta.get("id") or call["id"]
    function = delta.get("function") or {}
    call["function"]["name"] = function.get("name") or call["function"]["name"]
    call["function"]["arguments"] += function.get("arguments") or ""
    return call


def _add_logprobs(choice: dict[str, Any], logprobs: dict[str, Any] | None) -> None:
    if not logprobs:
        return
    there = choice.get("logprobs")
    if there is None:
        choice["logprobs"] = {**logprobs}
        return
    for name, value in logprobs.items():
        if isinstance(value, list):
            there[name] = (there.get(name) or []) + value


def _finished(choice: dict[str, Any]) -> dict[str, Any]:
    text = "".join(choice.pop("texts"))
    calls = choice.pop("tool_calls", None)
    if choice.pop("is_text", False):
        return {**choice, "text": text}
    message: dict[str, Any] = {"role": "assistant", "content": text if text or not calls else None}
    if calls:
        message["tool_calls"] = [calls[index] for index in sorted(calls)]
    return {**choice, "message": message}
