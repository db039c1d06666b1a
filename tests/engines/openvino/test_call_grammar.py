"""What a model may write where it may, or must, call functions: scripted answers, token by
token through the vocabulary of each family."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from freehold.core.errors import Code, UserError
from freehold.engines.openvino.structure import Matcher
from freehold.engines.openvino.tools import Told
from tests.engines.openvino.tool_models import FAMILIES, Speaker, speaker

_CITY = {"$defs": {"City": {"enum": ["Paris", "Rome"]}},
         "properties": {"city": {"$ref": "#/$defs/City"}, "days": {"type": "integer"}},
         "required": ["city"]}  # fmt: skip
_PLACE = {"type": "object", "properties": {"zone": {"type": "string"}}, "required": ["zone"]}
_PARIS, _ZONE = '{"city": "Paris"}', '{"zone": "a<tool_call>[TOOL_CALLS]"}'
_NAMED = {"type": "function", "function": {"name": "get_time"}}
Speak = Callable[[str], Speaker]


@pytest.fixture(scope="module")
def speak(tmp_path_factory: pytest.TempPathFactory) -> Speak:
    folder = tmp_path_factory.mktemp("speakers")
    return lambda name: speaker(folder, name)


def _tool(name: str, parameters: Any, **more: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "parameters": parameters, **more}}


def _told(model: Speaker, **fields: Any) -> Told:
    tools = [_tool("get_weather", _CITY), _tool("get_time", _PLACE)]
    body = {"messages": [{"role": "user", "content": "?"}], "tools": tools, **fields}
    return model.tools.told(body)


def _matcher(model: Speaker, **fields: Any) -> Matcher:
    return model.matcher(_told(model, **fields).grammar)


def _allowed(matcher: Matcher) -> set[int]:
    bits = np.unpackbits(matcher.mask().view(np.uint8), bitorder="little")
    return set(map(int, np.flatnonzero(bits)))


def _accepted(matcher: Matcher, tokens: Sequence[int]) -> int:
    """How many of these tokens may be written."""
    for place, token in enumerate(tokens):
        if token not in _allowed(matcher):
            return place
        matcher.accept(token)
    return len(tokens)


def _takes(model: Speaker, matcher: Matcher, text: str) -> bool:
    """Whether the text may be written, and the answer end behind it."""
    ends = model.tokenizer.end_ids
    tokens = model.spoken(text)
    return _accepted(matcher, tokens) == len(tokens) and bool(
        matcher.is_done or _allowed(matcher) & ends
    )


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("choice", ["auto", "required"])
def test_a_call_that_keeps_to_its_schema_may_be_written(
    speak: Speak, name: str, choice: str
) -> None:
    model, family = speak(name), FAMILIES[name]
    for call in (("get_weather", _PARIS), ("get_time", '{"zone": "CET"}')):
        matcher = _matcher(model, tool_choice=choice)
        assert _takes(model, matcher, family.written(call))
        assert not matcher.has_failed


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("choice", ["auto", "required"])
@pytest.mark.parametrize(
    ("function", "arguments", "wrong"),
    [
        ("get_weather", '{"city": "Oslo"}', "Oslo"),
        ("get_weather", '{"days": 2}', "days"),
        ("get_weather", "[]", "[]"),
        ("get_weather", '{"city": "Paris", "other": 1}', "other"),
        ("get_time", "{}", "}"),
        ("other", "{}", "other"),
    ],
)
def test_no_other_call_can_be_written(
    speak: Speak, name: str, choice: str, function: str, arguments: str, wrong: str
) -> None:
    model, raw = speak(name), FAMILIES[name].written((function, arguments))
    tokens = model.spoken(raw)
    written = _accepted(_matcher(model, tool_choice=choice), tokens)
    said = b"".join(map(model.tokenizer.token_bytes, tokens[:written])).decode()
    assert written < len(tokens)
    assert raw.startswith(said)
    assert len(said) < raw.index(wrong, raw.index(function)) + len(wrong)


@pytest.mark.parametrize("name", FAMILIES)
def test_text_is_free_until_a_call_begins(speak: Speak, name: str) -> None:
    model = speak(name)
    for text in ('Well:\n\n{"a": [1]} <tool é 🎉 {"name": 1}', '{"city": "Rome"}', "", "<"):
        assert _takes(model, _matcher(model), text)
    if name != "llama":
        raw = "Let me look.\n" + FAMILIES[name].written(("get_weather", _PARIS))
        assert _takes(model, _matcher(model), raw)


@pytest.mark.parametrize("name", FAMILIES)
def test_where_a_call_is_required_there_is_no_text(speak: Speak, name: str) -> None:
    model = speak(name)
    matcher = _matcher(model, tool_choice="required")
    assert not _allowed(matcher) & model.tokenizer.end_ids
    assert _accepted(matcher, model.spoken("Let me look.")) == 0


@pytest.mark.parametrize("name", FAMILIES)
def test_a_named_function_alone_can_be_called_and_once(speak: Speak, name: str) -> None:
    model, family = speak(name), FAMILIES[name]
    wanted = family.written(("get_time", '{"zone": "CET"}'))
    matcher = _matcher(model, tool_choice=_NAMED)
    assert _accepted(matcher, model.spoken(wanted)) == len(model.spoken(wanted))
    assert matcher.is_done
    other = model.spoken(family.written(("get_weather", _PARIS)))
    assert _accepted(_matcher(model, tool_choice=_NAMED), other) < len(other)


@pytest.mark.parametrize("name", sorted(set(FAMILIES) - {"llama"}))
def test_several_calls_may_follow_each_other_unless_one_is_asked_for(
    speak: Speak, name: str
) -> None:
    model, family = speak(name), FAMILIES[name]
    three = [("get_weather", _PARIS), ("get_time", '{"zone": "CET"}'), ("get_weather", _PARIS)]
    for choice in ("auto", "required"):
        assert _takes(model, _matcher(model, tool_choice=choice), family.written(*three))
        alone = _matcher(model, tool_choice=choice, parallel_tool_calls=False)
        one = model.spoken(family.written(three[0]))
        assert _accepted(alone, one) == len(one)
        assert alone.is_done


def test_calls_come_to_an_end(speak: Speak) -> None:
    model, family = speak("mistral, named"), FAMILIES["mistral, named"]
    matcher = _matcher(model, tool_choice="required")
    many = model.spoken(family.written(*[("get_weather", _PARIS)] * 20))
    assert _accepted(matcher, many) < len(many)
    assert matcher.is_done


@pytest.mark.parametrize("name", FAMILIES)
def test_nothing_but_calls_comes_behind_a_call(speak: Speak, name: str) -> None:
    model = speak(name)
    matcher = _matcher(model)
    one = model.spoken(FAMILIES[name].written(("get_weather", _PARIS)))
    assert _accepted(matcher, one) == len(one)
    assert _accepted(matcher, model.spoken("So")) == 0


@pytest.mark.parametrize("name", ["qwen", "mistral"])
def test_the_text_of_a_token_that_opens_calls_is_only_text(speak: Speak, name: str) -> None:
    model = speak(name)
    spelt = model.spelt(FAMILIES[name].written(("other", "[]")))
    assert not set(spelt) & model.tokenizer.special_ids
    matcher = _matcher(model)
    assert _accepted(matcher, spelt) == len(spelt)
    assert _allowed(matcher) & model.tokenizer.end_ids


@pytest.mark.parametrize("name", FAMILIES)
def test_arguments_may_hold_the_text_of_any_marker(speak: Speak, name: str) -> None:
    model, family = speak(name), FAMILIES[name]
    head, _, tail = family.written(("get_time", "@")).partition("@")
    matcher = _matcher(model)
    tokens = [*model.spoken(head), *model.spelt(_ZONE), *model.spoken(tail)]
    assert _accepted(matcher, tokens) == len(tokens)


def test_other_words_of_the_vocabulary_may_be_in_text_and_control_tokens_may_not(
    speak: Speak,
) -> None:
    model = speak("qwen")
    think = model.tokenizer.special_id("<think>")
    allowed = _allowed(_matcher(model))
    assert think in allowed
    tokens = [think, *model.spoken("hm"), think, *model.spoken("so")]
    raw = model.spoken(FAMILIES["qwen"].written(("get_weather", _PARIS)))
    matcher = _matcher(model)
    assert _accepted(matcher, [t for t in (*tokens, *raw) if t is not None]) == len(tokens + raw)
    ids = model.tokenizer.control_ids | set(model.tools.tokens)
    opener = model.tokenizer.special_id("<tool_call>")
    assert allowed & ids == model.tokenizer.end_ids | {opener}


def test_a_call_may_be_behind_the_token_that_llama_was_taught(speak: Speak) -> None:
    model = speak("llama")
    python = model.tokenizer.special_id("<|python_tag|>")
    assert python is not None
    for raw in ('{"name": "get_weather", "parameters": ', '{"type": "function", "name": "get_'):
        matcher = _matcher(model)
        assert _accepted(matcher, [python, *model.spoken(raw)]) == 1 + len(model.spoken(raw))
    assert _accepted(_matcher(model), [python, *model.spoken("a")]) == 1


@pytest.mark.parametrize("name", ["qwen", "hermes", "mistral"])
def test_a_form_is_kept_while_the_model_may_choose_a_tool(speak: Speak, name: str) -> None:
    model = speak(name)
    schema = {"type": "object", "properties": {"a": {"const": 1}}, "required": ["a"]}
    form = {"type": "json_schema", "json_schema": {"name": "f", "schema": schema, "strict": True}}
    assert _takes(model, _matcher(model, response_format=form), '{"a":1}')
    assert _accepted(_matcher(model, response_format=form), model.spoken("Well")) == 0
    raw = FAMILIES[name].written(("get_weather", _PARIS))
    assert _takes(model, _matcher(model, response_format=form), raw)
    loose = _matcher(model, response_format={"type": "json_object"})
    assert _takes(model, loose, '{"b":[]}')
    assert _takes(model, _matcher(model, response_format={"type": "text"}), "Well")


def test_where_a_call_looks_like_a_form_there_is_no_choice_between_them(speak: Speak) -> None:
    model, form = speak("llama"), {"type": "json_object"}
    with pytest.raises(UserError) as refused:
        _told(model, response_format=form)
    assert (refused.value.code, refused.value.param) == (
        Code.UNSUPPORTED_PARAMETER, "response_format",
    )  # fmt: skip
    assert _told(model, response_format=form, tool_choice="required").grammar


def test_strict_parameters_are_kept_or_refused(speak: Speak) -> None:
    model = speak("qwen")
    odd = {"type": "object", "properties": {"a": {"type": "string", "format": "int32"}}}
    assert _matcher(model, tools=[_tool("f", odd)])
    assert _matcher(model, tools=[_tool("f", odd, strict=False)])
    with pytest.raises(UserError) as refused:
        _matcher(model, tools=[_tool("f", odd, strict=True)])
    assert (refused.value.code, refused.value.param) == (Code.INVALID_VALUE, "tools")


@pytest.mark.parametrize(
    "parameters",
    [
        {"type": "string"},
        {"type": "object", "properties": {"a": {"$ref": "#/nowhere"}}, "required": ["a"]},
        {"properties": {"a": {"type": "integer", "minimum": 5, "maximum": 4}}, "required": ["a"]},
        {"description": "canary " * 20_000},
    ],
)
def test_parameters_that_cannot_be_followed_are_refused_by_name(
    speak: Speak, parameters: dict[str, Any]
) -> None:
    model = speak("qwen")
    with pytest.raises(UserError) as refused:
        _matcher(model, tools=[_tool("good", _PLACE), _tool("bad", parameters)])
    assert (refused.value.code, refused.value.param) == (Code.INVALID_VALUE, "tools")
    assert "canary" not in refused.value.message


@pytest.mark.parametrize("parameters", [None, {}, {"type": "object"}])
def test_a_function_without_parameters_is_called_with_none(
    speak: Speak, parameters: dict[str, Any] | None
) -> None:
    model = speak("qwen")
    tools = [_tool("now", parameters) if parameters is not None else _tool("now", {})]
    if parameters is None:
        del tools[0]["function"]["parameters"]
    raw = FAMILIES["qwen"].written(("now", "{}"))
    assert _takes(model, _matcher(model, tools=tools), raw)
    assert not _takes(model, _matcher(model, tools=tools), raw.replace("{}", '{"a": 1}'))
