"""What a decision rests on that may turn out otherwise, and how far it is tried."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from freehold.core.facts import ApiPrice
from freehold.core.plan import Lengths, Way, Workload
from freehold.decide.compared.finalists import Case, scaled
from freehold.decide.money.money import exact

_A_PERSON = 10_000.0  # a month: tried where no team was counted


@dataclass(frozen=True, slots=True)
class Lever:
    """`put` gives the decision's inputs with another value. A `unit` of "×" is a factor of what
    was told, so that `base` is 1."""

    name: str
    unit: str
    base: float
    values: tuple[float, ...]  # that are tried, the least first
    put: Callable[[Case, float], Case]

    def near(self, value: float) -> float:
        """What can be told or bought: months are whole."""
        return float(round(value)) if self.unit == "months" else value


def levers(case: Case, ways: Sequence[Way]) -> tuple[Lever, ...]:
    """Those that can move something: power is nothing to a decision between two APIs."""
    found = [*_work(case.workload), *_machines(case, ways), *_economics(case, ways)]
    if {Way.API, Way.MIXED} & {*ways}:
        found.append(_factor("Prices of APIs", (0.5, 0.7, 1.3), _api_prices))
    if {Way.RENTED, Way.MANAGED} & {*ways}:
        found.append(_factor("Prices of rented machines", (0.5, 0.7, 1.3), _rents))
    return tuple(each for each in found if any(v != each.base for v in each.values))


def _work(workload: Workload) -> Iterator[Lever]:
    yield _factor("Requests a day", (0.5, 2.0), lambda c, by: _with(c, scaled(c.workload, by)))
    yield _factor("Length of answers", (0.5, 2.0), lambda c, by: _longer(c, by, "answer"))
    yield _factor("Length of prompts", (0.5, 2.0), lambda c, by: _longer(c, by, "prompt"))
    grown = workload.growth_a_month
    yield _work_field("Growth a month", "of one", grown, (max(0.0, grown - 0.1), grown + 0.1),
                      "growth_a_month")  # fmt: skip
    share = workload.cached_share
    yield _work_field("Prompts found again", "of one", share,
                      (max(0.0, share - 0.3), min(0.9, share + 0.3)), "cached_share")  # fmt: skip
    months = workload.horizon_months
    yield Lever(
        "Months planned for", "months", months, (max(1, months // 2), months * 2),
        lambda c, to: _with(c, replace(c.workload, horizon_months=round(to))),
    )  # fmt: skip


def _machines(case: Case, ways: Sequence[Way]) -> Iterator[Lever]:
    if not {*ways} - {Way.API}:
        return
    yield _factor("Speed of machines", (0.75, 1.25), lambda c, by: replace(c, speed=c.speed * by))
    ceiling = case.workload.economics.utilization_ceiling
    yield _economy("Ceiling of utilization", "of one", ceiling,
                   (min(0.5, ceiling), max(0.9, ceiling)), "utilization_ceiling")  # fmt: skip
    if {Way.OWNED, Way.MIXED} & {*ways}:
        yield _figures("Prices of accelerators", "price.", (0.5, 1.5))
        yield _figures("Prices of servers", ("server_price", "board_server_price"), (0.5, 1.5))
        yield _figures("Hosting", "hosting_per_kw", (0.5, 2.0))


def _economics(case: Case, ways: Sequence[Way]) -> Iterator[Lever]:
    told = case.workload.economics
    team = told.team_a_month
    yield _economy("Team a month", "money", team, (team / 2, (team or _A_PERSON) * 2),
                   "team_a_month")  # fmt: skip
    yield _figures("Days of setting up", "setup_days.", (0.5, 2.0))
    if case.assumptions["for_a_dollar"].value != 1:
        yield _figures("Price of a dollar", "for_a_dollar", (0.9, 1.1))
    if not {Way.OWNED, Way.MIXED, Way.AT_HAND} & {*ways}:
        return
    yield _economy("Power, a kWh", "money", told.power_per_kwh,
                   (told.power_per_kwh / 2, told.power_per_kwh * 2), "power_per_kwh")  # fmt: skip
    yield _economy("PUE", "", told.power_usage_effectiveness,
                   (1.1, 2.0), "power_usage_effectiveness")  # fmt: skip
    yield _economy("Discount rate a year", "of one", told.discount_rate,
                   (0.0, max(0.15, told.discount_rate * 2)), "discount_rate")  # fmt: skip
    months = told.amortization_months
    yield Lever(
        "Written off over", "months", months, (min(24, months), max(60, months)),
        lambda c, to: _with(c, _economics_of(c.workload, amortization_months=round(to))),
    )  # fmt: skip


def _factor(name: str, values: tuple[float, ...], put: Callable[[Case, float], Case]) -> Lever:
    return Lever(name, "×", 1.0, values, put)


def _figures(name: str, which: str | tuple[str, ...], values: tuple[float, ...]) -> Lever:
    """Assumptions by name, or all that begin with a word that ends in a full stop."""

    def put(case: Case, by: float) -> Case:
        figures = {
            key: replace(figure, value=figure.value * exact(by)) if _is(key, which) else figure
            for key, figure in case.assumptions.figures.items()
        }
        return replace(case, assumptions=replace(case.assumptions, figures=figures))

    return _factor(name, values, put)


def _economy(name: str, unit: str, base: float, values: tuple[float, ...], field: str) -> Lever:
    def put(case: Case, to: float) -> Case:
        return _with(case, _economics_of(case.workload, **{field: to}))

    return Lever(name, unit, base, values, put)


def _work_field(name: str, unit: str, base: float, values: tuple[float, ...], field: str) -> Lever:
    def put(case: Case, to: float) -> Case:
        changed: dict[str, Any] = {field: to}
        return _with(case, replace(case.workload, **changed))

    return Lever(name, unit, base, values, put)


def _with(case: Case, workload: Workload) -> Case:
    return replace(case, workload=workload)


def _economics_of(workload: Workload, **changed: Any) -> Workload:
    return replace(workload, economics=replace(workload.economics, **changed))


def _longer(case: Case, by: float, field: str) -> Case:
    lengths: Lengths = getattr(case.workload, field)
    longer = Lengths(tuple(max(1, round(each * by)) for each in lengths.quantiles))
    changed: dict[str, Any] = {field: longer}
    return _with(case, replace(case.workload, **changed))


def _api_prices(case: Case, by: float) -> Case:
    return replace(
        case, facts=replace(case.facts, apis=tuple(_priced(each, by) for each in case.facts.apis))
    )


def _priced(price: ApiPrice, by: float) -> ApiPrice:
    return replace(
        price,
        input_usd=price.input_usd * by,
        cached_usd=_times(price.cached_usd, by),
        output_usd=price.output_usd * by,
        long_context=tuple(
            (above, _times(read, by), _times(kept, by), _times(written, by))
            for above, read, kept, written in price.long_context
        ),
        later=tuple((day, read * by, written * by) for day, read, written in price.later),
    )


def _times(usd: float | None, by: float) -> float | None:
    return None if usd is None else usd * by


def _rents(case: Case, by: float) -> Case:
    rents = tuple(replace(each, usd_per_hour=each.usd_per_hour * by) for each in case.facts.rents)
    return replace(case, facts=replace(case.facts, rents=rents))


def _is(key: str, which: str | tuple[str, ...]) -> bool:
    if isinstance(which, tuple):
        return key in which
    return key.startswith(which) if which.endswith(".") else key == which
