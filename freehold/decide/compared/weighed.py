"""A plan with what it rests on: what each way costs at other volumes, and what would change it."""

from dataclasses import asdict, dataclass
from datetime import date
from typing import Any

from freehold.core.facts import Facts
from freehold.core.plan import Workload
from freehold.decide.compared.breakeven import BreakEven, break_even
from freehold.decide.compared.finalists import finalists
from freehold.decide.compared.sensitivity import Sensitivity, sensitivity
from freehold.decide.money.assumptions import Assumptions
from freehold.decide.ways.at_hand import AtHand
from freehold.decide.ways.planner import Plan, Replicas


@dataclass(frozen=True, slots=True)
class Weighed:
    plan: Plan
    break_even: BreakEven
    sensitivity: Sensitivity | None  # None: nothing is possible

    def as_plain(self) -> dict[str, Any]:
        """Without the plan, for machines."""
        return {
            "break_even": {
                "points": [
                    {
                        "requests_a_day": each.requests_a_day,
                        "by_way": {way.value: asdict(of) for way, of in each.by_way.items()},
                    }
                    for each in self.break_even.points
                ],
                "crossings": [
                    {**asdict(each), "why": each.why} for each in self.break_even.crossings
                ],
            },
            "sensitivity": self.sensitivity and asdict(self.sensitivity),
        }


def weighed(
    found: Plan,
    workload: Workload,
    facts: Facts,
    replicas: Replicas,
    *,
    start: date,
    assumptions: Assumptions | None = None,
    at_hand: AtHand | None = None,
) -> Weighed:
    few = finalists(
        found, workload, facts, replicas, start=start, assumptions=assumptions, at_hand=at_hand
    )
    return Weighed(found, break_even(few), sensitivity(few))
