"""One example in the canonical form, from any of the forms that people have.

Chat: `{"messages": [...], "tools": [...]?}`, ended by the assistant. Preference:
`{"prompt": [messages], "chosen": [messages], "rejected": [messages], "tools": [...]?}`.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from freehold.core.dataset import DatasetKind

_ROLES = {"developer": "system"} | {each: each for each in ("system", "user", "assistant", "tool")}
_FIELDS = ("role", "content", "name", "tool_calls", "tool_call_id", "weight")
_WORD = re.compile(r"[\u0e00-\u0e7f\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]|\w+")
Message = dict[str, Any]


class Malformed(Exception):
    """Why this is no example, to follow `Line 7: `."""


@dataclass(frozen=True, slots=True)
class Example:
    kind: DatasetKind
    prompt: tuple[Message, ...]
    answers: tuple[tuple[Message, ...], ...]  # one; of a pair, what is chosen comes first
    tools: tuple[Any, ...] = ()

    @property
    def plain(self) -> dict[str, Any]:
        """In the canonical form."""
        tools = {"tools": list(self.tools)} if self.tools else {}
        if self.kind is DatasetKind.CHAT:
            return {"messages": [*self.prompt, *self.answers[0]], **tools}
        chosen, rejected = self.answers
        return {
            "prompt": list(self.prompt), "chosen": list(chosen), "rejected": list(rejected),
            **tools,
        }  # fmt: skip

    @property
    def line(self) -> bytes:
        return json.dumps(self.plain, ensure_ascii=False, separators=(",", ":")).encode()

    @property
    def question(self) -> str:
        """What is asked, without the instructions that examples share."""
        return "\n".join(text_of(each) for each in self.prompt if each["role"] != "system")

    @property
    def answer(self) -> str:
        return "\n".join(text_of(each) for each in self.answers[0])

    @property
    def is_learned(self) -> bool:
        """Whether any answer in it is; a weight of 0 keeps one from it."""
        turns = (*self.prompt, *self.answers[0])
        return any(each["role"] == "assistant" and each.get("weight", 1) for each in turns)

    @property
    def opening(self) -> str:
        """The first question and what was said to it: equal in parts of one conversation."""
        turns = [each for each in (*self.prompt, *self.answers[0]) if each["role"] != "system"]
        return "\n".join(text_of(each) for each in turns[:2])


def text_of(message: Message) -> str:
    calls = [
        f"{call['function']['name']} {call['function']['arguments']}"
        for call in message.get("tool_calls", ())
    ]
    return "\n".join([message.get("content") or "", *calls]).strip()


def words(text: str) -> list[str]:
    """In lower case; scripts without spaces count by character."""
    return _WORD.findall(text.lower())


def texts(value: Any) -> Iterator[str]:
    """Every string in it, but for names of fields."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for each in value.values():
            yield from texts(each)
    elif isinstance(value, list | tuple):
        for each in value:
            yield from texts(each)


def read(given: Any, kind: DatasetKind | None = None) -> Example:
    """Raises `Malformed`, also for another kind than the one that is wanted."""
    if not isinstance(given, dict):
        raise Malformed("holds no JSON object: write one example a line")
    found = _kind_of(given)
    if kind is not None and found is not kind:
        raise Malformed(
            f"is a {found} example among {kind} ones: keep the two kinds in files of their own"
        )
    if found is DatasetKind.PREFERENCE:
        return _preference(given)
    return _chat(given)


def _kind_of(given: dict[str, Any]) -> DatasetKind:
    if "preferred_output" in given or ("chosen" in given and "rejected" in given):
        return DatasetKind.PREFERENCE
    if "messages" in given or {"prompt", "completion"} <= given.keys():
        return DatasetKind.CHAT
    names = ", ".join(sorted(str(each) for each in given)[:6])[:80] or "no fields"
    raise Malformed(
        f"has {names}: a chat example has `messages`, a preference pair has `prompt`, `chosen` "
        "and `rejected` (or OpenAI's `input`, `preferred_output`, `non_preferred_output`)"
    )


def _chat(given: dict[str, Any]) -> Example:
    if "messages" in given:
        messages = _messages(given["messages"], "messages")
    else:
        messages = _as_messages(given["prompt"], "prompt", "user")
        messages += _as_messages(given["completion"], "completion", "assistant")
    if messages[-1]["role"] != "assistant":
        raise Malformed(
            f"ends with a message of the {messages[-1]['role']}: it must end with the answer of "
            "the assistant"
        )
    if not any(each["role"] == "user" for each in messages):
        raise Malformed("has no message of a user: there is nothing to answer")
    _check_answer(messages[-1:], "the answer of the assistant")
    return Example(
        DatasetKind.CHAT, tuple(messages[:-1]), (tuple(messages[-1:]),), _tools(given.get("tools"))
    )


def _preference(given: dict[str, Any]) -> Example:
    if "preferred_output" in given:
        inner = given.get("input")
        if not isinstance(inner, dict) or "messages" not in inner:
            raise Malformed("has no `input.messages`: OpenAI's preference format asks for them")
        prompt = _messages(inner["messages"], "input.messages")
        tools = _tools(inner.get("tools"))
        good, bad = "preferred_output", "non_preferred_output"
    else:
        prompt = _as_messages(given["prompt"], "prompt", "user") if "prompt" in given else []
        tools = _tools(given.get("tools"))
        good, bad = "chosen", "rejected"
    chosen = _as_messages(given[good], good, "assistant")
    rejected = _as_messages(given.get(bad), bad, "assistant")
    prompt, chosen, rejected = _apart(prompt, chosen, rejected)
    for name, answer in ((good, chosen), (bad, rejected)):
        if not answer or answer[-1]["role"] != "assistant":
            raise Malformed(f"has a `{name}` that does not end with an answer of the assistant")
        _check_answer(answer[-1:], f"`{name}`")
    if not any(each["role"] == "user" for each in prompt):
        raise Malformed("has no message of a user in its prompt: there is nothing to answer")
    if chosen == rejected:
        raise Malformed("prefers an answer to the same answer: leave it out")
    return Example(DatasetKind.PREFERENCE, tuple(prompt), (tuple(chosen), tuple(rejected)), tools)


def _apart(
    prompt: list[Message], chosen: list[Message], rejected: list[Message]
) -> tuple[list[Message], list[Message], list[Message]]:
    """Some write the whole conversation into both answers."""
    shared = 0
    while shared < min(len(chosen), len(rejected)) - 1 and chosen[shared] == rejected[shared]:
        shared += 1
    if not shared:
        return prompt, chosen, rejected
    if not prompt or chosen[:shared] == prompt:
        return chosen[:shared], chosen[shared:], rejected[shared:]
    return prompt + chosen[:shared], chosen[shared:], rejected[shared:]


def _as_messages(given: Any, name: str, role: str) -> list[Message]:
    if isinstance(given, str):
        return _messages([{"role": role, "content": given}], name)
    if isinstance(given, dict):
        given = [given]
    return _messages(given, name)


def _messages(given: Any, name: str) -> list[Message]:
    if not isinstance(given, Sequence) or isinstance(given, str) or not given:
        raise Malformed(f"has no messages in `{name}`")
    return [_message(each, f"{name}[{place}]") for place, each in enumerate(given)]


def _message(given: Any, name: str) -> Message:
    if not isinstance(given, dict):
        raise Malformed(f"has a `{name}` that is no object with a role and a content")
    role = _ROLES.get(str(given.get("role")))
    if role is None:
        raise Malformed(
            f"has a `{name}.role` that is none of system, developer, user, assistant and tool"
        )
    calls = _calls(given.get("tool_calls"), name)
    content = _content(given.get("content"), name)
    if content is None and not calls:
        raise Malformed(f"has a `{name}` without content")
    if given.get("function_call") is not None:
        raise Malformed(f"has a `{name}.function_call`: write it as `tool_calls`")
    message: Message = {"role": role, "content": content}
    for field in ("name", "tool_call_id"):
        if isinstance(given.get(field), str):
            message[field] = given[field]
    if calls:
        message["tool_calls"] = calls
    if given.get("weight") is not None:
        if given["weight"] not in (0, 1) or role != "assistant":
            raise Malformed(f"has a `{name}.weight` that is not 0 or 1 on an assistant's message")
        message["weight"] = int(given["weight"])
    return message


def _content(given: Any, name: str) -> str | None:
    if given is None or isinstance(given, str):
        return given
    if isinstance(given, list | tuple):
        parts = [
            each.get("text") if isinstance(each, dict) and each.get("type") == "text" else None
            for each in given
        ]
        if all(isinstance(each, str) for each in parts):
            return "".join(str(each) for each in parts)
        raise Malformed(f"has a `{name}.content` with parts that are no text")
    raise Malformed(f"has a `{name}.content` that is no text")


def _calls(given: Any, name: str) -> list[dict[str, Any]]:
    if given is None:
        return []
    calls: list[dict[str, Any]] = []
    for each in given if isinstance(given, list | tuple) else [{}]:
        function = each.get("function") if isinstance(each, dict) else None
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            raise Malformed(f"has a `{name}.tool_calls` that is not in OpenAI's form")
        arguments = function.get("arguments", "{}")
        if not isinstance(arguments, str):
            arguments = json.dumps(arguments, ensure_ascii=False)
        calls.append(
            {
                "id": str(each.get("id") or f"call_{len(calls)}"),
                "type": "function",
                "function": {"name": function["name"], "arguments": arguments},
            }
        )
    return calls


def _tools(given: Any) -> tuple[Any, ...]:
    if not given:
        return ()
    if not isinstance(given, list | tuple) or not all(isinstance(each, dict) for each in given):
        raise Malformed("has `tools` that are no list of objects")
    return tuple(given)


def _check_answer(messages: list[Message], name: str) -> None:
    if not any(text_of(each) for each in messages):
        raise Malformed(f"has nothing in {name}")


def dropped(given: dict[str, Any]) -> Iterator[str]:
    """The fields of messages that are not kept."""
    for each in given.get("messages", ()):
        if isinstance(each, dict):
            yield from (name for name in each if name not in _FIELDS and each[name] is not None)
