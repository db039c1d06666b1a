"""What a gateway is told of a plan, as its document says it."""

from pathlib import Path

import pytest

from freehold.operate.decisions.planning import plan_job
from freehold.serve.replies.decisions import Plan

_WORK = {
    "requests_per_day": "300k",
    "prompt": 800,
    "answer": 200,
    "region": "us",
    "models": ["llama-3.1-8b", "mistral-7b-v0.1", "gpt-5-mini"],
}


def _asked(**rules: float) -> dict[str, object]:
    work = {**_WORK, "rules": {"users_a_month": 1000, **rules}}
    return {"workload": work, "name": "work", "today": "2026-12-01", "top": 3, "settings": {}}


def test_a_plan_tells_other_volumes_and_what_would_change_it(tmp_path: Path) -> None:
    told = plan_job(tmp_path, _asked())
    assert set(told) == set(Plan.model_fields)
    found = Plan.model_validate(told)
    assert len(found.break_even.points) == 17
    assert found.break_even.points[0].requests_a_day == pytest.approx(3_000)
    assert found.sensitivity is not None
    assert found.sensitivity.base.model == found.ranked[0].option.model
    assert {each.name for each in found.sensitivity.effects} >= {"Prices of rented machines"}


def test_where_nothing_is_possible_there_is_nothing_to_change(tmp_path: Path) -> None:
    told = plan_job(tmp_path, _asked(least_mmlu=99.9))
    found = Plan.model_validate(told)
    assert found.ranked == found.break_even.points == []
    assert found.sensitivity is None
