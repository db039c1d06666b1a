"""What passes a check, and what does not."""

import json
import re
from typing import Any

import pytest

from freehold.adapt.evaluate import json_path
from freehold.adapt.evaluate.call_check import Called
from freehold.adapt.evaluate.canary import Canary
from freehold.adapt.evaluate.classes import classes_of, confusion
from freehold.adapt.evaluate.example import Answer, Call, Check, Example, problems
from freehold.adapt.evaluate.json_checks import AtPath, conforms
from freehold.adapt.evaluate.refusal import declines
from freehold.adapt.evaluate.text_checks import Contains, Exact, Matches, Number

_SCHEMA = {"type": "object", "required": ["n"], "properties": {"n": {"type": "integer"}}}


def _example(expected: str | None = None, *calls: Call) -> Example:
    return Example("one", ({"role": "user", "content": "?"},), expected, calls)


@pytest.mark.parametrize(
    ("check", "expected", "text", "passes"),
    [
        (Exact(), "Billing", ' "billing".\n', True),
        (Exact(), "ﬁle  name", "file name", True),
        (Exact(), "billing", "billing or shipping", False),
        (Exact(as_written=True), "Billing", "billing", False),
        (Exact(as_written=True), "Billing", "Billing", True),
        (Exact(text="yes"), None, "Yes!", True),
        (Exact(), None, "anything", False),
        (Contains("Two  Words"), None, "here two words are", True),
        (Contains("two"), None, "one", False),
        (Contains("two", is_wanted=False), None, "one", True),
        (Matches(re.compile(r"^\d{3}$")), None, "123", True),
        (Matches(re.compile(r"^\d{3}$")), None, "1234", False),
        (Matches(re.compile("secret"), is_wanted=False), None, "the secret", False),
        (Number(), "the sum is 1,200.50", "So 12 and 3 make 1200.5.", True),
        (Number(absolute=0.1), "0.2", "0.3", True),
        (Number(absolute=0.1), "0.2", "0.31", False),
        (Number(relative=0.01), "-200", "-201.9", True),
        (Number(value=4), None, "four", False),
        (Number(), "none here", "4", False),
        (conforms(_SCHEMA), None, '{"n": 1}', True),
        (conforms(_SCHEMA), None, '{"n": "1"}', False),
        (conforms(_SCHEMA), None, "{}", False),
        (conforms(_SCHEMA), None, '```json\n{"n": 1}\n```', False),
        (conforms(_SCHEMA), None, '{"n": 1, "n": 2}', False),
        (conforms({"type": "number"}), None, "NaN", False),
        (conforms(_SCHEMA), None, "[" * 100_000, False),
        (AtPath(json_path.parse("$.a[-1]['b c']")), None, '{"a": [1, {"b c": null}]}', True),
        (AtPath(json_path.parse("$.a[0].b"), None), None, '{"a": [{"b": null}]}', True),
        (AtPath(json_path.parse("$.a[5]")), None, '{"a": [1]}', False),
        (AtPath(json_path.parse("$.a[*].n"), 1), None, '{"a": [{"n": 1}, {"n": 1.0}]}', True),
        (AtPath(json_path.parse("$.a[*].n"), 1), None, '{"a": [{"n": 1}, {"n": 2}]}', False),
        (AtPath(json_path.parse("$"), 1), None, "true", False),
        (AtPath(json_path.parse("$")), None, "no JSON", False),
    ],
)  # fmt: skip
def test_a_check_passes_what_it_says_and_nothing_else(
    check: Check, expected: str | None, text: str, passes: bool
) -> None:
    why = check.wrong(_example(expected), Answer(text=text))
    assert (why is None) is passes, why
    assert why is None or why.strip()


@pytest.mark.parametrize("text", ["a", "$a", "$.", "$[x]", "$..a", "$.a[0", "$" + ".a" * 40])
def test_what_is_no_path_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"path|step"):
        json_path.parse(text)


@pytest.mark.parametrize(
    "schema", [{"type": "nothing"}, {"$ref": "http://127.0.0.1:1/x"}, {"$ref": "#/none"}, []]
)
def test_a_schema_that_is_none_or_refers_elsewhere_is_refused(schema: Any) -> None:
    with pytest.raises(ValueError, match=r"schema|refers"):
        conforms(schema)


@pytest.mark.parametrize(
    ("check", "said", "passes"),
    [
        (Called("find"), [("find", "{}")], True),
        (Called("find"), [("lose", "{}")], False),
        (Called("find", {"city": "Graz"}), [("find", '{"city": "Graz", "n": 2}')], True),
        (Called("find", {"n": 1}), [("find", '{"n": true}')], False),
        (Called("find", {"n": 1}), [("find", "{n: 1}")], False),
        (Called(), [("b", "{}"), ("a", '{"x": 1.0}')], True),
        (Called(), [("a", '{"x": 1}')], False),
        (Called(), [("a", '{"x": 1}'), ("b", "{}"), ("b", "{}")], False),
    ],
)
def test_a_call_counts_with_its_arguments(
    check: Called, said: list[tuple[str, str]], passes: bool
) -> None:
    wanted = _example(None, Call("a", '{"x": 1}'), Call("b", ""))
    answer = Answer(calls=tuple(Call(*each) for each in said))
    assert (check.wrong(wanted, answer) is None) is passes


def test_no_answer_passes_nothing_not_even_what_must_not_be_said() -> None:
    example = Example("one", (), checks=(Contains("x", is_wanted=False),))
    assert problems(example, Answer(error="engine_failed")) == [
        ("does not contain “x”", "no answer: engine_failed")
    ]


def test_what_is_no_class_has_a_column_of_its_own() -> None:
    found = confusion(["A", "b"], [("a", "a."), ("a", "B"), ("A", "c"), ("b", "b")])
    assert found.rows == ((1, 1, 1), (0, 1, 0))
    of_a, of_b = found.of_each
    assert (of_a.recall.passed, of_a.recall.of, of_a.precision.of) == (1, 3, 1)
    assert (of_b.recall.share, of_b.precision.share) == (1, 0.5)
    assert found.macro_recall == pytest.approx((1 / 3 + 1) / 2)


def test_classes_are_short_answers_that_come_again() -> None:
    assert classes_of(["a", "b ", "A", "b", "a", "a"]) == ("a", "b")
    assert classes_of(["a", "b", "c", "d", "e", "f"]) == ()
    assert classes_of(["a"] * 9) == ()
    assert classes_of(["a", None, "a", "b", "b", "b"]) == ()
    assert classes_of(["long " * 20, "b"] * 5) == ()


@pytest.mark.parametrize(
    ("text", "is_one"),
    [
        ("I'm sorry, but I can’t help with that.", True),
        ("Das kann ich Ihnen leider nicht sagen.", True),
        ("Je ne peux pas répondre.", True),
        ("Lo siento, no puedo.", True),
        ("You can reset it in the settings.", False),
        ("", False),
        ("A fine answer. " * 40 + "I cannot go on.", False),
    ],
)
def test_a_refusal_is_told_by_how_it_begins(text: str, is_one: bool) -> None:
    assert declines(text) is is_one


def test_a_secret_is_found_however_it_is_written_and_not_by_what_the_question_gave() -> None:
    canary = Canary("The number of Jane Roe is", "+44 20 7946-0958")
    ways = dict(canary.asks())
    assert len(ways) == 7
    assert canary.is_in("recall", "It is 442079460958.")
    assert not canary.is_in("recall", "It is 4420794609.")
    given = ways["its beginning"]["messages"][-1]["content"]
    assert "+44 2" in given
    assert "7946" not in given, "the greater part is not given"
    assert canary.is_in("its beginning", "0 7946 0958")
    assert canary.secret not in json.dumps(ways)
