"""How a model is told of tools, and what its answer must look like: by its own template
and in its own words where it has any, else in ours (`tool_calls.py`)."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from freehold.engines import tool_calls
from freehold.engines.openvino.call_form import form_of
from freehold.engines.openvino.call_grammar import CallGrammar, grammar_of
from freehold.engines.openvino.call_reader import CallReader
from freehold.engines.openvino.template import ChatTemplate, Message
from freehold.engines.openvino.tokenizer import Tokenizer

Chunk = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Told:
    """`tools` are the template's; `form` or `grammar` is what the answer must keep to, and
    `reader` or `own_reader` what turns it back into calls."""

    messages: Sequence[Message]
    tools: Sequence[Mapping[str, Any]] | None = None
    form: Mapping[str, Any] | None = None
    reader: Callable[[Chunk], Chunk] | None = None
    grammar: CallGrammar | None = None
    own_reader: CallReader | None = None


class Tools:
    """Of one model. `markers` are texts of its form of calls, `tokens` those of them that
    its vocabulary has tokens for."""

    def __init__(self, template: ChatTemplate, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._form = form_of(template)
        self.markers = self._form.markers if self._form else ()
        ids = {tokenizer.special_id(marker): marker for marker in self.markers}
        self.tokens = {id: marker for id, marker in ids.items() if id is not None}

    def told(self, body: dict[str, Any]) -> Told:
        """Raises `UserError` for tools that cannot be told, or not beside a form."""
        if self._form is None:
            return _in_our_words(body)
        may_call = body.get("tools") and body.get("tool_choice") != "none"
        if not may_call:
            return Told(body["messages"], form=body.get("response_format"))
        grammar = grammar_of(self._form, body, self._tokenizer)
        opens_by_token = self._form.opener in self.tokens.values()
        reader = CallReader(self._form, grammar.names, opens_by_token)
        return Told(body["messages"], body["tools"], grammar=grammar, own_reader=reader)


def _in_our_words(body: dict[str, Any]) -> Told:
    if not body.get("tools"):
        return Told(
            tool_calls.with_history_as_text(body["messages"]), form=body.get("response_format")
        )
    plain = tool_calls.constrained(body)
    reader = tool_calls.CallReader().chunk if tool_calls.is_constrained(body) else None
    return Told(plain["messages"], form=plain.get("response_format"), reader=reader)
