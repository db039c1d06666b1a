"""What a month emits, where machines are known; an API does not say where it computes."""

from dataclasses import dataclass
from decimal import Decimal

from freehold.core.plan import Economics, Part
from freehold.decide.money.assumptions import Assumptions
from freehold.decide.money.money import exact, part, shown


@dataclass(frozen=True, slots=True)
class Emitted:
    kilograms_a_month: Decimal
    formula: str


def emitted(kilowatt_hours: Decimal, economics: Economics, assumptions: Assumptions) -> Emitted:
    """kWh × PUE × the grid's intensity (scope 2 by location, as the GHG Protocol has it); what
    making the machines emitted is not in it."""
    grid = assumptions["grid_kg_per_kwh"]
    overhead = exact(economics.power_usage_effectiveness)
    return Emitted(
        kilowatt_hours * overhead * grid.value,
        f"{shown(kilowatt_hours)} kWh a month × {shown(overhead, 4)} (PUE) × {grid}",
    )


def carbon(
    kilowatt_hours: Decimal, economics: Economics, assumptions: Assumptions
) -> tuple[Part, ...]:
    """A part of the cost only where emissions have a price."""
    price = assumptions["carbon_price_a_tonne"]
    if not price.value:
        return ()
    what = emitted(kilowatt_hours, economics, assumptions)
    return (
        part(
            "Emissions",
            f"{what.formula} = {shown(what.kilograms_a_month)} kg × {price} a tonne",
            a_month=what.kilograms_a_month / 1000 * price.value * assumptions.value("for_a_dollar"),
        ),
    )
