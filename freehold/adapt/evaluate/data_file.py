"""Examples from data in the form that models are trained with, one JSON object a line: the last
assistant message is the expected answer, and what comes before it is asked."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from freehold.adapt.evaluate.example import Call, Example
from freehold.core.errors import Code, UserError

_MOST_BYTES = 1 << 30
_MOST_LINE = 16 << 20
_ROLES = {"system", "developer", "user", "assistant", "tool"}


def read_data(path: Path, most: int | None = None) -> Iterator[Example]:
    """The first `most`. Raises `UserError(FILE_INVALID)` with the line."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            if size > _MOST_BYTES:
                raise _refused(path, None, "is larger than a GiB: evaluate a part of it")
            yield from _examples(path, file, most)
    except OSError as error:
        raise _refused(
            path, None, f"cannot be read ({error.strerror}): name a file that can"
        ) from None


def _examples(path: Path, file: Any, most: int | None) -> Iterator[Example]:
    made, number = 0, 0
    while (most is None or made < most) and (line := file.readline(_MOST_LINE + 1)):
        number += 1
        if len(line) > _MOST_LINE:
            raise _refused(path, number, "is longer than 16 MiB, which is no example")
        if line.strip():
            made += 1
            yield _example(path, number, line)
    if not made:
        raise _refused(path, None, "holds no example: it is empty")


def _example(path: Path, number: int, line: bytes) -> Example:
    try:
        content = json.loads(line.decode("utf-8-sig"))
    except UnicodeDecodeError:
        raise _refused(path, number, "is not UTF-8: write the file anew in that encoding") from None
    except (ValueError, RecursionError):
        raise _refused(path, number, "is no JSON: write one object a line") from None
    if not isinstance(content, dict):
        raise _refused(path, number, "is no object with `messages`")
    try:
        return _of_chat(number, content) if "messages" in content else _of_pair(number, content)
    except ValueError as why:
        raise _refused(path, number, str(why)) from None


def _of_chat(number: int, content: Mapping[str, Any]) -> Example:
    messages = checked_messages(content["messages"])
    last = messages[-1]
    if last["role"] != "assistant":
        raise ValueError("ends with no assistant message, which is the expected answer")
    return example(f"line {number}", messages[:-1], last, content.get("tools") or ())


def _of_pair(number: int, content: Mapping[str, Any]) -> Example:
    if not {"prompt", "chosen"} <= content.keys():
        raise ValueError("has neither `messages` nor `prompt` with `chosen`")
    prompt, chosen = checked_messages(content["prompt"]), checked_messages(content["chosen"])
    return example(f"line {number}", [*prompt, *chosen[:-1]], chosen[-1], ())


def checked_messages(messages: Any) -> list[dict[str, Any]]:
    """Raises `ValueError` with why they are none."""
    if not isinstance(messages, list) or not messages:
        raise ValueError("`messages` is no list of messages")
    for message in messages:
        if not isinstance(message, dict) or message.get("role") not in _ROLES:
            raise ValueError(f"a message has no role of {', '.join(sorted(_ROLES))}")
        if not isinstance(message.get("content"), str) and not message.get("tool_calls"):
            raise ValueError("a message's `content` is no text")
    return messages


def example(
    name: str, asked: list[dict[str, Any]], answer: Mapping[str, Any], tools: Any
) -> Example:
    """Raises `ValueError` where nothing is asked or expected."""
    if not any(message["role"] == "user" for message in asked):
        raise ValueError("no message of the user comes before the expected answer")
    if not isinstance(tools, list | tuple) or not all(isinstance(each, dict) for each in tools):
        raise ValueError("`tools` is no list of tools")
    text, calls = answer.get("content") or "", tuple(_calls(answer.get("tool_calls") or ()))
    if not text and not calls:
        raise ValueError("the expected answer is empty")
    return Example(name, tuple(asked), text or None, calls, tuple(tools))


def _calls(given: Any) -> Iterator[Call]:
    for each in given if isinstance(given, list | tuple) else [None]:
        function = each.get("function") if isinstance(each, dict) else None
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            raise ValueError("a call in `tool_calls` has no function with a name")
        yield Call(function["name"], str(function.get("arguments") or "{}"))


def _refused(path: Path, line: int | None, why: str) -> UserError:
    place = str(path) if line is None else f"{path}, line {line}"
    return UserError(Code.FILE_INVALID, f"{place} {why}.")
