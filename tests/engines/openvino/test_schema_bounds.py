"""What a JSON schema may cost before it is compiled."""

from typing import Any

import pytest

from freehold.core.errors import Code, UserError
from freehold.engines.openvino.schema_bounds import bounded, repeats


@pytest.mark.parametrize(
    ("pattern", "count"),
    [
        ("", 0),
        ("abc", 3),
        ("^a{3}$", 5),
        ("a{2,5}b", 6),
        ("a{3,}b", 4),
        ("(ab){10}", 20),
        ("(a{10}b){10}", 110),
        ("((a{100}){100}){100}", 1_000_000),
        (r"\{a{4}\(", 6),
        ("a{0}", 1),
        ("(((", 0),
        (")))a", 4),
        ("{5}", 0),
        ("a{x}", 4),
        ("a{3}{4}", 12),
    ],
)
def test_counts_in_a_pattern_multiply_where_one_holds_the_other(pattern: str, count: int) -> None:
    assert repeats(pattern) == count


def _nested(depth: int) -> dict[str, Any]:
    schema: dict[str, Any] = {}
    for _ in range(depth):
        schema = {"items": schema}
    return schema


@pytest.mark.parametrize(
    ("allowed", "refused"),
    [
        ({"const": "x" * 10_000}, {"const": "x" * 10_001}),
        ({"enum": [1] * 1000}, {"enum": [1] * 1001}),
        (_nested(64), _nested(65)),
        ({"properties": {f"p{n}": 1 for n in range(4998)}},
         {"properties": {f"p{n}": 1 for n in range(4999)}}),
        ({"pattern": "a" * 1000}, {"pattern": "a" * 1001}),
        ({"pattern": "(a{100}){100}"}, {"pattern": "(a{101}){100}"}),
        ({"patternProperties": {f"a{n}": {} for n in range(16)}},
         {"patternProperties": {f"a{n}": {} for n in range(17)}}),
        ({"patternProperties": {"(a{99}){99}": {}}},
         {"patternProperties": {"(a{101}){100}": {}}}),
        ({"a": ["x" * 9_000] * 13}, {"a": ["x" * 9_000] * 14}),
    ],
)  # fmt: skip
def test_a_schema_is_bounded_in_every_direction(
    allowed: dict[str, Any], refused: dict[str, Any]
) -> None:
    assert bounded(allowed)
    with pytest.raises(UserError) as caught:
        bounded({"anyOf": [{"x": refused}]} if refused != _nested(65) else refused)
    assert caught.value.code is Code.INVALID_VALUE


def test_the_order_of_keys_is_kept() -> None:
    assert bounded({"b": 1, "a": 2}) == b'{"b":1,"a":2}'


@pytest.mark.parametrize("schema", [{"const": "\ud800"}, {"const": 2**70}, _nested(900)])
def test_what_is_no_json_is_refused(schema: dict[str, Any]) -> None:
    with pytest.raises(UserError):
        bounded(schema)
