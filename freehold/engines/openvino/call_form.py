"""How a model writes calls of functions in its own words, found out from its template.

The template is rendered with an example of tools and calls, as llama.cpp does it. Known
are the forms of Hermes (Qwen 2.5 and 3 write it too), Llama 3.1 and 3.2, and Mistral. A
template that shows no tools, or writes calls otherwise, has none: `tool_calls.py` helps.
"""

import re
from dataclasses import dataclass
from typing import Any

from freehold.core.errors import UserError
from freehold.engines.openvino.template import ChatTemplate, Message

_TELLS = "tells-7f3a"
_NAMES = ("look_7f3a", "find_7f3a")
_ARGUMENTS = '{"at": 1}'
_OBJECT = r'\{"name": "look_7f3a", "arguments": \{"at": 1\}'
_SPACE = r"(\s{0,4})"
_HERMES = re.compile(rf"<tool_call>{_SPACE}{_OBJECT}\}}{_SPACE}</tool_call>")
_HERMES_NEXT = re.compile(rf"</tool_call>{_SPACE}<tool_call>")
_MISTRAL = re.compile(rf"\[TOOL_CALLS\]{_SPACE}\[{_OBJECT}")
_MISTRAL_NAMED = re.compile(r'\[TOOL_CALLS\]look_7f3a\[ARGS\]\{"at": 1\}')
_LLAMA = re.compile(r'\{"name": "look_7f3a", "parameters": \{"at": 1\}\}')

_HERMES_MARKERS = (
    "<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>", "<tools>", "</tools>",
)  # fmt: skip
_MISTRAL_MARKERS = (
    "[TOOL_CALLS]", "[AVAILABLE_TOOLS]", "[/AVAILABLE_TOOLS]", "[TOOL_RESULTS]",
    "[/TOOL_RESULTS]", "[TOOL_CONTENT]", "[ARGS]", "[CALL_ID]",
)  # fmt: skip
_PYTHON = "<|python_tag|>"


@dataclass(frozen=True, slots=True)
class CallForm:
    """An answer that calls is `opener`, `lead`, a call, as often as it likes `between` and
    another, `end`. A call is one of `heads`, the function's name, `neck`, arguments, `after`.
    Without an opener only an answer that begins with a head calls, perhaps behind the
    control token `silent`; without `between` one answer calls once. What of `markers` is a
    token of its own in the vocabulary is nothing that anybody may write but the model."""

    opener: str
    lead: str
    heads: tuple[str, ...]
    neck: str
    after: str
    between: str | None
    end: str
    markers: tuple[str, ...]
    silent: str | None = None


def form_of(template: ChatTemplate) -> CallForm | None:
    one = _example(template, 1)
    if one is None or _TELLS not in one:
        return None
    two = _example(template, 2)
    several = two is not None and all(name in two for name in _NAMES)
    return _hermes(one, two if several else None) or _mistral(one, several) or _llama(one)


def _hermes(one: str, two: str | None) -> CallForm | None:
    found = _HERMES.search(one)
    if found is None:
        return None
    lead, tail = found.groups()
    opener, closer = "<tool_call>", f"{tail}</tool_call>"
    gap = _HERMES_NEXT.search(two) if two else None
    return CallForm(
        opener=opener,
        lead="",
        heads=(f'{lead}{{"name": "',),
        neck='", "arguments": ',
        after="}",
        between=f"{closer}{gap[1]}{opener}" if gap else None,
        end=closer,
        markers=_HERMES_MARKERS,
    )


def _mistral(one: str, several: bool) -> CallForm | None:
    if _MISTRAL_NAMED.search(one):
        opener = "[TOOL_CALLS]"
        between = opener if several else None
        return CallForm(opener, "", ("",), "[ARGS]", "", between, "", _MISTRAL_MARKERS)
    found = _MISTRAL.search(one)
    if found is None:
        return None
    return CallForm(
        opener="[TOOL_CALLS]",
        lead=f"{found[1]}[",
        heads=('{"name": "',),
        neck='", "arguments": ',
        after="}",
        between=", " if several else None,
        end="]",
        markers=_MISTRAL_MARKERS,
    )


def _llama(one: str) -> CallForm | None:
    """Small models repeat the type that stands before the name in the tools they are told."""
    if not _LLAMA.search(one):
        return None
    return CallForm(
        opener="",
        lead="",
        heads=('{"name": "', '{"type": "function", "name": "'),
        neck='", "parameters": ',
        after="}",
        between=None,
        end="",
        markers=(_PYTHON,),
        silent=_PYTHON,
    )


def _example(template: ChatTemplate, calls: int) -> str | None:
    made = [_call(name, f"call0000{place}") for place, name in enumerate(_NAMES[:calls])]
    messages: list[Message] = [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "", "tool_calls": made},
    ]
    tools = [_tool(name) for name in _NAMES]
    try:
        return template.render(messages, tools, add_generation_prompt=False)
    except UserError:
        return None


def _call(name: str, id: str) -> dict[str, Any]:
    function = {"name": name, "arguments": _ARGUMENTS}
    return {"id": id, "type": "function", "function": function}


def _tool(name: str) -> dict[str, Any]:
    at = {"type": "object", "properties": {"at": {"type": "integer"}}}
    function = {"name": name, "description": _TELLS, "parameters": at}
    return {"type": "function", "function": function}
