"""Tools for models whose chat template has no place for them, or writes calls in a form
that is not known here.

Tools are rendered only through the template; where that ignores them they would
be dropped in silence. Here they are described in a system message, the answer is
constrained by a JSON schema to be a call (or, when the model may choose, a call or a
reply), and the JSON is turned back into OpenAI's deltas while it arrives.
"""

import json
import re
import secrets
from typing import Any

import orjson

from freehold.core.errors import Code, UserError

_TOOL_FIELDS = ("tools", "tool_choice", "parallel_tool_calls")
_REPLY = re.compile(r'\s*\{\s*"reply"\s*:\s*"')


def needs_help(body: dict[str, Any], template_reads_tools: bool) -> bool:
    return bool(body.get("tools")) and not template_reads_tools


def constrained(body: dict[str, Any]) -> dict[str, Any]:
    """The same request without tools, its answer constrained by a schema. Raises
    `UNSUPPORTED_PARAMETER` where the answer would need two."""
    choice = body.get("tool_choice", "auto")
    plain = {name: value for name, value in body.items() if name not in _TOOL_FIELDS}
    plain["messages"] = with_history_as_text(body["messages"])
    if choice == "none":
        return plain
    tools = body["tools"]
    if isinstance(choice, dict):
        name = choice["function"]["name"]
        tools = [tool for tool in tools if tool["function"]["name"] == name]
    may_reply = choice == "auto"
    if may_reply and body.get("response_format", {"type": "text"})["type"] != "text":
        raise no_choice_beside_a_form()
    plain["messages"] = _with_tools(plain["messages"], tools, may_reply)
    plain["response_format"] = {
        "type": "json_schema",
        "json_schema": {
            "name": "answer",
            "schema": _schema(tools, may_reply),
            "strict": any(tool["function"].get("strict") for tool in tools),
        },
    }
    return plain


def no_choice_beside_a_form() -> UserError:
    return UserError(
        Code.UNSUPPORTED_PARAMETER,
        "This model cannot choose between tools and a response_format: leave one of them "
        "out, or say with tool_choice whether to call.",
        param="response_format",
    )


def is_constrained(body: dict[str, Any]) -> bool:
    return bool(body.get("tool_choice", "auto") != "none")


def _schema(tools: list[dict[str, Any]], may_reply: bool) -> dict[str, Any]:
    branches = [
        {
            "type": "object",
            "properties": {
                "name": {"const": tool["function"]["name"]},
                "arguments": _arguments(tool["function"]),
            },
            "required": ["name", "arguments"],
            "additionalProperties": False,
        }
        for tool in tools
    ]
    if may_reply:
        reply = {
            "type": "object",
            "properties": {"reply": {"type": "string"}},
            "required": ["reply"],
            "additionalProperties": False,
        }
        branches = [reply, *branches]
    whole = branches[0] if len(branches) == 1 else {"anyOf": branches}
    defined = {
        tool["function"]["name"]: _rebased(parameters, tool["function"]["name"])
        for tool in tools
        if _refers(parameters := tool["function"].get("parameters"))
    }
    return {**whole, "$defs": defined} if defined else whole


def _arguments(function: dict[str, Any]) -> dict[str, Any]:
    """References in a tool's parameters mean these, not the schema that they become a part
    of: such parameters are put where references can follow."""
    parameters = function.get("parameters") or {"type": "object"}
    if _refers(parameters):
        return {"$ref": f"#/$defs/{function['name']}"}
    return closed(parameters)


def _refers(value: Any) -> bool:
    if isinstance(value, dict):
        return isinstance(value.get("$ref"), str) or any(map(_refers, value.values()))
    return isinstance(value, list) and any(map(_refers, value))


def _rebased(parameters: dict[str, Any], name: str) -> dict[str, Any]:
    def moved(value: Any) -> Any:
        if isinstance(value, list):
            return [moved(each) for each in value]
        if not isinstance(value, dict):
            return value
        found = {key: moved(each) for key, each in value.items()}
        target = found.get("$ref")
        if isinstance(target, str) and target.startswith("#"):
            found["$ref"] = f"#/$defs/{name}{target[1:]}"
        return found

    rebased: dict[str, Any] = moved(closed(parameters))
    return rebased


def closed(parameters: dict[str, Any]) -> dict[str, Any]:
    """Without further properties, unless the tool says otherwise: a small model goes on
    inventing. One that is put together of others would be left with none."""
    is_joined = any(name in parameters for name in ("$ref", "allOf", "anyOf", "oneOf"))
    return parameters if is_joined else {"additionalProperties": False, **parameters}


def _with_tools(
    messages: list[dict[str, Any]], tools: list[dict[str, Any]], may_reply: bool
) -> list[dict[str, Any]]:
    listed = "\n".join(json.dumps(tool["function"]) for tool in tools)
    how = 'Call one of these functions by answering {"name": ..., "arguments": {...}}.'
    if may_reply:
        how += ' When none fits, answer {"reply": "your answer"}.'
    text = f"{how}\nFunctions:\n{listed}"
    first, *rest = messages
    if first["role"] == "system":
        return [{**first, "content": f"{first['content']}\n\n{text}"}, *rest]
    return [{"role": "system", "content": text}, *messages]


def with_history_as_text(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Earlier calls and their results, in roles that every template knows."""
    told: list[dict[str, Any]] = []
    for message in messages:
        if message.get("tool_calls"):
            calls = [
                {
                    "name": call["function"]["name"],
                    "arguments": call["function"]["arguments"],
                }
                for call in message["tool_calls"]
            ]
            told.append({"role": "assistant", "content": json.dumps(calls)})
        elif message["role"] == "tool":
            told.append({"role": "user", "content": f"Result of the call: {message['content']}"})
        else:
            told.append(message)
    return told


class CallReader:
    """Turns the constrained JSON, chunk by chunk, back into deltas. A reply streams
    as it comes; a call is passed on when it is whole."""

    def __init__(self) -> None:
        self._raw = ""
        self._sent = 0

    def chunk(self, chunk: dict[str, Any]) -> dict[str, Any]:
        for choice in chunk["choices"]:
            delta = choice.get("delta") or {}
            text = delta.pop("content", None)
            if text:
                self._raw += text
                piece = self._reply_so_far()[self._sent :]
                if piece:
                    self._sent += len(piece)
                    delta["content"] = piece
            if choice.get("finish_reason"):
                self._finish(choice, delta)
            choice["delta"] = delta
        return chunk

    def _reply_so_far(self) -> str:
        """What can be read already of `{"reply": "…`; an escape or a surrogate pair
        that is cut in two waits for its other half."""
        begun = _REPLY.match(self._raw)
        if begun is None:
            return ""
        text = self._raw[begun.end() :]
        for cut in range(len(text), max(len(text) - 13, -1), -1):
            try:
                found: str = orjson.loads(b'"' + text[:cut].encode() + b'"')
                return found
            except (orjson.JSONDecodeError, UnicodeEncodeError):
                closing = _closing_quote(text)
                if closing is not None and closing < cut:
                    text = text[:closing]
                    done: str = orjson.loads(b'"' + text.encode() + b'"')
                    return done
        return ""

    def _finish(self, choice: dict[str, Any], delta: dict[str, Any]) -> None:
        if choice["finish_reason"] != "stop":
            return
        try:
            call = orjson.loads(self._raw)
        except orjson.JSONDecodeError:
            return
        if isinstance(call, dict) and "name" in call:
            arguments = orjson.dumps(call.get("arguments") or {}).decode()
            delta["tool_calls"] = [
                {
                    "index": 0,
                    "id": f"call_{secrets.token_hex(12)}",
                    "type": "function",
                    "function": {"name": call["name"], "arguments": arguments},
                }
            ]
            choice["finish_reason"] = "tool_calls"


def _closing_quote(text: str) -> int | None:
    escaped = False
    for place, character in enumerate(text):
        if escaped:
            escaped = False
        elif character == "\\":
            escaped = True
        elif character == '"':
            return place
    return None
