"""Where prices come from: the settings, and what an own machine costs."""

import math
from decimal import Decimal

from freehold.config.schema import MachineSettings, ModelPrice, PriceSettings
from freehold.core.price import MILLION, Price, Rates, micro
from freehold.deploy.probe import Machine as Probed
from freehold.deploy.speed import Speed
from freehold.serve.prices import Machine

_HOURS_A_YEAR, _HOURS_A_MONTH = Decimal("8766"), Decimal("730.5")
# What a processor with its 4 GiB is rented for where nobody said what the machine costs:
# AWS m7i.8xlarge on demand in us-east-1, 1.6128 USD for 32 of them on 2026-07-20
# (github.com/aws/karpenter-provider-aws, zz_generated.pricing_aws.go).
ASSUMED_CORE_HOUR_USD = Decimal("0.0504")
# What a cache knew costs memory, and next to no computing.
_CACHED_SHARE = 10


def machine_cost(settings: PriceSettings, currency: str, machine: Probed) -> Machine | None:
    """None where nothing is known in this currency."""
    costs = settings.machine
    if costs.per_hour is not None:
        return _told(costs.per_hour, costs.busy, "settings")
    if costs.purchase is not None:
        return _told(_owned(costs), costs.busy, "settings")
    rate = for_a_dollar(settings, currency)
    if rate is None:
        return None
    assumed = machine.cores * ASSUMED_CORE_HOUR_USD * rate
    return _told(assumed, costs.busy, "assumed: rented processors", is_assumed=True)


def _told(per_hour: Decimal, busy: float, source: str, *, is_assumed: bool = False) -> Machine:
    return Machine(micro(per_hour), busy, source, is_assumed)


def _owned(costs: MachineSettings) -> Decimal:
    spread = (costs.purchase or Decimal(0)) / (Decimal(costs.lifetime_years) * _HOURS_A_YEAR)
    power = Decimal(costs.watts) / 1000 * costs.per_kwh
    return spread + power + costs.per_month / _HOURS_A_MONTH


def for_a_dollar(settings: PriceSettings, currency: str) -> Decimal | None:
    if settings.for_a_dollar is not None:
        return settings.for_a_dollar
    return Decimal(1) if currency == "USD" else None


def of_machine(machine: Machine, speed: Speed) -> Price:
    """Each token costs the seconds that it takes the whole machine, those included in which
    nobody asks anything."""
    a_second = machine.micro_per_hour / 3600 / machine.busy
    read = math.ceil(a_second * MILLION / speed.read_per_s)
    made = math.ceil(a_second * MILLION / speed.made_per_s) if speed.made_per_s else 0
    return Price(Rates(read, made, -(-read // _CACHED_SHARE)), source=machine.source)


def of_settings(given: ModelPrice) -> Price:
    cached = given.input if given.cached is None else given.cached
    return Price(Rates(micro(given.input), micro(given.output), micro(cached)), (), "settings")
