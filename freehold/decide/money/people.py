"""Who runs it and what that costs, and how many days it takes until it serves."""

from dataclasses import dataclass
from decimal import Decimal
from math import ceil

from freehold.core.plan import Economics, Option, Part, Way, Workload
from freehold.decide.money.assumptions import BOARDS, Assumptions
from freehold.decide.money.money import exact, part, shown

SENSITIVE = frozenset({"personal", "health"})


def team(way: Way, economics: Economics, assumptions: Assumptions) -> tuple[Part, ...]:
    """A share of the team by how much there is to run."""
    whole, share = exact(economics.team_a_month), assumptions[f"team_share.{way}"]
    if not whole:
        return (part("Team", "not counted: the file has no economics.team_per_month"),)
    return (
        part(
            "Team",
            f"{shown(whole)} a month × {share}: {share.why}",
            a_month=whole * share.value,
        ),
    )


def setup(option: Option, assumptions: Assumptions) -> tuple[Part, ...]:
    days, words = _setup_days(option, assumptions)
    price = assumptions["day_price"]
    return (
        part(
            "Setting up",
            f"{words} × {price}",
            once=days * price.value * assumptions.value("for_a_dollar"),
        ),
    )


def _setup_days(option: Option, assumptions: Assumptions) -> tuple[Decimal, str]:
    """Of a mix, those of both halves."""
    mixed = (option.details.get("base", Way.OWNED), Way.API)
    ways = mixed if option.way is Way.MIXED else (option.way,)
    figures = [assumptions[f"setup_days.{way}"] for way in ways]
    words = " + ".join(f"{each}: {each.why}" for each in figures)
    return sum((each.value for each in figures), Decimal(0)), f"({words})"


@dataclass(frozen=True, slots=True)
class Step:
    name: str
    days: Decimal
    why: str


@dataclass(frozen=True, slots=True)
class Delivery:
    """Steps of which buying goes on beside approval and data, and the others wait for it."""

    days: int
    steps: tuple[Step, ...]


def delivery(option: Option, workload: Workload, assumptions: Assumptions) -> Delivery:
    """Approval comes first; then buying and data go on beside each other; then it is set up
    and evaluated. The longest way through is what it takes, rounded up to days."""
    approval = _approval(option, workload, assumptions)
    buying = _buying(option, assumptions)
    data = _step("data", assumptions) if workload.tuning else None
    beside = max((each.days for each in (buying, data) if each), default=Decimal(0))
    work, words = _setup_days(option, assumptions)
    pace = assumptions["days.setup_share"]
    setting_up = Step("setting up", work * pace.value, f"{words} × {pace}")
    evaluation = _step("evaluation", assumptions)
    after = setting_up.days + evaluation.days
    days = sum((each.days for each in approval), Decimal(0)) + beside + after
    middle = tuple(each for each in (buying, data) if each)
    return Delivery(ceil(days), (*approval, *middle, setting_up, evaluation))


def _approval(option: Option, workload: Workload, assumptions: Assumptions) -> list[Step]:
    steps = [_step("approval", assumptions)]
    if option.way not in {Way.OWNED, Way.AT_HAND}:
        steps.append(_step("approval_provider", assumptions))
        if workload.rules.data_class in SENSITIVE:
            steps.append(_step("approval_sensitive", assumptions))
    return steps


def _buying(option: Option, assumptions: Assumptions) -> Step | None:
    if option.way not in {Way.OWNED, Way.MIXED} or option.details.get("base") == Way.AT_HAND:
        return None
    board = option.accelerator in BOARDS
    return _step("buying_board" if board else "buying", assumptions)


def _step(name: str, assumptions: Assumptions) -> Step:
    figure = assumptions[f"days.{name}"]
    return Step(name.replace("_", " "), figure.value, figure.why)
