from typing import Any

import pytest

from freehold.adapt.training import recipe
from freehold.adapt.training.recipe import LINEARS, Recipe, Sizes, recipe_of
from freehold.core.errors import Code, UserError

_TICKETS = Sizes(hidden=576, context=8192, examples=300, tokens=300 * 90)


def test_nothing_has_to_be_said() -> None:
    made = recipe_of({}, _TICKETS)
    assert made == recipe_of({"targets": "all-linear", "bits": None, "rank": None}, _TICKETS)
    assert (made.objective, made.rank, made.alpha, made.targets) == ("sft", 16, 32, LINEARS)
    assert made.epochs == 5
    assert made.batch_tokens == 8 * 90
    assert made.max_tokens == 2048


def test_much_data_is_seen_once_and_little_often() -> None:
    epochs = [
        recipe_of({}, Sizes(576, 2048, count, count * 100)).epochs for count in (20, 300, 5000)
    ]
    assert epochs == [10, 5, 1]


def test_wider_models_and_preferences_are_moved_less() -> None:
    assert recipe.rate("sft", 576) > recipe.rate("sft", 4096) > recipe.rate("dpo", 4096) > 0


def test_the_rate_rises_at_first_and_then_falls() -> None:
    made = recipe_of({"learning_rate": 1e-3}, _TICKETS)
    rates = [recipe.rate_at(made, step, 100) for step in range(100)]
    top = rates.index(max(rates))
    assert max(rates) == 1e-3
    assert 0 < top < 10
    assert rates[:top] == sorted(rates[:top])
    assert rates[top:] == sorted(rates[top:], reverse=True)
    assert rates[-1] > 0


@pytest.mark.parametrize(
    ("spec", "names"),
    [
        ({"rank": 0}, "rank"),
        ({"rank": True}, "rank"),
        ({"bits": 3}, "bits"),
        ({"objective": "grpo"}, "objective"),
        ({"targets": ["lm_head"]}, "targets"),
        ({"targets": []}, "targets"),
        ({"learning_rate": 0}, "learning_rate"),
        ({"learning_rate": float("nan")}, "learning_rate"),
        ({"epochs": 1.5}, "epochs"),
        ({"seed": -1}, "seed"),
    ],
)
def test_what_cannot_be_is_refused_by_its_name(spec: dict[str, Any], names: str) -> None:
    with pytest.raises(UserError, match=f"^{names} is ") as refused:
        recipe_of(spec, _TICKETS)
    assert (refused.value.code, refused.value.param) == (Code.INVALID_VALUE, names)


def test_no_example_is_longer_than_the_context() -> None:
    assert recipe.max_tokens({"max_tokens": 100_000}, 4096) == 4096


def test_parts_shrink_to_the_memory_that_there_is_or_it_says_what_is_needed() -> None:
    base = (270 * 2**20, 576, 30, 5_000_000)
    assert recipe.part_tokens(None, base, 100) == 1024
    most = recipe.memory_bytes(*base, 256)
    assert recipe.part_tokens(most, base, 100) == 256
    with pytest.raises(UserError, match=r"needs about .* MiB and may use") as refused:
        recipe.part_tokens(most, base, 2000)
    assert refused.value.code is Code.LIMIT_REACHED


def test_a_recipe_is_written_as_plain_values() -> None:
    made: Recipe = recipe_of({"bits": 4, "targets": ["v_proj", "q_proj"]}, _TICKETS)
    plain = made.plain()
    assert (plain["bits"], plain["targets"]) == (4, ["q_proj", "v_proj"])
