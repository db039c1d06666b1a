"""What machines cost: rented by the hour, bought, or there already."""

from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal

from freehold.core.facts import Accelerator, RentPrice
from freehold.core.plan import Economics, Option, Part, Way, Workload
from freehold.decide.money import demand
from freehold.decide.money.assumptions import BOARDS, SERVER_CARDS, Assumptions
from freehold.decide.money.money import MONTH_HOURS, annuity, exact, part, shown

SCALED_TO_ZERO = "per_second_scale_to_zero"
SPOT = frozenset({"spot", "community_or_spot"})
_SPOT_RISK = (
    "; spot capacity can be taken away within minutes and may not be there when it is wanted"
)


@dataclass(frozen=True, slots=True)
class Costs:
    """What its owner says that it costs, in dollars."""

    per_hour: Decimal | None = None
    purchase: Decimal | None = None
    lifetime_months: int = 48
    watts: Decimal = Decimal(0)
    per_kwh: Decimal = Decimal(0)
    a_month: Decimal = Decimal(0)  # housing, support


UNTOLD = Costs()


def instances(option: Option, rent: RentPrice, replicas: int) -> int | None:
    """How many instances so many replicas need; None where one doesn't hold a replica."""
    fits = rent.count // option.accelerators_a_replica if option.accelerators_a_replica else 0
    return -(-replicas // fits) if fits else None


def rented(
    option: Option,
    rent: RentPrice,
    workload: Workload,
    replicas: int,
    assumptions: Assumptions,
) -> tuple[Part, ...]:
    """Instances × 730 hours × price; what scales to zero pays the hours that it is asked in."""
    dollar = assumptions.value("for_a_dollar")
    if rent.term in SPOT:
        replicas += int(assumptions.value("spot_spare_replicas"))
    count = instances(option, rent, replicas)
    if count is None:
        return ()
    price = exact(rent.usd_per_hour)
    if rent.term == SCALED_TO_ZERO:
        hours = demand.replica_hours(workload, count)
        words = (
            f"{shown(hours)} instance-hours a month (each hour of the week has what its demand"
            f" needs of {count})"
        )
    else:
        hours = count * MONTH_HOURS
        words = f"{count} × {shown(MONTH_HOURS)} hours"
    spare = ""
    if rent.term in SPOT:
        spare = f", of which {assumptions['spot_spare_replicas']} spare{_SPOT_RISK}"
    elsewhere = f" in {rent.region}" if rent.region else ""
    return (
        part(
            f"{rent.instance} at {rent.provider}{elsewhere}",
            f"{words} × {shown(price, 6)} USD ({rent.term}) for {replicas} replicas"
            f" of {option.accelerators_a_replica} {rent.accelerator}{spare}",
            a_month=hours * price * dollar,
            source=rent.source.where,
        ),
    )


@dataclass(frozen=True, slots=True)
class Bought:
    """What has to be bought for so many accelerators. Boards come in eights."""

    accelerators: int
    servers: int
    board: bool

    @property
    def server(self) -> str:
        return "board_server" if self.board else "server"


def bought(accelerator: str, accelerators: int) -> Bought:
    board = accelerator in BOARDS
    servers = -(-accelerators // SERVER_CARDS)
    return Bought(servers * SERVER_CARDS if board else accelerators, servers, board)


def owned(
    option: Option,
    accelerator: Accelerator,
    replicas: int,
    economics: Economics,
    assumptions: Assumptions,
) -> tuple[Part, ...]:
    """The price as an annuity over the time that it is written off in, at the discount rate;
    power and hosting by what it draws. () where its price is not known."""
    price = assumptions.price(accelerator.id)
    if price is None or accelerator.power_w is None:
        return ()
    kit = bought(accelerator.id, replicas * option.accelerators_a_replica)
    server = assumptions[f"{kit.server}_price"]
    dollar = assumptions.value("for_a_dollar")
    whole = (kit.accelerators * price.value + kit.servers * server.value) * dollar
    rate = exact(economics.discount_rate)
    months = economics.amortization_months
    spare = assumptions["spare_share"]
    bill = (
        f"{kit.accelerators} {accelerator.id} × {price} + {kit.servers}"
        f" server{'s' if kit.servers > 1 else ''} × {server}"
    )
    kilowatts, drawn = _power(kit, accelerator, assumptions)
    hosting = assumptions["hosting_per_kw"]
    return (
        part(
            "Servers, written off",
            f"{bill} = {shown(whole)}, as an annuity of {months} months at"
            f" {shown(rate * 100)} % a year",
            a_month=annuity(whole, rate, months),
        ),
        part("Spare parts", f"{spare} of {shown(whole)}", once=whole * spare.value),
        _electricity(kilowatts, drawn, economics, assumptions),
        part(
            "Hosting",
            f"{shown(kilowatts, 4)} kW rated × {hosting}",
            a_month=kilowatts * hosting.value * dollar,
        ),
    )


def at_hand(
    accelerator: Accelerator,
    count: int,
    economics: Economics,
    assumptions: Assumptions,
    costs: Costs = UNTOLD,
) -> tuple[Part, ...]:
    """What its owner says that it costs; else it was bought already, whatever is decided, and only
    what it draws is counted."""
    if costs.per_hour is not None:
        return (_rented_here(costs.per_hour, assumptions),)
    bill = () if costs.purchase is None else (_bought_here(costs, economics, assumptions),)
    return (*bill, *_runs_here(accelerator, count, costs, economics, assumptions))


def _rented_here(per_hour: Decimal, assumptions: Assumptions) -> Part:
    return part(
        "This machine, rented",
        f"{shown(MONTH_HOURS)} hours × {shown(per_hour, 6)} USD (as your settings say)",
        a_month=MONTH_HOURS * per_hour * assumptions.value("for_a_dollar"),
    )


def _bought_here(costs: Costs, economics: Economics, assumptions: Assumptions) -> Part:
    rate, price, months = (
        exact(economics.discount_rate),
        (costs.purchase or Decimal(0)) * assumptions.value("for_a_dollar"),
        costs.lifetime_months,
    )
    return part(
        "This machine, written off",
        f"{shown(price)} (as your settings say), as an annuity of {months} months at"
        f" {shown(rate * 100)} % a year",
        a_month=annuity(price, rate, months),
    )


def _runs_here(
    accelerator: Accelerator,
    count: int,
    costs: Costs,
    economics: Economics,
    assumptions: Assumptions,
) -> Iterator[Part]:
    dollar = assumptions.value("for_a_dollar")
    if costs.a_month:
        yield part(
            "Housing and support",
            f"{shown(costs.a_month)} USD (as your settings say)",
            a_month=costs.a_month * dollar,
        )
    if costs.watts:
        per_kwh = costs.per_kwh * dollar or exact(economics.power_per_kwh)
        yield part(
            "Power",
            f"{shown(costs.watts)} W × {shown(MONTH_HOURS)} hours × {shown(per_kwh, 4)} a kWh"
            " (as your settings say)",
            a_month=costs.watts / 1000 * MONTH_HOURS * per_kwh,
        )
    elif accelerator.kind == "cpu":
        watts = assumptions["machine_w"]
        drawn = f"{count} × {watts}"
        yield _electricity(count * watts.value / 1000, drawn, economics, assumptions)
    elif accelerator.power_w is None:
        yield part(
            "Power of the machine at hand",
            f"not counted: nobody says what {accelerator.name} draws",
        )
    else:
        kilowatts, drawn = _power(bought(accelerator.id, count), accelerator, assumptions)
        yield _electricity(kilowatts, drawn, economics, assumptions)


def kilowatt_hours(
    option: Option, accelerator: Accelerator, replicas: int, assumptions: Assumptions
) -> Decimal:
    """A month's, at the plug of the server."""
    kit = bought(accelerator.id, replicas * option.accelerators_a_replica)
    kilowatts, _ = _power(kit, accelerator, assumptions)
    return kilowatts * assumptions.value("power_share") * MONTH_HOURS


def _power(kit: Bought, accelerator: Accelerator, assumptions: Assumptions) -> tuple[Decimal, str]:
    server = assumptions[f"{kit.server}_w"]
    watts = exact(accelerator.power_w or 0)
    rated = (kit.accelerators * watts + kit.servers * server.value) / 1000
    return rated, (
        f"({kit.accelerators} × {shown(watts)} W + {kit.servers} × {server}) = "
        f"{shown(rated, 4)} kW rated"
    )


def _electricity(
    kilowatts: Decimal, drawn: str, economics: Economics, assumptions: Assumptions
) -> Part:
    share = assumptions["power_share"]
    overhead, price = exact(economics.power_usage_effectiveness), exact(economics.power_per_kwh)
    return part(
        "Power",
        f"{drawn} × {share} × {shown(MONTH_HOURS)} hours × {shown(overhead, 4)} (PUE)"
        f" × {shown(price, 4)} a kWh",
        a_month=kilowatts * share.value * MONTH_HOURS * overhead * price,
    )


def is_managed(rent: RentPrice) -> bool:
    """Somebody else starts and stops the engines, and bills by the second."""
    return rent.term.startswith("per_second")


def way(rent: RentPrice) -> Way:
    return Way.MANAGED if is_managed(rent) else Way.RENTED
