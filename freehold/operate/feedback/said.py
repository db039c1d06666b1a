"""What was said in a request, out of what is kept of it, as training reads it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from freehold.core.engine import CHAT, COMPLETIONS
from freehold.core.errors import UserError
from freehold.serve.protocol.assemble import Assembler
from freehold.serve.protocol.bodies import RESPONSES
from freehold.serve.protocol.responses_body import to_chat

Message = dict[str, Any]
_ENDED = ("stop", "tool_calls")


class Unusable(Exception):
    """Why nothing can be learned from it, as it is counted."""


@dataclass(frozen=True, slots=True)
class Said:
    """`answer` is None where it did not come to its end."""

    prompt: Sequence[Message]
    tools: Sequence[Any]
    answer: Message | None


def said_in(endpoint: str, kept: Mapping[str, Any]) -> Said:
    """`kept` is what `serve/content.py` keeps. Raises `Unusable`."""
    if kept["cut"]:
        raise Unusable("too long: what is kept of it is cut")
    try:
        asked = orjson.loads(kept["asked"])
        if endpoint == CHAT:
            return Said(asked["messages"], asked.get("tools") or (), _answer(kept["answered"]))
        if endpoint == COMPLETIONS:
            prompt = [{"role": "user", "content": asked["prompt"]}]
            return Said(prompt, (), _answer(kept["answered"]))
        if endpoint == RESPONSES:
            chat = to_chat(asked)
            return Said(chat["messages"], chat.get("tools") or (), _response(kept["answered"]))
    except (UserError, ValueError, KeyError, TypeError, AttributeError):
        raise Unusable("not in a form that can be read") from None
    raise Unusable("neither a conversation nor a text")


def _answer(text: str) -> Message | None:
    if text.startswith("data:"):
        assembler = Assembler()
        for event in _events(text):
            assembler.add([event])
        choices = assembler.whole()["choices"]
    else:
        choices = orjson.loads(text)["choices"]
    if len(choices) > 1:
        raise Unusable("several answers were asked for")
    if not choices or choices[0].get("finish_reason") not in _ENDED:
        return None
    message = choices[0].get("message") or {"content": choices[0]["text"]}
    return _message(message.get("content"), message.get("tool_calls"))


def _response(text: str) -> Message | None:
    if text.startswith(("data:", "event:")):
        ends = [each["response"] for each in _events(text) if each["type"] == "response.completed"]
        if not ends:
            return None
        response = ends[-1]
    else:
        response = orjson.loads(text)
    if response["status"] != "completed":
        return None
    texts, calls = [], []
    for item in response["output"]:
        if item["type"] == "message":
            texts += [part["text"] for part in item["content"] if part["type"] == "output_text"]
        elif item["type"] == "function_call":
            function = {"name": item["name"], "arguments": item["arguments"]}
            calls.append({"id": item["call_id"], "type": "function", "function": function})
    return _message("".join(texts), calls)


def _message(content: str | None, calls: Sequence[Any] | None) -> Message:
    return {
        "role": "assistant",
        "content": content,
        **({"tool_calls": list(calls)} if calls else {}),
    }


def _events(text: str) -> list[dict[str, Any]]:
    lines = (line.removeprefix("data:").strip() for line in text.split("\n") if line[:5] == "data:")
    return [orjson.loads(line) for line in lines if line != "[DONE]"]
