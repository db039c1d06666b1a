"""This machine as a decision sees it: what it costs by the settings, and what was measured."""

from decimal import Decimal
from pathlib import Path

from freehold.catalog.facts import load_facts
from freehold.catalog.store import ModelStore
from freehold.config.schema import Settings
from freehold.decide.money.machines import UNTOLD
from freehold.deploy.measured import at_hand
from freehold.deploy.probe import read_machine


def _costs(home: Path, **settings: object):
    told = Settings.model_validate(settings)
    return at_hand(ModelStore(home), home / "cache", read_machine(), told, load_facts()).costs


def test_its_costs_are_those_of_the_settings_in_dollars(tmp_path: Path) -> None:
    own = {"machine": {"purchase": 1800, "lifetime_years": 3, "watts": 90}}
    in_dollars = _costs(tmp_path, prices=own)
    assert (in_dollars.purchase, in_dollars.lifetime_months) == (Decimal(1800), 36)
    assert in_dollars.watts == 90

    in_euros = _costs(tmp_path, currency="EUR", prices={**own, "for_a_dollar": 0.9})

    assert in_euros.purchase == 2000


def test_where_nobody_says_what_a_dollar_is_its_costs_are_not_taken_for_dollars(
    tmp_path: Path,
) -> None:
    assert _costs(tmp_path, currency="EUR", prices={"machine": {"purchase": 1800}}) == UNTOLD


def test_a_machine_that_measured_nothing_says_so_and_is_not_taken_for_one_of_the_facts(
    tmp_path: Path,
) -> None:
    here = at_hand(
        ModelStore(tmp_path), tmp_path / "cache", read_machine(), Settings(), load_facts()
    )
    assert here.measured == ()
    assert here.is_measured(here.accelerator.id)
    assert here.accelerator.memory_gb
