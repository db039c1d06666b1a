from datetime import date
from pathlib import Path

import pytest

from freehold.catalog.facts import ages, load_facts
from freehold.core.errors import Code, UserError

FACTS = load_facts()


def _with(tmp_path: Path, name: str, text: str) -> Path:
    (tmp_path / "facts").mkdir(exist_ok=True)
    (tmp_path / "facts" / name).write_text(text)
    return tmp_path


def _refusal(tmp_path: Path, name: str, text: str) -> str:
    with pytest.raises(UserError) as refused:
        load_facts(_with(tmp_path, name, text))
    assert refused.value.code is Code.FILE_INVALID
    assert str(tmp_path / "facts" / name) in refused.value.message
    return refused.value.message


def test_everything_in_the_package_is_read_and_refers_to_what_is_there() -> None:
    assert FACTS.accelerators["t4"].memory_gb == 16
    assert FACTS.accelerators["b200_sxm"].fp4_tflops == 9000
    assert FACTS.models["llama-3.1-8b"].kv_heads == 8
    assert FACTS.models["deepseek-v3"].kv_lora_rank == 512
    assert {each.term for each in FACTS.rents} >= {"on_demand", "spot", "reserved_1yr"}
    assert any(each.long_context for each in FACTS.apis)
    assert FACTS.egress[0].tiers[-1][0] is None
    named = {each.model for each in FACTS.measured} - {""}
    assert named <= set(FACTS.models)
    assert all(each.source.where for each in FACTS.measured)


def test_a_rate_for_each_accelerator_becomes_that_of_all(tmp_path: Path) -> None:
    home = _with(
        tmp_path,
        "throughput.yaml",
        "cases: [{id: t44, accelerator_count: 3}]",
    )

    case = next(each for each in load_facts(home).measured if each.id == "t44")

    assert case.tokens_per_s == 3 * 6818


def test_a_users_row_changes_what_it_names_and_keeps_the_rest(tmp_path: Path) -> None:
    home = _with(tmp_path, "hardware.yaml", "accelerators: [{id: t4, memory_gb: 15}]")

    changed = load_facts(home).accelerators

    assert changed["t4"].memory_gb == 15
    assert changed["t4"].bandwidth_gb_s == FACTS.accelerators["t4"].bandwidth_gb_s
    assert list(changed) == list(FACTS.accelerators)


def test_a_users_new_row_names_their_file_as_its_source(tmp_path: Path) -> None:
    text = (
        "schema: freehold-facts/cloud_prices/1\n"
        "prices:\n"
        "- {provider: Ours, instance: rack, accelerator: l4, accelerator_count: 2,\n"
        "   term: on_demand, usd_per_hour: 0.4, date: 2026-11-01}\n"
    )

    rents = load_facts(_with(tmp_path, "our prices.yaml", text)).rents

    assert len(rents) == len(FACTS.rents) + 1
    assert rents[-1].region == ""
    assert rents[-1].source.where.endswith("our prices.yaml")
    assert rents[-1].source.at == date(2026, 11, 1)


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        (
            "hardware.yaml",
            "accelerators:\n- id: t4\n  memory: 16\n",
            "line 3: `memory` is no field",
        ),
        ("hardware.yaml", "accelerators:\n- id: mine\n", "line 2: `name` is missing"),
        ("hardware.yaml", "accelerators:\n\n- {id: t4, memory_gb: -1}\n", "line 3: `memory_gb`"),
        ("hardware.yaml", "accelerators:\n- {id: t4, cores: 1.5}", "line 2: `cores` must be a wh"),
        ("hardware.yaml", "accelerators:\n- {id: t4, memory_gb: yes}", "must be a number"),
        ("hardware.yaml", "accelerators:\n- {id: t4, memory_gb: .nan}", "must be a number"),
        ("hardware.yaml", "accelerators: 3", "line 1: `accelerators` must be a list"),
        ("hardware.yaml", "accelerators: [3]", "must be a list of rows"),
        ("models.yaml", "models:\n- {id: phi-4, commercial_use: maybe}", "true or false"),
        ("throughput.yaml", "cases:\n- {id: t01, set: later}", "is fit or acceptance"),
        ("cloud_prices.yaml", "rents: []", "`rents` is no list of cloud_prices"),
        ("cloud_prices.yaml", "egress:\n- {provider: AWS, date: 2026-13}", "must be a date"),
        ("prices.yaml", "prices: []", "it is of 'prices', and facts are of hardware, models"),
        ("models.yaml", "models: [", "this is not YAML"),
        ("models.yaml", "- 3", "has names and what they mean"),
    ],
)
def test_a_wrong_field_is_named_with_its_file_and_line(
    tmp_path: Path, name: str, text: str, told: str
) -> None:
    assert told in _refusal(tmp_path, name, text)


def test_the_age_of_each_part_and_of_its_rows_is_told() -> None:
    told = {each.part: each for each in ages(FACTS, date(2026, 12, 3))}

    assert set(told) == {"hardware", "models", "throughput", "cloud_prices", "api_prices"}
    assert told["hardware"].compiled_days == 7
    prices = told["cloud_prices"]
    assert prices.oldest_row_days is not None
    assert prices.newest_row_days is not None
    assert prices.oldest_row_days > prices.newest_row_days > 10
    assert prices.rows_without_date == sum(
        each.source.at is None for each in (*FACTS.rents, *FACTS.egress)
    )
