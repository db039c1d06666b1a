"""Calls in a model's own form become OpenAI's deltas, wherever the answer is cut, and what
is no call stays text."""

import itertools
import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from freehold.engines.openvino.call_form import CallForm, form_of
from freehold.engines.openvino.call_reader import CallReader
from freehold.engines.openvino.template import ChatTemplate
from tests.engines.openvino.tool_models import FAMILIES

_NAMES = ("look", "look_up", "find")


def _form(name: str) -> CallForm:
    found = form_of(ChatTemplate(FAMILIES[name].template, eos_token="</s>"))
    assert found is not None
    return found


_FORMS = {name: _form(name) for name in FAMILIES}
_cuts = st.lists(st.integers(0, 500), max_size=60)
_text = st.text(st.characters(codec="utf-8"), max_size=30)
_values = st.none() | st.booleans() | st.integers(-(2**53), 2**53) | _text
_json = st.recursive(
    _values,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_text, inner, max_size=3),
    max_leaves=6,
)
_calls = st.tuples(st.sampled_from(_NAMES), st.dictionaries(_text, _json, max_size=3))


class _Said:
    """What a client sees when an answer comes in these pieces."""

    def __init__(self, reader: CallReader, raw: str, cuts: list[int]) -> None:
        edges = sorted({0, len(raw), *(cut % (len(raw) + 1) for cut in cuts)})
        self.text = ""
        self.deltas: list[dict[str, Any]] = []
        for begin, end in itertools.pairwise(edges):
            self._take(reader, reader.push(raw[begin:end]))
        self.streamed = self.text
        self._take(reader, reader.finish())

    def _take(self, reader: CallReader, text: str) -> None:
        self.text += text
        deltas = reader.take_deltas()
        assert len({delta["index"] for delta in deltas}) == len(deltas)
        self.deltas += deltas

    @property
    def calls(self) -> list[tuple[str, str]]:
        arguments: dict[int, str] = {}
        names: dict[int, str] = {}
        for delta in self.deltas:
            index, function = delta["index"], delta["function"]
            if index not in names:
                assert delta["type"] == "function"
                assert re.fullmatch(r"call_[0-9a-f]{24}", delta["id"])
                names[index] = function["name"]
            else:
                assert delta.keys() == {"index", "function"}
                assert function.keys() == {"arguments"}
            arguments[index] = arguments.get(index, "") + function["arguments"]
        assert list(names) == list(range(len(names)))
        return [(names[index], arguments[index]) for index in names]


def _read(name: str, raw: str, cuts: list[int]) -> _Said:
    return _Said(CallReader(_FORMS[name], _NAMES, opens_by_token=False), raw, cuts)


@pytest.mark.parametrize("name", FAMILIES)
@given(made=st.lists(_calls, min_size=1, max_size=3), cuts=_cuts)
def test_calls_are_read_however_the_answer_is_cut(
    name: str, made: list[tuple[str, dict[str, Any]]], cuts: list[int]
) -> None:
    family = FAMILIES[name]
    made = made if family.between else made[:1]
    wanted = [(function, json.dumps(arguments)) for function, arguments in made]
    said = _read(name, family.written(*wanted), cuts)
    assert said.calls == wanted
    assert said.text == ""


@pytest.mark.parametrize("name", sorted(set(FAMILIES) - {"llama"}))
@given(text=_text, cuts=_cuts)
def test_text_before_a_call_is_told_without_the_space_between(
    name: str, text: str, cuts: list[int]
) -> None:
    raw = f"{text}\n{FAMILIES[name].written(('find', '{}'))}"
    said = _read(name, raw, cuts)
    assert said.text == text.rstrip()
    assert said.calls == [("find", "{}")]


@pytest.mark.parametrize("name", FAMILIES)
@given(text=_text, cuts=_cuts)
def test_text_alone_is_told_as_it_is(name: str, text: str, cuts: list[int]) -> None:
    said = _read(name, text, cuts)
    assert (said.text, said.calls) == (text, [])
    assert text.startswith(said.streamed)


@pytest.mark.parametrize("name", FAMILIES)
def test_letter_by_letter_a_call_is_told_as_it_comes(name: str) -> None:
    arguments = '{"at": {"x": "}\\"{"}, "y": []}'
    said = _read(name, FAMILIES[name].written(("look_up", arguments)), list(range(500)))
    pieces = [delta["function"]["arguments"] for delta in said.deltas]
    assert "".join(pieces) == arguments
    assert len(pieces) == len(arguments)


_HEAD = '{"name": "look", "arguments": '
_MALFORMED = {
    "hermes": [
        "<tool_call>", "<tool_call>\n", "<tool_call>\nnothing\n</tool_call>",
        '<tool_call>\n{"name": "other", "arguments": {}}\n</tool_call>',
        f"<tool_call>\n{_HEAD}[1]}}\n</tool_call>", f"<tool_call>\n{_HEAD}", "a <tool_call",
        '<tool_call>\n{"name": "loo', "</tool_call> <tool_response>",
    ],
    "qwen": ['<tool_call>{"arguments": {}, "name": "look"}</tool_call>'],
    "llama": [
        '{"name": "other", "parameters": {}}', '{"name": "look", "arguments": {}}', '{"na',
        '{"city": "Paris"}', '{"name": "look", "parameters": 4}', "{", "so: " + _HEAD,
        'a\n{"name": "look", "parameters": {}}',
    ],
    "mistral": ["[TOOL_CALLS]", "[TOOL_CALLS] {", f"[TOOL_CALLS]{_HEAD}{{}}}}", "[TOOL_CALLS"],
    "mistral, named": ["[TOOL_CALLS]other[ARGS]{}", "[TOOL_CALLS]look{}"],
}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "raw"), [(name, raw) for name, each in _MALFORMED.items() for raw in each]
)
@given(cuts=_cuts)
def test_what_only_looks_like_a_call_is_told_as_text(name: str, raw: str, cuts: list[int]) -> None:
    said = _read(name, raw, cuts)
    assert (said.text, said.calls) == (raw, [])


@pytest.mark.parametrize(
    ("name", "behind", "told"),
    [
        ("hermes", "\nAnd so on.", "And so on."),
        ("hermes", "\n<tool_call>\nnothing", "<tool_call>\nnothing"),
        ("hermes", '\n<tool_call>\n{"name": "fi', '<tool_call>\n{"name": "fi'),
        ("mistral", ", [1]", ", [1]"),
        ("llama", "; and", "; and"),
        ("mistral, named", " and", "and"),
    ],
)
def test_what_comes_behind_a_call_is_told_too(name: str, behind: str, told: str) -> None:
    raw = FAMILIES[name].written(("look", '{"a": 1}')) + behind
    for cuts in ([], list(range(500))):
        said = _read(name, raw, cuts)
        assert said.calls == [("look", '{"a": 1}')]
        assert said.text == told


@given(length=st.integers(0, 60), cuts=_cuts)
def test_an_answer_cut_short_tells_the_call_as_far_as_it_came(length: int, cuts: list[int]) -> None:
    raw = FAMILIES["hermes"].written(("find", '{"a": "b"}'))
    head = raw.index('{"a"')
    said = _read("hermes", raw[: min(length, len(raw))], cuts)
    if length <= head:
        assert (said.calls, said.text) == ([], raw[:length])
    else:
        assert said.calls == [("find", raw[head:length][: len('{"a": "b"}')])]
        assert said.text == ""


def test_where_a_token_opens_calls_its_text_opens_none() -> None:
    raw = FAMILIES["qwen"].written(("look", "{}"))
    spelt = _Said(CallReader(_FORMS["qwen"], _NAMES, opens_by_token=True), raw, [])
    assert (spelt.text, spelt.calls) == (raw, [])
    reader = CallReader(_FORMS["qwen"], _NAMES, opens_by_token=True)
    assert reader.push("Well ") == "Well"
    assert reader.push("<tool_call>", is_marker=True) == ""
    said = _Said(reader, raw.removeprefix("<tool_call>"), list(range(100)))
    assert (said.text, said.calls) == ("", [("look", "{}")])
