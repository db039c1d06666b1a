"""Tools for models whose template knows none: what the model is asked, and how its
constrained answer becomes OpenAI's deltas, wherever it is cut."""

import itertools
import json
import re
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from freehold.engines import tool_calls
from freehold.engines.tool_calls import CallReader

_WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather", "description": "Tells the weather.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
}  # fmt: skip
_TIME = {"type": "function", "function": {"name": "get_time"}}


def _body(**fields: Any) -> dict[str, Any]:
    messages = [{"role": "user", "content": "Weather in Paris?"}]
    return {"messages": messages, "tools": [_WEATHER, _TIME], "temperature": 0, **fields}


def _schema(body: dict[str, Any]) -> dict[str, Any]:
    form = tool_calls.constrained(body)["response_format"]
    assert form["type"] == "json_schema"
    found: dict[str, Any] = form["json_schema"]["schema"]
    return found


def _names(schema: dict[str, Any]) -> list[str]:
    branches = schema.get("anyOf", [schema])
    return [branch["properties"].get("name", {}).get("const", "reply") for branch in branches]


# what the model is asked


def test_help_is_needed_where_there_are_tools_and_the_template_reads_none() -> None:
    assert tool_calls.needs_help(_body(), template_reads_tools=False)
    assert not tool_calls.needs_help(_body(), template_reads_tools=True)
    assert not tool_calls.needs_help(_body(tools=[]), template_reads_tools=False)
    assert not tool_calls.needs_help({"messages": []}, template_reads_tools=False)


@pytest.mark.parametrize(
    ("choice", "names"),
    [
        ({}, ["reply", "get_weather", "get_time"]),
        ({"tool_choice": "auto"}, ["reply", "get_weather", "get_time"]),
        ({"tool_choice": "required"}, ["get_weather", "get_time"]),
        ({"tool_choice": {"type": "function", "function": {"name": "get_time"}}}, ["get_time"]),
    ],
)
def test_the_choice_says_which_answers_are_possible(
    choice: dict[str, Any], names: list[str]
) -> None:
    asked = tool_calls.constrained(_body(**choice))
    assert _names(_schema(_body(**choice))) == names
    assert not {"tools", "tool_choice", "parallel_tool_calls"} & set(asked)
    assert asked["temperature"] == 0
    told = asked["messages"][0]["content"]
    assert [name for name in ("reply", "get_weather", "get_time") if name in told] == names
    assert tool_calls.is_constrained(_body(**choice))


def test_where_no_tool_may_be_called_none_is_told() -> None:
    asked = tool_calls.constrained(_body(tool_choice="none"))
    assert asked == {"messages": _body()["messages"], "temperature": 0}
    assert not tool_calls.is_constrained(_body(tool_choice="none"))


def test_each_call_must_be_of_its_own_parameters_and_nothing_else() -> None:
    weather, time = _schema(_body(tool_choice="required"))["anyOf"]
    closed = {"additionalProperties": False}
    assert weather["properties"]["arguments"] == _WEATHER["function"]["parameters"] | closed  # type: ignore[index]
    assert time["properties"]["arguments"] == {"type": "object"} | closed
    for branch in (weather, time):
        assert branch["required"] == ["name", "arguments"]
        assert branch["additionalProperties"] is False


_POINT = {"type": "object", "properties": {"next": {"$ref": "#/$defs/point"}}}
_LINE = {
    "type": "object", "$defs": {"point": _POINT},
    "properties": {"all": {"type": "array", "items": {"$ref": "#/$defs/point"}}},
}  # fmt: skip


def _resolved(schema: dict[str, Any], value: dict[str, Any]) -> dict[str, Any]:
    """What a reference means, as a JSON pointer."""
    found = schema
    for part in value["$ref"].removeprefix("#/").split("/"):
        found = found[part]
    return found


def test_references_in_parameters_mean_what_they_meant() -> None:
    tools = [{"type": "function", "function": {"name": "draw", "parameters": _LINE}}, _TIME]
    schema = _schema(_body(tools=tools, tool_choice="required"))
    draw, time = schema["anyOf"]
    arguments = _resolved(schema, draw["properties"]["arguments"])
    assert arguments["additionalProperties"] is False
    point = _resolved(schema, arguments["properties"]["all"]["items"])
    assert point["type"] == "object"
    assert _resolved(schema, point["properties"]["next"]) == point
    assert time["properties"]["arguments"] == {"type": "object", "additionalProperties": False}
    assert _LINE["$defs"] == {"point": _POINT}, "a retry needs the request as it was"


@pytest.mark.parametrize("joined", [{"anyOf": [_POINT]}, {"allOf": [_POINT]}, {"oneOf": [_POINT]}])
def test_parameters_that_are_put_together_are_not_closed_to_their_parts(
    joined: dict[str, Any],
) -> None:
    assert tool_calls.closed(joined) == joined


@pytest.mark.parametrize(("given", "strict"), [({}, False), ({"strict": True}, True)])
def test_strict_tools_make_a_strict_form(given: dict[str, Any], strict: bool) -> None:
    tools = [{"type": "function", "function": {"name": "now", **given}}, _TIME]
    asked = tool_calls.constrained(_body(tools=tools))
    assert asked["response_format"]["json_schema"]["strict"] is strict


def test_the_tools_are_told_in_the_one_system_message() -> None:
    mine = {"role": "system", "content": "Be brief."}
    asked = tool_calls.constrained(_body(messages=[mine, {"role": "user", "content": "?"}]))
    roles = [message["role"] for message in asked["messages"]]
    assert roles == ["system", "user"]
    assert asked["messages"][0]["content"].startswith("Be brief.\n\n")
    alone = tool_calls.constrained(_body())
    assert [message["role"] for message in alone["messages"]] == ["system", "user"]


def test_earlier_calls_and_results_are_told_in_roles_that_every_template_knows() -> None:
    call = {
        "id": "call_1", "type": "function",
        "function": {"name": "get_weather", "arguments": '{"city": "Paris"}'},
    }  # fmt: skip
    body = _body(
        messages=[
            {"role": "user", "content": "Weather?"},
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "call_1", "content": "rainy"},
        ]
    )
    before = json.dumps(body)
    _, *told = tool_calls.constrained(body)["messages"]
    assert [message["role"] for message in told] == ["user", "assistant", "user"]
    assert json.loads(told[1]["content"]) == [
        {"name": "get_weather", "arguments": '{"city": "Paris"}'}
    ]
    assert "rainy" in told[2]["content"]
    assert json.dumps(body) == before, "a retry needs the request as it was"


# what becomes of its answer


def _read(raw: str, cuts: list[int], reason: str | None = "stop") -> list[dict[str, Any]]:
    """The deltas and reasons that a client sees when `raw` comes in these pieces."""
    edges = sorted({0, len(raw), *(cut % (len(raw) + 1) for cut in cuts)})
    reader = CallReader()
    seen = []
    for begin, end in itertools.pairwise(edges):
        choice = {"index": 0, "delta": {"content": raw[begin:end]}, "finish_reason": None}
        seen += reader.chunk({"choices": [choice]})["choices"]
    last = {"index": 0, "delta": {}, "finish_reason": reason}
    return seen + reader.chunk({"choices": [last]})["choices"]  # type: ignore[no-any-return]


def _content(seen: list[dict[str, Any]]) -> str:
    return "".join(choice["delta"].get("content", "") for choice in seen)


def _calls(seen: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [call for choice in seen for call in choice["delta"].get("tool_calls", [])]


_cuts = st.lists(st.integers(0, 400), max_size=40)
_text = st.text(st.characters(codec="utf-8"), max_size=60)
_spaced = st.sampled_from([(",", ":"), (", ", ": "), (" , ", " : "), (",\n ", ":\n\n ")])


@given(_text, _cuts, st.booleans(), _spaced)
@example('reply"name":', list(range(100)), False, (",", ":"))
@example('\U0001f600\\"\u2028', list(range(100)), True, (", ", ": "))
@example("", list(range(100)), True, (", ", ": "))
def test_a_reply_streams_as_it_comes_and_is_whole_in_the_end(
    text: str, cuts: list[int], ascii_only: bool, separators: tuple[str, str]
) -> None:
    raw = json.dumps({"reply": text}, ensure_ascii=ascii_only, separators=separators)
    seen = _read(raw, cuts)
    assert _content(seen) == text
    assert _calls(seen) == []
    assert [choice["finish_reason"] for choice in seen][-1] == "stop"
    grown = list(itertools.accumulate(choice["delta"].get("content", "") for choice in seen))
    assert all(text.startswith(part) for part in grown)


def test_a_reply_that_comes_letter_by_letter_is_passed_on_letter_by_letter() -> None:
    seen = _read('{"reply": "hello"}', list(range(20)))
    assert [choice["delta"]["content"] for choice in seen if "content" in choice["delta"]] == [
        *"hello"
    ]


_json = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | _text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_text, inner, max_size=3),
    max_leaves=6,
)


@given(_text.filter(bool), st.dictionaries(_text, _json, max_size=3), _cuts, st.booleans(), _spaced)
@example("reply", {"reply": "not for the user"}, list(range(100)), False, (", ", ": "))
def test_a_call_is_passed_on_when_it_is_whole(
    name: str, arguments: dict[str, Any], cuts: list[int], ascii_only: bool,
    separators: tuple[str, str],
) -> None:  # fmt: skip
    call = {"name": name, "arguments": arguments}
    seen = _read(json.dumps(call, ensure_ascii=ascii_only, separators=separators), cuts)
    assert _content(seen) == ""
    (made,) = _calls(seen)
    assert made["function"]["name"] == name
    assert json.loads(made["function"]["arguments"]) == arguments
    assert (made["index"], made["type"]) == (0, "function")
    assert re.fullmatch(r"call_[0-9a-f]{24}", made["id"])
    assert [choice["finish_reason"] for choice in seen][-1] == "tool_calls"


def test_two_calls_have_ids_of_their_own() -> None:
    raw = '{"name": "f", "arguments": {}}'
    first, second = _calls(_read(raw, [])), _calls(_read(raw, []))
    assert first[0]["id"] != second[0]["id"]


@given(st.sampled_from(["reply", "call"]), st.integers(0, 60), _cuts)
def test_an_answer_cut_short_calls_nothing_and_says_why_it_ended(
    kind: str, length: int, cuts: list[int]
) -> None:
    whole = '{"reply": "a long answer"}' if kind == "reply" else '{"name": "f", "arguments": {}}'
    seen = _read(whole[: min(length, len(whole) - 1)], cuts, reason="length")
    assert _calls(seen) == []
    assert [choice["finish_reason"] for choice in seen][-1] == "length"
    assert "a long answer".startswith(_content(seen))


@pytest.mark.parametrize(
    "raw", ["", "plain words", '{"other": 1}', "[1]", '"name"', '{"name": ', "\x00", "null"]
)
def test_an_answer_in_no_known_shape_calls_nothing(raw: str) -> None:
    seen = _read(raw, list(range(30)))
    assert _calls(seen) == []
    assert _content(seen) == ""
    assert [choice["finish_reason"] for choice in seen][-1] == "stop"


def test_chunks_without_text_pass_as_they_are() -> None:
    usage = {"choices": [], "usage": {"prompt_tokens": 1}}
    assert CallReader().chunk(dict(usage)) == usage
    role = {"index": 0, "delta": {"role": "assistant", "content": None}, "finish_reason": None}
    (choice,) = CallReader().chunk({"choices": [role]})["choices"]
    assert choice["delta"] == {"role": "assistant"}
