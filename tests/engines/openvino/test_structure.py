"""Forms, on a small vocabulary: every byte, some longer pieces, special tokens."""

import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from freehold.core.errors import Code, UserError
from freehold.engines.openvino import structure as module
from freehold.engines.openvino.structure import Matcher, Structure

_LONGER = [b'{"', b'":', b"true", b"  ", b" the", b'"}', b"name", "ü".encode()]
_START, _END, _WORD = 264, 265, 266
_WIDTH = 300  # the model's head is wider than its vocabulary


class _Tokens:
    """A vocabulary that spells by the longest piece, and takes a word for special."""

    special_ids = frozenset({_START, _END, _WORD})
    end_ids = frozenset({_END})
    pieces = [bytes([byte]) for byte in range(256)] + _LONGER + [b"<start>", b"<end>", b"<word>"]

    def token_bytes(self, id: int) -> bytes:
        return self.pieces[id] if id < len(self.pieces) else b""

    def encode(self, text: str, *, parse_special: bool, add_bos: bool | None = None) -> list[int]:
        assert not parse_special
        assert add_bos is False
        ids, rest = [], text.encode()
        while rest:
            id = max(
                (id for id, piece in enumerate(self.pieces) if rest.startswith(piece)),
                key=lambda id: len(self.pieces[id]),
            )
            ids.append(id)
            rest = rest[len(self.pieces[id]) :]
        return ids


_TOKENS = _Tokens()
_NAME = {"name": {"type": "string", "maxLength": 6}}
_PERSON = {
    "type": "object",
    "properties": {**_NAME, "age": {"type": "integer"}, "is_in": {"type": "boolean"}},
    "required": ["name", "age"],
    "additionalProperties": False,
}


@pytest.fixture(scope="module")
def structure() -> Iterator[Structure]:
    made = Structure(_TOKENS, _WIDTH)
    yield made
    made.close()


def _form(schema: Any, **more: Any) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": "own", "schema": schema, **more}}


def _matcher(structure: Structure, schema: Any, **more: Any) -> Matcher:
    matcher = structure.compile(_form(schema, **more))
    assert matcher is not None
    return matcher


def _allowed(matcher: Matcher) -> list[int]:
    bits = np.unpackbits(matcher.mask().view(np.uint8), bitorder="little")
    return [int(id) for id in np.flatnonzero(bits)]


def _written(matcher: Matcher, text: bytes) -> bytes:
    """How much of `text` can be written: a piece of what is left at a time."""
    done = b""
    while done != text and not matcher.is_done:
        rest = text[len(done) :]
        pieces = [id for id in _allowed(matcher) if id not in _TOKENS.special_ids]
        fitting = [id for id in pieces if rest.startswith(_TOKENS.token_bytes(id))]
        if not fitting:
            break
        id = max(fitting, key=lambda id: len(_TOKENS.token_bytes(id)))
        matcher.accept(id)
        done += _TOKENS.token_bytes(id)
    return done


def test_an_answer_without_choice_is_written_and_ends(structure: Structure) -> None:
    schema = {
        "type": "object",
        "properties": {"number": {"const": 7}},
        "required": ["number"],
        "additionalProperties": False,
    }
    matcher, said = _matcher(structure, schema), b""
    while not matcher.is_done:
        (token,) = _allowed(matcher)
        assert matcher.accept(token) is matcher.is_done
        said += _TOKENS.token_bytes(token)
    assert said == b'{"number":7}'
    assert _allowed(matcher) == [_END]
    assert not matcher.has_failed


def test_text_may_be_anything(structure: Structure) -> None:
    assert structure.compile({"type": "text"}) is None


@pytest.mark.parametrize(
    ("schema", "good", "written"),
    [
        (_PERSON, b'{"name":"Ann","age":41,"is_in":true}', None),
        (_PERSON, b'{"name":"Ann","age":41}', None),
        (_PERSON, b'{"age":41', b'{"'),  # in the schema's order
        (_PERSON, b'{"name":"Annabella"', b'{"name":"Annabe'),
        (_PERSON, b'{"name":"Ann","age":4.5', b'{"name":"Ann","age":4'),
        (_PERSON, b'{"name":"Ann"}', b'{"name":"Ann"'),
        (_PERSON, b'{"name":"Ann","age":41,"more":1', b'{"name":"Ann","age":41,"'),
        (_PERSON, b'{ "name"', b""),  # no blanks between the parts
        (_PERSON, b'{"name": "Ann"', b'{"name":'),
        (_PERSON, b'\n{"name"', b""),
        ({"enum": ["red", "green"]}, b'"green"', None),
        ({"enum": ["red", "green"]}, b'"grey"', b'"gre'),
        ({"anyOf": [{"type": "null"}, {"const": "x"}]}, b'"x"', None),
        ({"type": "array", "items": {"const": 1}, "maxItems": 2}, b"[1,1,1]", b"[1,1"),
        ({"type": "string", "pattern": "^[a-c]{2}$"}, b'"abc"', b'"ab'),
        ({"type": "string"}, '"ünïcödé 漢字 🎉"'.encode(), None),
        ({"type": "string"}, b'"a\nb"', b'"a'),
        ({"$ref": "#/$defs/a", "$defs": {"a": {"const": 5}}}, b"5", None),
    ],
)
def test_what_the_schema_allows_can_be_said_and_nothing_else(
    structure: Structure, schema: dict[str, Any], good: bytes, written: bytes | None
) -> None:
    assert _written(_matcher(structure, schema), good) == (good if written is None else written)


@pytest.mark.parametrize("form", [{"type": "json_object"}, _form(None), _form({"type": "object"})])
def test_any_object_is_an_object(structure: Structure, form: dict[str, Any]) -> None:
    def written(text: bytes) -> bytes:
        matcher = structure.compile(form)
        assert matcher is not None
        return _written(matcher, text)

    assert written(b'{"a":[1,{"b":null}],"c":"d"}') == b'{"a":[1,{"b":null}],"c":"d"}'
    assert written(b"[1]") == b""
    assert written(b'"a"') == b""


def test_the_turn_may_end_only_where_the_form_is_whole(structure: Structure) -> None:
    matcher = _matcher(structure, {"type": "integer"})
    assert not set(_allowed(matcher)) & _TOKENS.special_ids
    assert matcher.accept(ord("4")) is False
    assert _END in _allowed(matcher)  # or another digit
    assert ord("2") in _allowed(matcher)
    matcher = _matcher(structure, {"type": "array"})
    assert _written(matcher, b"[1") == b"[1"
    assert _END not in _allowed(matcher)


def test_the_text_of_special_tokens_is_written_with_plain_ones(structure: Structure) -> None:
    matcher, said = _matcher(structure, {"const": "a<end><word>b"}), b""
    while not matcher.is_done:
        (token,) = _allowed(matcher)
        assert token not in _TOKENS.special_ids
        matcher.accept(token)
        said += _TOKENS.token_bytes(token)
    assert said == b'"a<end><word>b"'


def test_what_is_forced_is_written_as_the_tokenizer_would(structure: Structure) -> None:
    matcher = _matcher(structure, {**_PERSON, "properties": _NAME, "required": ["name"]})
    assert _allowed(matcher) == [256 + _LONGER.index(b'{"')]


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_whatever_is_chosen_the_answer_is_json_of_the_schema(
    structure: Structure, data: st.DataObject
) -> None:
    matcher, said = _matcher(structure, _PERSON), b""
    while not matcher.is_done:
        allowed = [id for id in _allowed(matcher) if id not in _TOKENS.special_ids]
        assert all(_TOKENS.token_bytes(id) for id in allowed)
        ending = [id for id in allowed if _TOKENS.token_bytes(id)[:1] in (b'"', b"}", b",")]
        token = data.draw(st.sampled_from(ending if len(said) > 60 and ending else allowed))
        matcher.accept(token)
        said += _TOKENS.token_bytes(token)
    person = json.loads(said)
    assert list(person) in (["name", "age"], ["name", "age", "is_in"])
    assert len(person["name"]) <= 6
    assert type(person["age"]) is int


def test_answers_in_one_form_go_their_own_ways(structure: Structure) -> None:
    one, other = (_matcher(structure, _PERSON) for _ in range(2))
    assert _written(one, b'{"name":"Ann","age":41}') == b'{"name":"Ann","age":41}'
    assert _written(other, b'{"name":"Bob"') == b'{"name":"Bob"'
    assert one.is_done
    assert not other.is_done


def test_forms_are_compiled_from_many_threads(structure: Structure) -> None:
    def said(number: int) -> bytes:
        return _written(_matcher(structure, {"const": number % 100}), b"%d" % (number % 100))

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(said, range(300))) == [b"%d" % (n % 100) for n in range(300)]


def test_a_keyword_that_cannot_be_kept_is_refused_where_strictness_is_asked_for(
    structure: Structure,
) -> None:
    schema = {"type": "string", "format": "int32"}
    assert _written(_matcher(structure, schema), b'"any"') == b'"any"'
    assert _written(_matcher(structure, schema, strict=False), b'"any"') == b'"any"'
    with pytest.raises(UserError) as caught:
        structure.compile(_form(schema, strict=True))
    assert caught.value.code is Code.INVALID_VALUE


def test_the_compiler_s_options_are_not_the_caller_s(structure: Structure) -> None:
    schema = {**_PERSON, "x-guidance": {"whitespace_flexible": True, "lenient": True}}
    assert _written(_matcher(structure, schema), b'{"name": ') == b'{"name":'
    with pytest.raises(UserError):
        structure.compile(_form({**schema, "not": {}}, strict=True))


def _nested(depth: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "string"}
    for _ in range(depth):
        schema = {"type": "object", "properties": {"a": schema}, "required": ["a"]}
    return schema


def _doubled(depth: int) -> dict[str, Any]:
    """Each level holds the one below it four times."""
    levels: dict[str, Any] = {"d0": {"type": "string"}}
    for place in range(1, depth):
        below = {"$ref": f"#/$defs/d{place - 1}"}
        levels[f"d{place}"] = {"allOf": [{"properties": {"a": below, "b": below}}] * 2}
    return {"$defs": levels, "$ref": f"#/$defs/d{depth - 1}"}


_HOSTILE: dict[str, Any] = {
    "no type": {"type": "canary4711"},
    "never": {"type": "integer", "minimum": 5, "maximum": 4},
    "without end": {"$ref": "#"},
    "in a circle": {"$ref": "#/$defs/a", "$defs": {"a": {"allOf": [{"$ref": "#/$defs/a"}]}}},
    "elsewhere": {"$ref": "http://127.0.0.1:1/canary"},
    "a file": {"$ref": "file:///etc/passwd"},
    "long": {"description": "canary " * 20_000},
    "one long word": {"const": "x" * 10_001},
    "deep": _nested(40),
    "very deep": _nested(900),
    "exploding": _doubled(24),
    "crossed": {
        "allOf": [
            {"anyOf": [{"properties": {f"p{i}_{j}": {"type": "string"}}} for j in range(4)]}
            for i in range(12)
        ]
    },
    "many": {"enum": [f"canary {place}" for place in range(1001)]},
    "wide": {"properties": {f"p{place}": {} for place in range(5001)}},
    "repeated": {"type": "string", "pattern": "((a{100}){100}){100}"},
    "keys": {"patternProperties": {f"^a{{{place}}}(b|c)*$": {} for place in range(17)}},
    "half a character": {"const": "\ud800"},
    "a huge number": {"type": "integer", "minimum": -(10**300), "maximum": 10**300},
}


@pytest.mark.parametrize("what", _HOSTILE)
def test_a_hostile_schema_is_the_caller_s_mistake_and_is_not_quoted(
    structure: Structure, what: str
) -> None:
    with pytest.raises(UserError) as caught:
        structure.compile(_form(_HOSTILE[what]))
    assert caught.value.code is Code.INVALID_VALUE
    assert "canary" not in caught.value.message
    assert _written(_matcher(structure, {"const": 1}), b"1") == b"1"  # and others go on


def test_an_answer_that_takes_too_much_time_from_the_others_fails(
    structure: Structure, monkeypatch: pytest.MonkeyPatch
) -> None:
    matcher = _matcher(structure, {"type": "string"})
    assert _allowed(matcher)
    monkeypatch.setattr(module, "_GRACE_S", 0.0)
    monkeypatch.setattr(module, "_TOKEN_S", 0.0)
    assert _allowed(matcher) == []
    assert matcher.has_failed
    assert not matcher.is_done


def test_a_token_that_the_form_does_not_allow_fails_the_answer(structure: Structure) -> None:
    matcher = _matcher(structure, {"const": 1})
    assert matcher.accept(ord("x")) is False
    assert matcher.has_failed
    assert _allowed(matcher) == []


def test_a_form_that_takes_too_long_to_compile_is_refused(
    structure: Structure, monkeypatch: pytest.MonkeyPatch
) -> None:
    is_over = threading.Event()
    monkeypatch.setattr(module, "_COMPILE_S", 0.01)
    monkeypatch.setattr(structure, "_matcher", lambda *_: is_over.wait())
    with pytest.raises(UserError) as caught:
        structure.compile(_form({"const": "slow"}))
    is_over.set()
    assert caught.value.code is Code.INVALID_VALUE
