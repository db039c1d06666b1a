"""A decision as one page: nothing in it runs, and nothing is fetched from elsewhere."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from datetime import date
from functools import cached_property
from typing import TYPE_CHECKING, Any

from freehold.catalog.facts import ages
from freehold.cli.pages import charts
from freehold.cli.pages.file import money, rendered
from freehold.cli.words.option import model_of, place_of, told
from freehold.core.plan import Basis, Economics, Verdict, Way
from freehold.decide.compared.breakeven import WORDS, rounded
from freehold.decide.compared.finalists import best_by_way
from freehold.decide.money.assumptions import AS_OF, Assumptions
from freehold.decide.money.money import shown
from freehold.decide.ways.reasons import is_llm, is_old, unsaid

if TYPE_CHECKING:
    from freehold.core.facts import Facts, Source
    from freehold.core.plan import Judged, Workload
    from freehold.decide.compared.nearest import Nothing
    from freehold.decide.compared.sensitivity import Change, Effect
    from freehold.decide.compared.weighed import Weighed
    from freehold.decide.ways.planner import Ranked, Rejected

_TOP, _ITEMS, _GROUPS = 20, 25, 40
_WIDE, _NARROW, _HIGH = 720, 340, 360
_TENTH = 0.1  # shares below it are told to a tenth of a percent
_NAMES = {
    Way.API: "Buy",
    Way.MANAGED: "Managed endpoint",
    Way.RENTED: "Rent",
    Way.OWNED: "Own",
    Way.AT_HAND: "At hand",
    Way.MIXED: "Mix",
}


def page(
    weighed: "Weighed",
    workload: "Workload",
    facts: "Facts",
    start: date,
    nothing: "Nothing | None" = None,
) -> str:
    """All text in it is escaped by the template. `nothing` says what is nearest where no option
    is left."""
    return rendered("decision", _View(weighed, workload, facts, start, nothing))


@dataclass(frozen=True, slots=True)
class _Group:
    reason: str
    count: int
    items: tuple[tuple[str, str], ...]
    only_unknown: bool

    @property
    def more(self) -> int:
        return self.count - len(self.items)


@dataclass(frozen=True, slots=True)
class _Used:
    """A figure or a fact that the decision rests on."""

    what: str
    value: str
    source: str
    at: date | None
    days: int | None
    is_old: bool = False


@dataclass(frozen=True, slots=True)
class _Shown:
    """An option with what is said beside it."""

    rank: int
    ranked: "Ranked"
    months: int
    llm: "Judged"

    @property
    def way(self) -> str:
        return self.ranked.option.way.value

    @property
    def name(self) -> str:
        return _NAMES[self.ranked.option.way]

    @property
    def model(self) -> str:
        return model_of(self.ranked)

    @property
    def place(self) -> str:
        return place_of(self.ranked)

    @property
    def a_month(self) -> float:
        return float(self.ranked.over_horizon) / self.months

    @property
    def slices(self) -> tuple[charts.Slice, ...]:
        return charts.slices(self.ranked.cost.parts, self.months)

    @property
    def is_llm(self) -> str:
        return {"pass": "LLM", "fail": "no LLM", "unknown": "LLM: not known"}[
            self.llm.verdict.value
        ]

    @property
    def waits(self) -> str:
        predicted = self.ranked.predicted
        if predicted is None or predicted.ttft_ms is None or predicted.tpot_ms is None:
            return ""
        return f"{predicted.ttft_ms:,.0f} ms, then {predicted.tpot_ms:,.0f} ms a token"

    @property
    def basis(self) -> str:
        predicted = self.ranked.predicted
        words = {
            Basis.SIMULATED: "simulated",
            Basis.CLOSED_FORM: "by a formula",
            Basis.ASSUMED: "assumed: nobody measured it",
            Basis.GIVEN: "as you said",
        }
        return "" if predicted is None else words[predicted.basis]


class _View:
    """What the template asks for."""

    def __init__(
        self,
        weighed: "Weighed",
        workload: "Workload",
        facts: "Facts",
        start: date,
        nothing: "Nothing | None",
    ) -> None:
        self.plan, self.sensitivity = weighed.plan, weighed.sensitivity
        self.break_even = weighed.break_even
        self.workload, self.start, self.nothing = workload, start, nothing
        self._facts = facts
        self._assumptions = Assumptions().of(workload)
        self.months = workload.horizon_months
        self.names = {way.value: name for way, name in _NAMES.items()}
        self.money = "USD" if self._assumptions["for_a_dollar"].assumed else "of your currency"

    # 1. The answer.

    @cached_property
    def first(self) -> _Shown | None:
        return self._shown(0) if self.plan.ranked else None

    @property
    def notes(self) -> tuple[str, ...]:
        """On the first, and on what was not said."""
        return (*self.plan.ranked[0].notes, *unsaid(self.workload))

    @property
    def answer(self) -> str:
        words = told(self.plan.ranked[0])
        return words[:1].upper() + words[1:]

    @cached_property
    def others(self) -> list[_Shown]:
        """The best of each other way, the cheapest first."""
        return self.best[1:]

    @property
    def missing(self) -> str:
        """Ways with no option at all."""
        ways = [WORDS[way] for way in Way if way not in {e.ranked.option.way for e in self.best}]
        return ", ".join(ways)

    # 2. Options.

    @cached_property
    def best(self) -> list[_Shown]:
        firsts = {id(each) for each in best_by_way(self.plan).values()}
        return [self._shown(n) for n, e in enumerate(self.plan.ranked) if id(e) in firsts]

    @cached_property
    def options(self) -> list[_Shown]:
        """The best of each way, then the others of the first twenty."""
        best = self.best
        taken = {each.rank for each in best}
        top = range(min(_TOP, len(self.plan.ranked)))
        return [*best, *(self._shown(n) for n in top if n + 1 not in taken)]

    def _shown(self, place: int) -> _Shown:
        each = self.plan.ranked[place]
        return _Shown(place + 1, each, self.months, is_llm(each.offer, self._facts))

    # 3. Other volumes.

    @cached_property
    def ways(self) -> list[Way]:
        points = self.break_even.points
        return [way for way in Way if any(way in each.by_way for each in points)]

    @cached_property
    def curves(self) -> list[charts.Curves]:
        if not any(e.a_month > 0 for p in self.break_even.points for e in p.by_way.values()):
            return []
        return [
            charts.curves(self.break_even, self.ways, width, _HIGH) for width in (_WIDE, _NARROW)
        ]

    @property
    def never_crossed(self) -> str:
        point = self.break_even.points[0]
        low, high = (rounded(self.break_even.points[at].requests_a_day) for at in (0, -1))
        best = WORDS[point.way] if point.way else ""
        return f"From {low} to {high} requests a day, {best} is the cheapest."

    volume = staticmethod(rounded)

    # 4. What would change it.

    @cached_property
    def tornados(self) -> list[charts.Tornado]:
        found = self.sensitivity
        if found is None:
            return []
        drawn = [charts.tornado(found, self.value, width) for width in (_WIDE, _NARROW)]
        return [each for each in drawn if each is not None]

    def value(self, effect: "Effect", value: float) -> str:
        if effect.unit in {"×", "of one"}:
            return f"{shown(value * 100, 0 if value > _TENTH else 1)} %"
        if effect.unit == "money":
            return f"{money(value)} {self.money}"
        return f"{shown(value)} {effect.unit}".strip()

    def changed(self, effect: "Effect", change: "Change") -> str:
        at, told_as = self.value(effect, change.at), self.value(effect, effect.base)
        beside = "of what was told" if effect.unit == "×" else f"instead of {told_as}"
        if change.way is None:
            better = "nothing is possible"
        elif change.is_way:
            better = f"{WORDS[change.way]} ({change.model}) is the better choice"
        else:
            better = f"the way stays, and {change.model} is the better model"
        return f"{effect.name} at about {at} {beside}: {better}."

    # 5. What it rests on.

    @cached_property
    def figures(self) -> tuple[list[_Used], list[_Used]]:
        """What was told, and what is assumed until it is."""
        rows = [*self._economics(), *self._assumed()]
        return [row for row, is_told in rows if is_told], [
            row for row, is_told in rows if not is_told
        ]

    def _economics(self) -> Iterator[tuple[_Used, bool]]:
        usual = Economics()
        for field in fields(Economics):
            value = getattr(self.workload.economics, field.name)
            is_told = value != getattr(usual, field.name)
            yield self._figure(field.name, shown(value, 4), "the workload file", is_told), is_told

    def _assumed(self) -> Iterator[tuple[_Used, bool]]:
        for name, figure in self._assumptions.figures.items():
            value = f"{shown(figure.value, 6)} {figure.unit}"
            yield self._figure(name, value, figure.why, not figure.assumed), not figure.assumed

    def _figure(self, name: str, value: str, source: str, is_told: bool) -> _Used:
        if is_told:
            return _Used(name, value, source, None, None)
        why = source if source != "the workload file" else "the usual, until you say otherwise"
        return _Used(name, value, why, AS_OF, (self.start - AS_OF).days)

    @cached_property
    def used(self) -> list[_Used]:
        """The facts behind the options that are shown."""
        found: dict[tuple[str, str], _Used] = {}
        for shown_ in self.options:
            for what, value, source in _facts_of(shown_.ranked):
                found.setdefault((what, source.where), self._fact(what, value, source))
        return list(found.values())

    def _fact(self, what: str, value: str, source: "Source") -> _Used:
        days = None if source.at is None else (self.start - source.at).days
        return _Used(what, value, source.where, source.at, days, is_old(source.at, self.start))

    @cached_property
    def ages(self) -> Sequence[Any]:
        return ages(self._facts, self.start)

    # 6. What is left out.

    @cached_property
    def groups(self) -> list[_Group]:
        by_reason: dict[str, list[Rejected]] = {}
        for each in self.plan.rejected:
            by_reason.setdefault(_reason(each), []).append(each)
        made = [_group(reason, rows) for reason, rows in by_reason.items()]
        return sorted(made, key=lambda each: -each.count)

    most_groups = _GROUPS


def _facts_of(ranked: "Ranked") -> "Iterator[tuple[str, str, Source]]":
    offer = ranked.offer
    if offer.api is not None:
        api = offer.api
        value = f"{api.input_usd:g} in, {api.output_usd:g} out, USD a million tokens"
        yield f"{api.model} at {api.provider}", value, api.source
    if offer.rent is not None:
        rent = offer.rent
        value = f"{rent.usd_per_hour:g} USD an hour ({rent.term})"
        yield f"{rent.instance} at {rent.provider} {rent.region}", value, rent.source
    if offer.accelerator is not None and offer.accelerator.sources:
        card = offer.accelerator
        value = f"{card.memory_gb or 0:g} GB, {card.bandwidth_gb_s or 0:g} GB/s"
        yield card.name, value, card.sources[0]
    if offer.model is not None and offer.model.sources:
        model = offer.model
        yield model.name, f"{model.params_b:g} billion weights, {model.licence}", model.sources[0]


def _reason(each: "Rejected") -> str:
    """What many have in common: the first rule that they do not pass, or the sentence without
    its numbers and names."""
    judged = next((one for one in each.judged if one.verdict is not Verdict.PASS), None)
    if judged is not None:
        words = "is not known" if each.only_unknown else "does not pass"
        return f"{judged.rule}: {words}"
    return re.sub(r"(?<= of )\S+(?= but )|\d[\d,.]*(?= )", "…", each.why)


def _group(reason: str, rows: "Sequence[Rejected]") -> _Group:
    whys = {each.why for each in rows}
    items = tuple((each.what, each.why) for each in rows[:_ITEMS])
    title = rows[0].why if len(whys) == 1 else reason
    return _Group(title, len(rows), items, all(each.only_unknown for each in rows))
