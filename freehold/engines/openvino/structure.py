"""Answers that keep to a JSON schema, token by token, through llguidance.

The JSON is compact: no whitespace between its parts, so that a small model cannot go on
with blanks for ever. Properties come in the schema's order. With `strict: true` a keyword
that cannot be enforced is refused; without, it is a hint, as OpenAI's are then.
"""

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Collection, Hashable, Mapping
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as TookTooLong
from functools import partial
from typing import Any, Protocol, cast

import numpy as np
import orjson
from llguidance import LLMatcher, LLParserLimits, LLTokenizer
from llguidance.numpy import fill_next_token_bitmask

from freehold.core.errors import Code, UserError
from freehold.engines.openvino.call_grammar import CallGrammar
from freehold.engines.openvino.sample import Bits
from freehold.engines.openvino.schema_bounds import bounded, too_large

_COMPILE_S, _COMPILERS = 5.0, 2
_CACHED = 64
# What a request may take from the others: processor time in all, and for each token.
_GRACE_S, _TOKEN_S = 0.5, 0.01
_COMPACT = {"whitespace_flexible": False}
_LIMITS: dict[str, Any] = {
    "initial_lexer_fuel": 500_000,
    "step_lexer_fuel": 50_000,
    "step_max_items": 20_000,
    "max_lexer_states": 20_000,  # of 1 to 2 kB, for each request
    "max_grammar_size": 100_000,
    "verbose_errors": False,
}
_ANY_OBJECT = {"type": "object"}


class Vocabulary(Protocol):
    """What is asked of a tokenizer."""

    @property
    def special_ids(self) -> Collection[int]: ...

    @property
    def end_ids(self) -> Collection[int]: ...

    def token_bytes(self, id: int) -> bytes: ...

    def encode(
        self, text: str, *, parse_special: bool, add_bos: bool | None = None
    ) -> list[int]: ...


class Matcher:
    """Where one answer stands in its form; for one thread at a time."""

    def __init__(self, inner: LLMatcher, words: int) -> None:
        self._inner = inner
        self._bits = np.zeros((1, words), np.int32)
        self._tokens = 0
        self._spent_s = 0.0

    def mask(self) -> Bits:
        """The tokens that may come next, valid until the next call; an end of turn only
        where the form is whole. No token at all: the form costs too much to go on."""
        begun = time.thread_time()
        fill_next_token_bitmask(self._inner, self._bits)
        self._spent_s += time.thread_time() - begun
        if self.has_failed:
            self._bits[:] = 0
        bits: Bits = self._bits[0]
        return bits

    def accept(self, token: int) -> bool:
        """Goes on by a token; whether the form is whole now and nothing may follow."""
        begun = time.thread_time()
        self._inner.consume_token(token)
        self._spent_s += time.thread_time() - begun
        self._tokens += 1
        return self.is_done

    @property
    def is_done(self) -> bool:
        return bool(self._inner.is_stopped() and not self.has_failed)

    @property
    def has_failed(self) -> bool:
        allowed_s = _GRACE_S + _TOKEN_S * self._tokens
        return bool(self._inner.is_error()) or self._spent_s > allowed_s


class Structure:
    """Compiles the forms of one model's answers; safe to use from several threads.
    `width` is the number of the model's logits."""

    def __init__(self, vocabulary: Vocabulary, width: int) -> None:
        self._tokenizer = _tokenizer(vocabulary, width)
        self._words = -(-self._tokenizer.vocab_size // 32)
        self._compilers = ThreadPoolExecutor(_COMPILERS, "forms")
        self._lock = threading.Lock()
        self._forms: OrderedDict[Hashable, LLMatcher] = OrderedDict()

    def compile(self, response_format: Mapping[str, Any], whose: str = "") -> Matcher | None:
        """A matcher for one answer; None where any text will do. Blocks while it compiles,
        other threads go on. Forms are kept for `whose` they are. Raises `INVALID_VALUE`
        for a schema that cannot be met, that is not supported or costs too much."""
        if response_format["type"] == "text":
            return None
        asked = response_format.get("json_schema") or {}
        schema = bounded(asked.get("schema") or _ANY_OBJECT)
        is_strict = bool(asked.get("strict"))
        return self._begun(
            (whose, is_strict, schema), partial(self._matcher, schema, is_strict), "response_format"
        )

    def compile_calls(self, grammar: CallGrammar, whose: str = "") -> Matcher:
        """The same for an answer that may call functions, or must."""
        return self._begun((whose, grammar), partial(self._call_matcher, grammar), "tools")

    def close(self) -> None:
        self._compilers.shutdown(wait=False, cancel_futures=True)

    def _begun(self, key: Hashable, make: Callable[[], LLMatcher | None], param: str) -> Matcher:
        with self._lock:
            form = self._forms.get(key)
        if form is None:
            form = self._compiled(make, param)
        with self._lock:
            self._forms[key] = form
            self._forms.move_to_end(key)
            while len(self._forms) > _CACHED:
                self._forms.popitem(last=False)
            return Matcher(form.deep_copy(), self._words)

    def _compiled(self, make: Callable[[], LLMatcher | None], param: str) -> LLMatcher:
        waiting = self._compilers.submit(make)
        try:
            form = waiting.result(_COMPILE_S)
        except TookTooLong:
            waiting.cancel()
            raise too_large(param) from None
        if form is None or form.is_error():
            raise UserError(
                Code.INVALID_VALUE,
                "The JSON schema cannot be followed, since it is wrong, contradicts itself, costs "
                "too much or has a keyword that is not supported: simplify it.",
                param=param,
            )
        return form

    def _matcher(self, schema: bytes, is_strict: bool) -> LLMatcher | None:
        options = {**_COMPACT, "lenient": not is_strict}
        asked = {**orjson.loads(schema), "x-guidance": options}  # no options of the caller's
        return self._of_schema(orjson.dumps(asked).decode())

    def _call_matcher(self, grammar: CallGrammar) -> LLMatcher | None:
        """None if one of the functions could never be called to the end: a model that chose
        it would find no token to go on with."""
        if any(self._of_schema(schema) is None for schema in grammar.schemas):
            return None
        return self._of_grammar(LLMatcher.grammar_from_lark(grammar.lark))

    def _of_schema(self, schema: str) -> LLMatcher | None:
        try:
            grammar = LLMatcher.grammar_from_json_schema(schema)
        except ValueError:
            return None
        return self._of_grammar(grammar)

    def _of_grammar(self, grammar: str) -> LLMatcher | None:
        limits = LLParserLimits(**_LIMITS)
        form = LLMatcher(self._tokenizer, grammar, log_level=0, limits=limits)
        # Some learn only at their first token that they can never end.
        first = Matcher(form.deep_copy(), self._words)
        return form if not form.is_error() and first.mask().any() else None


def _tokenizer(vocabulary: Vocabulary, width: int) -> LLTokenizer:
    """llguidance's view of the vocabulary. What a form leaves no choice about is forced as
    the tokenizer itself would write it, so that the model reads what it is used to."""
    pieces = [vocabulary.token_bytes(id) for id in range(width)]
    special = frozenset(vocabulary.special_ids)

    class Wrapper:
        is_tokenizer_wrapper = True
        eos_token_id = next(iter(sorted(vocabulary.end_ids)), None)
        bos_token_id = None
        tokens = pieces
        special_token_ids = sorted(special)

        def __call__(self, text: bytes | str) -> list[int]:
            asked = text if isinstance(text, str) else text.decode()
            ids = vocabulary.encode(asked, parse_special=False, add_bos=False)
            raw = asked.encode()
            if special.isdisjoint(ids) and b"".join(pieces[id] for id in ids) == raw:
                return ids
            # The tokenizer added a space, or took a word for a special token.
            greedy: list[int] = found.greedy_tokenize(asked)
            return greedy

    ends = sorted(vocabulary.end_ids) or None
    found = LLTokenizer(cast(Any, Wrapper()), eos_token=ends)
    return found
