"""The grammar of an answer in which a model may, or must, call functions in its own form.

Text is free until a call begins; its arguments keep to the function's schema from there,
and behind a call comes another or the end. Where the vocabulary has a token for what opens
a call, only this token does, and nothing that is spelt like it.
"""

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from freehold.core.errors import Code, UserError
from freehold.engines import tool_calls
from freehold.engines.openvino.call_form import CallForm
from freehold.engines.openvino.schema_bounds import bounded

_MOST_CALLS = 16  # in one answer: a small model goes on calling
# As `tojson` writes it, which the model has learnt from.
_SPACED = {"item_separator": ", ", "key_separator": ": ", "whitespace_flexible": False}
_COMPACT = {"whitespace_flexible": False}


class Vocabulary(Protocol):
    """What is asked of a tokenizer."""

    @property
    def word_ids(self) -> Collection[int]: ...

    def special_id(self, text: str) -> int | None: ...


@dataclass(frozen=True, slots=True)
class CallGrammar:
    """`lark` is the answer's grammar; `schemas` those in it, each of which must be one that
    can be met; `names` the functions that it can call."""

    lark: str
    schemas: tuple[str, ...]
    names: frozenset[str]


def grammar_of(form: CallForm, body: Mapping[str, Any], vocabulary: Vocabulary) -> CallGrammar:
    """For a body with tools whose choice is not `none`. Raises `UserError` for parameters
    that are no object's or too large, and for a `response_format` that calls look like."""
    choice = body.get("tool_choice", "auto")
    functions = [tool["function"] for tool in body["tools"]]
    several = form.between is not None and body.get("parallel_tool_calls", True)
    if isinstance(choice, dict):
        functions = [f for f in functions if f["name"] == choice["function"]["name"]]
        several = False
    _check_size(functions)
    schemas = {function["name"]: _schema(function) for function in functions}
    reply = _reply(form, body) if choice == "auto" else None
    lark = _Lark(form, vocabulary)
    rules = [
        "%llguidance {}",
        *(lark.free_start(reply) if choice == "auto" else [lark.calling_start()]),
        lark.calls(_MOST_CALLS if several else 1),
        f"call: {' | '.join(f'call_{place}' for place in range(len(schemas)))}",
        *(lark.call(place, *each) for place, each in enumerate(schemas.items())),
    ]
    checked = [*schemas.values(), *([reply] if reply else [])]
    return CallGrammar("\n".join(rules), tuple(checked), frozenset(schemas))


class _Lark:
    """The rules in Lark's words."""

    def __init__(self, form: CallForm, vocabulary: Vocabulary) -> None:
        ids = {text: vocabulary.special_id(text) for text in form.markers}
        self._form = form
        self._ids = {text: id for text, id in ids.items() if id is not None}
        self._words = sorted(set(vocabulary.word_ids) - set(self._ids.values()))

    def calling_start(self) -> str:
        return f"start: {self._spelt(self._form.opener)} calls"

    def free_start(self, reply: str | None) -> list[str]:
        """The rules of an answer that need not call: any text, or JSON of a schema. No
        rule may begin what another is in, or a call could hide in text."""
        form = self._form
        if reply is not None:
            return [f"start: %json {reply} | {self._spelt(form.opener)} calls"]
        words = f"<[{','.join(map(str, self._words))}]>" if self._words else ""
        any_text = r"TEXT: /(.|\n)+/"
        if not form.opener:
            return [*self._start_by_head(words), any_text]
        if form.opener in self._ids:
            text = f"(TEXT | {words})*" if words else "TEXT?"
            return [f"start: {text} ({self._spelt(form.opener)} calls)?", any_text]
        before = f"(TEXT? {words})* " if words else ""
        opened = f"opened[lazy]: /(.|\\n)*/ {json.dumps(form.opener)}"
        return [f"start: {before}(TEXT? | opened calls)", opened, any_text]

    def _start_by_head(self, words: str) -> list[str]:
        silent = self._ids.get(self._form.silent or "")
        before = "" if silent is None else f"<[{silent}]>? "
        text = f"(FIRST | {words}) (TEXT | {words})*" if words else "FIRST"
        heads = " | ".join(map(json.dumps, self._form.heads))
        return [
            f"start: ({text})? | {before}calls",
            r"FIRST: /(.|\n)+/ & ~(HEAD /(.|\n)*/)",
            f"HEAD: {heads}",
        ]

    def calls(self, most: int) -> str:
        form = self._form
        more = f"({self._spelt(form.between)} call){{0,{most - 1}}}" if most > 1 else ""
        return f"calls: {self._spelt(form.lead)} call {more} {self._spelt(form.end)}"

    def call(self, place: int, name: str, schema: str) -> str:
        form = self._form
        heads = [self._spelt(f"{head}{name}{form.neck}") for head in form.heads]
        head = heads[0] if len(heads) == 1 else f"({' | '.join(heads)})"
        return f"call_{place}: {head} %json {schema} {self._spelt(form.after)}"

    def _spelt(self, text: str | None) -> str:
        """Literals, and tokens for what the vocabulary has tokens for."""
        parts = [text or ""]
        for marker in self._ids:
            parts = [
                piece
                for part in parts
                for piece in (_cut(part, marker) if part not in self._ids else [part])
            ]
        return " ".join(
            f"<[{self._ids[part]}]>" if part in self._ids else json.dumps(part)
            for part in parts
            if part
        )


def _cut(text: str, marker: str) -> list[str]:
    parts: list[str] = []
    for piece in text.split(marker):
        parts += [marker, piece]
    return parts[1:]


def _schema(function: Mapping[str, Any]) -> str:
    parameters = function.get("parameters") or {}
    if parameters.get("type", "object") != "object":
        raise UserError(
            Code.INVALID_VALUE,
            "A function's parameters must be a JSON schema of type 'object'.",
            param="tools",
        )
    return _told(
        {"type": "object", **tool_calls.closed(parameters)}, _SPACED, bool(function.get("strict"))
    )


def _check_size(functions: list[dict[str, Any]]) -> None:
    try:
        bounded({f["name"]: f.get("parameters") for f in functions})
    except UserError as error:
        raise UserError(error.code, error.message, param="tools") from None


def _reply(form: CallForm, body: Mapping[str, Any]) -> str | None:
    wanted = body.get("response_format") or {"type": "text"}
    if wanted["type"] == "text":
        return None
    if not form.opener:  # a call is JSON too
        raise tool_calls.no_choice_beside_a_form()
    asked = wanted.get("json_schema") or {}
    schema = asked.get("schema") or {"type": "object"}
    bounded(schema)
    return _told(schema, _COMPACT, bool(asked.get("strict")))


def _told(schema: Mapping[str, Any], options: Mapping[str, Any], is_strict: bool) -> str:
    return json.dumps({**schema, "x-guidance": {**options, "lenient": not is_strict}})
