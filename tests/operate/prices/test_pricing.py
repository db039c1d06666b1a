"""Where prices come from."""

from decimal import Decimal
from typing import Any

import pytest

from freehold.config.schema import PriceSettings
from freehold.core.price import Rates
from freehold.deploy.probe import Machine as Probed
from freehold.deploy.speed import Speed
from freehold.operate.prices import pricing

_PROBED = Probed("a processor", 8, 2**34, 2**33)


def _settings(**machine: Any) -> PriceSettings:
    return PriceSettings.model_validate({"machine": machine})


def _per_hour(settings: PriceSettings, currency: str = "USD") -> int:
    machine = pricing.machine_cost(settings, currency, _PROBED)
    assert machine is not None
    return machine.micro_per_hour


def test_an_own_machine_costs_its_purchase_its_power_and_its_place() -> None:
    bought = _settings(purchase=8766 * 4, lifetime_years=4)
    assert _per_hour(bought) == 1_000_000
    powered = _settings(purchase=0, watts=500, per_kwh="0.30")
    assert _per_hour(powered) == 150_000
    housed = _settings(purchase=0, per_month="73.05")
    assert _per_hour(housed) == 100_000


def test_a_rented_machine_costs_its_rent() -> None:
    assert _per_hour(_settings(per_hour="2.5")) == 2_500_000
    with pytest.raises(ValueError, match="rented machine or purchase"):
        _settings(per_hour=1, purchase=1)


def test_a_machine_of_which_nothing_is_said_is_not_for_free() -> None:
    machine = pricing.machine_cost(PriceSettings(), "USD", _PROBED)
    assert machine is not None
    assert machine.is_assumed
    assert machine.micro_per_hour == 8 * 50_400
    assert pricing.machine_cost(PriceSettings(), "EUR", _PROBED) is None
    assert _per_hour(PriceSettings(for_a_dollar=Decimal("0.5")), "EUR") == 4 * 50_400


def test_tokens_pay_for_the_time_in_which_nobody_asks() -> None:
    machine = pricing.machine_cost(_settings(per_hour="3.6", busy=0.5), "USD", _PROBED)
    assert machine is not None
    price = pricing.of_machine(machine, Speed(1000, 100, 8, 0))
    # 0.002 a second of busy time: a million tokens read take 1,000 s, made 10,000.
    assert price.rates == Rates(2_000_000, 20_000_000, 200_000)
    assert pricing.of_machine(machine, Speed(1000, None, 8, 0)).rates.output == 0
