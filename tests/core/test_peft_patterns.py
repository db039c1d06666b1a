"""Patterns of module names mean what they mean in PEFT, and none costs for ever."""

import re
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from freehold.core.peft_patterns import Patterns

MODULES = [
    f"model.layers.{layer}.{name}"
    for layer in (0, 1, 11, 111)
    for name in ("self_attn.q_proj", "self_attn.o_proj", "mlp.up_proj")
]


def _as_peft(values: Mapping[str, int], module: str, default: int) -> int:
    """`get_pattern_key` and the look-up after it, as in PEFT 0.21."""
    for key in values:
        if re.match(rf"(.*\.)?({key})$", module):
            return values[key]
    return values.get(module, default)


KEYS = st.sampled_from(
    [
        "q_proj", "proj", "o_proj", "self_attn.q_proj", "self.attn.q_proj", "1.mlp.up_proj",
        ".1.mlp.up_proj", "^model.layers.0.self_attn.o_proj", "up_proj$", "^q_proj",
        r"layers\.1\.mlp\.up_proj", r"layers\.\d+\.self_attn\..*", r"layers\.(0|11)\..*",
        r".*\.self_attn\.[qo]_proj", "layers.1.1.mlp.up_proj", "q_proj|up_proj", ".*", "",
        "model", "layers.[0-1].*", "[^q]_proj", "nothing",
    ]
)  # fmt: skip


@given(st.lists(st.one_of(KEYS, st.sampled_from(MODULES)), unique=True, max_size=8))
def test_the_first_key_that_matches_gives_the_value(keys: list[str]) -> None:
    values = {key: place for place, key in enumerate(keys)}
    patterns = Patterns.of(values, MODULES)

    assert patterns is not None
    for module in MODULES:
        assert patterns.find(module, -1) == _as_peft(values, module, -1)


@pytest.mark.parametrize(
    "key",
    [
        "(a+)+b", "(a|a)*b", "(.|.)(.|.)(.|.)(.|.)(.|.)(.|.)(.|.)(.|.)", ".*.*.*.*x", "a?a?a?aaa",
        "(?=a)", r"(a)\1", "a{1,1000}", "(", ")", "[", "*", "**", "a" * 201, "é", "a b", "[a--b]",
        "[[a]]", r"\w+", "(?i)a",
    ],
)  # fmt: skip
def test_what_may_cost_for_ever_or_is_no_expression_is_not_followed(key: str) -> None:
    assert Patterns.of({key: 1}, MODULES) is None


def test_many_keys_that_are_cheap_alone_may_be_too_many() -> None:
    costly = {f".*{number}.*": 1 for number in range(20)}
    plain = {f"layers.{number}.q_proj": 1 for number in range(257)}

    assert Patterns.of(costly, MODULES) is None
    assert Patterns.of(plain, MODULES) is None
    assert Patterns.of(dict(list(plain.items())[:256]), MODULES) is not None


def test_every_module_of_a_large_base_may_be_named() -> None:
    modules = [f"model.layers.{layer}.mlp.{name}" for layer in range(300) for name in "abcdefg"]
    patterns = Patterns.of({name: place for place, name in enumerate(modules)}, modules)

    assert patterns is not None
    assert [patterns.find(name, -1) for name in modules] == list(range(2100))
    assert Patterns.of({f"{name}{i}": 1 for name in modules for i in "xy"}, modules) is None
