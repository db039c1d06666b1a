"""Messages to the ids of a prompt, so that nothing in them becomes a control token.

llama.cpp and Transformers parse control tokens in the whole rendered prompt: a document
that holds `<|im_end|>` ends the user's turn and speaks as the system. Here a mark that
no text holds is put into each such string of the messages and tools before rendering;
the template's own control tokens are found in the rendered text, and the marks taken
out of what lies between them. A prompt without such strings is encoded as anywhere else.
The tokens that a model opens calls and results of tools with are kept out the same way,
even where they are no control tokens.

A template can also join or cut texts so that a control token arises from harmless
pieces. That is noticed, as the prompt then has other control tokens than one in which
each character that begins a control token was replaced; the latter is taken then.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from freehold.core.errors import Code, UserError
from freehold.engines.openvino.template import ChatTemplate, Message
from freehold.engines.openvino.tokenizer import Tokenizer

# Code points that Unicode promises never to give to a character.
_NONCHARACTERS = tuple(map(chr, [*range(0xFDD0, 0xFDF0), *range(0x1FFFE, 0x110000, 0x10000)]))


def encode_chat(
    tokenizer: Tokenizer,
    template: ChatTemplate,
    messages: Sequence[Message],
    tools: Sequence[Mapping[str, Any]] | None = None,
    *,
    add_generation_prompt: bool = True,
    markers: Sequence[str] = (),
    **variables: Any,
) -> list[int]:
    """The prompt begins with one begin token, where the model wants one, whether or not
    its template writes it. `markers` are kept out of messages and tools as control tokens
    are, where the vocabulary has tokens for them. Raises as `ChatTemplate.render`."""
    known = (marker for marker in markers if tokenizer.special_id(marker) is not None)
    kept_out = tuple(dict.fromkeys([*tokenizer.control_texts, *known]))

    def render(change: Callable[[str], str]) -> str:
        return template.render(
            _changed(messages, change),
            _changed(tools, change),
            add_generation_prompt=add_generation_prompt,
            **variables,
        )

    text, restore = _rendered(tokenizer, kept_out, render, [*messages, *(tools or ())])
    ids = tokenizer.encode(text, parse_special=True, add_bos=False, restore=restore)
    if tokenizer.add_bos and tokenizer.bos is not None and ids[:1] != [tokenizer.bos]:
        ids.insert(0, tokenizer.bos)
    return ids


def _rendered(
    tokenizer: Tokenizer,
    kept_out: Sequence[str],
    render: Callable[[Callable[[str], str]], str],
    given: Any,
) -> tuple[str, dict[int, str | None] | None]:
    """The prompt and what its text must be translated by, when its special tokens are
    found."""
    first = {text[0] for text in kept_out}
    held = _characters(given)
    if first.isdisjoint(held):
        return render(lambda text: text), None
    free = [mark for mark in _NONCHARACTERS if mark not in held]
    if len(free) <= len(first):
        raise UserError(
            Code.INVALID_VALUE,
            "The messages hold too many code points that are no characters: leave them out.",
            param="messages",
        )
    mark = free.pop()
    replaced = dict(zip(first, free, strict=False))
    replacing = str.maketrans(replaced)
    cautious = render(lambda text: text.translate(replacing))
    marked = render(lambda text: _marked(text, kept_out, mark))
    found = (tokenizer.special_tokens(text, kept_out) for text in (marked, cautious))
    if next(found) == next(found):
        return marked, {ord(mark): None}
    return cautious, {ord(new): old for old, new in replaced.items()}


def _marked(text: str, kept_out: Sequence[str], mark: str) -> str:
    for special in kept_out:
        if special in text:
            text = text.replace(special, special[0] + mark + special[1:])
    return text


def _changed(value: Any, change: Callable[[str], str]) -> Any:
    if isinstance(value, str):
        return change(value)
    if isinstance(value, Mapping):
        return {change(key): _changed(found, change) for key, found in value.items()}
    if isinstance(value, list | tuple):
        return [_changed(found, change) for found in value]
    return value


def _characters(value: Any) -> set[str]:
    if isinstance(value, str):
        return set(value)
    if isinstance(value, Mapping):
        return set().union(*map(_characters, [*value.keys(), *value.values()]))
    if isinstance(value, list | tuple):
        return set().union(*map(_characters, value))
    return set()
