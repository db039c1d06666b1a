"""A model's chat template: a program by a stranger, pinned by its digest and run in a
sandbox that gives it no file, no attribute of ours, and bounded work and memory.

A model without a template is refused, where llama.cpp would assume ChatML: a model
that was not trained on it answers nonsense.
"""

import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import orjson
from jinja2 import TemplateError, nodes
from jinja2.visitor import NodeTransformer

from freehold.core.errors import Code, UserError
from freehold.engines.openvino.sandbox import Budget, Exhausted, Sandbox, spending

Message = Mapping[str, Any]

# What a template may ask for besides messages and tools.
VARIABLES = frozenset(
    {"documents", "enable_thinking", "reasoning_effort", "thinking", "date_string", "tool_choice"}
)
_MAX_SOURCE = 1024 * 1024
_NEEDLE = "needle-7f3a"
_FAILURES = (
    TemplateError,
    ArithmeticError,
    AttributeError,
    LookupError,
    RecursionError,
    TypeError,
    ValueError,
)


class ChatTemplate:
    """`digest` is that of the model's card. Safe to use from several threads at once.

    How the template wants contents (texts or parts), the arguments of calls (JSON or
    objects) and their ids (any, or of nine letters and digits) is found out by rendering
    examples, as llama.cpp does it.
    """

    def __init__(
        self,
        source: str | None,
        *,
        expected_digest: str | None = None,
        bos_token: str = "",
        eos_token: str = "",
        now: Callable[[], time.struct_time] = time.localtime,
    ) -> None:
        if not source:
            raise UserError(
                Code.UNSUPPORTED_ENDPOINT,
                "This model has no chat template: use completions, or pull a chat model.",
            )
        self.digest = digest(source)
        if expected_digest is not None and expected_digest != self.digest:
            raise UserError(
                Code.DIGEST_MISMATCH,
                "The model's chat template is not the one that was admitted: pull the model again.",
            )
        self._tokens = {"bos_token": bos_token, "eos_token": eos_token}
        self._now = now
        self._template = _compiled(source)
        self._takes_parts = self._shows([_said([{"type": "text", "text": _NEEDLE}])])
        self._takes_texts = self._shows([_said(_NEEDLE)]) or not self._takes_parts
        as_text = self._shows(_called(f'{{"{_NEEDLE}": 1}}'), f'"{_NEEDLE}": 1')
        self._takes_objects = not as_text and self._shows(_called({_NEEDLE: 1}))
        arguments = {_NEEDLE: 1} if self._takes_objects else f'{{"{_NEEDLE}": 1}}'
        self._takes_short_ids = self._shows(_answered(arguments, "call00001")) and not self._shows(
            _answered(arguments, "call_0123456789abcdef01234567")
        )

    def render(
        self,
        messages: Sequence[Message],
        tools: Sequence[Mapping[str, Any]] | None = None,
        *,
        add_generation_prompt: bool = True,
        **variables: Any,
    ) -> str:
        """The prompt as text, its special tokens written out. Raises `INVALID_VALUE` when
        the template refuses the messages; what it said is not quoted."""
        unknown = variables.keys() - VARIABLES
        if unknown:
            raise UserError(
                Code.UNKNOWN_PARAMETER, "Chat templates know no such variable: leave it out."
            )
        prepared = [self._prepared(message) for message in messages]
        given = {"messages": prepared, "tools": list(tools) if tools else None, **variables}
        try:
            return self._rendered(given, add_generation_prompt)
        except Exhausted:
            raise _refused("takes more work or space than it may for these messages") from None
        except _FAILURES:
            raise _refused("does not take these messages") from None

    def _rendered(self, given: Mapping[str, Any], add_generation_prompt: bool) -> str:
        with spending(Budget.of(given)):
            text: str = self._template.render(
                **self._tokens,
                **given,
                add_generation_prompt=add_generation_prompt,
                strftime_now=self._strftime_now,
            )
            return text

    def _strftime_now(self, format: str) -> str:
        return time.strftime(str(format)[:100], self._now())

    def _shows(self, messages: Sequence[Message], wanted: str = _NEEDLE) -> bool:
        try:
            text = self._rendered({"messages": messages, "tools": None}, False)
        except _FAILURES:
            return False
        except Exhausted:
            raise _unusable() from None
        return wanted in text and f"'{_NEEDLE}'" not in text  # not as Python writes a list

    def _prepared(self, message: Message) -> dict[str, Any]:
        prepared = dict(message)
        content = prepared.get("content")
        if content is None:
            prepared["content"] = ""
        elif not isinstance(content, str) and not self._takes_parts:
            prepared["content"] = _joined(content)
        elif isinstance(content, str) and not self._takes_texts:
            prepared["content"] = [{"type": "text", "text": content}]
        if prepared.get("tool_calls") and self._takes_objects:
            prepared["tool_calls"] = [_with_object(call) for call in prepared["tool_calls"]]
        if self._takes_short_ids:
            _shorten_ids(prepared)
        return prepared


def digest(source: str) -> str:
    """As the catalogue writes it on a model's card."""
    return f"sha256:{hashlib.sha256(source.encode()).hexdigest()}"


class _Guarded(NodeTransformer):
    """Makes loops and concatenations countable, and leaves out what loads templates."""

    def visit_For(self, node: nodes.For) -> nodes.For:
        if node.recursive:
            raise TemplateError("loops in itself")
        self.generic_visit(node)
        node.iter = nodes.Filter(node.iter, "counted", [], [], None, None, lineno=node.lineno)
        return node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Expr:
        self.generic_visit(node)
        texts = [nodes.Filter(n, "string", [], [], None, None, lineno=n.lineno) for n in node.nodes]
        joined: nodes.Expr = texts[0]
        for text in texts[1:]:
            joined = nodes.Add(joined, text, lineno=node.lineno)
        return joined

    def visit_List(self, node: nodes.List | nodes.Dict | nodes.Tuple) -> nodes.Expr:
        self.generic_visit(node)
        if isinstance(node, nodes.Tuple) and node.ctx != "load":
            return node
        return nodes.Filter(node, "whole", [], [], None, None, lineno=node.lineno)

    visit_Tuple = visit_Dict = visit_List

    def visit_Include(self, node: nodes.Node) -> nodes.Node:
        raise TemplateError("loads another template")

    visit_Import = visit_FromImport = visit_Extends = visit_Include


def _compiled(source: str) -> Any:
    environment = Sandbox()
    try:
        if len(source) > _MAX_SOURCE:
            raise ValueError("too large")
        with spending(Budget.of({"source": source})):
            tree = _Guarded().visit(environment.parse(source))
            return environment.from_string(tree)
    except (Exhausted, SyntaxError, MemoryError, AssertionError, *_FAILURES) as why:
        raise _unusable() from why


def _unusable() -> UserError:
    return UserError(
        Code.FILE_INVALID,
        "The model's chat template is not one that can be run here: pull another file of it.",
    )


def _refused(why: str) -> UserError:
    return UserError(
        Code.INVALID_VALUE,
        f"The model's chat template {why}: check that roles follow each other as the model wants "
        "them, and that it knows tools if you send some.",
        param="messages",
    )


def _said(content: Any) -> Message:
    return {"role": "user", "content": content}


def _called(arguments: Any, id: str = "call00001") -> list[Message]:
    function = {"name": "look", "arguments": arguments}
    call = {"id": id, "type": "function", "function": function}
    return [_said("a"), {"role": "assistant", "content": "", "tool_calls": [call]}]


def _answered(arguments: Any, id: str) -> list[Message]:
    return [*_called(arguments, id), {"role": "tool", "tool_call_id": id, "content": "b"}]


def _joined(parts: Sequence[Mapping[str, Any]]) -> str:
    if any(part.get("type") != "text" for part in parts):
        raise UserError(
            Code.INVALID_VALUE,
            "This model reads only text: send content parts of the type text.",
            param="messages",
        )
    return "\n".join(part["text"] for part in parts)


def _with_object(call: Mapping[str, Any]) -> dict[str, Any]:
    function = call["function"]
    try:
        arguments = orjson.loads(function["arguments"])
    except (orjson.JSONDecodeError, TypeError):
        return dict(call)
    return {**call, "function": {**function, "arguments": arguments}}


def _shorten_ids(message: dict[str, Any]) -> None:
    """Mistral's templates refuse others; a call and its result stay together."""
    if message.get("tool_calls"):
        message["tool_calls"] = [
            {**call, "id": _short_id(call.get("id"))} for call in message["tool_calls"]
        ]
    if "tool_call_id" in message:
        message["tool_call_id"] = _short_id(message["tool_call_id"])


def _short_id(id: Any) -> str:
    text = str(id)
    if len(text) == 9 and text.isascii() and text.isalnum():
        return text
    return hashlib.sha256(text.encode()).hexdigest()[:9]
