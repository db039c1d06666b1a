"""What a cost needs and no published fact says: a table of defaults, each of which a user can
replace. A formula that uses one says "assumed" until they did."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import date
from decimal import Decimal
from difflib import get_close_matches

from freehold.core.errors import Code, UserError
from freehold.core.plan import Workload
from freehold.decide.money.money import exact, shown


@dataclass(frozen=True, slots=True)
class Figure:
    value: Decimal
    unit: str
    why: str
    assumed: bool = True

    def __str__(self) -> str:
        note = " (assumed)" if self.assumed else ""
        return f"{shown(self.value, 6)}{' ' + self.unit if self.unit else ''}{note}"


def _figures(rows: Mapping[str, tuple[str, str, str]]) -> dict[str, Figure]:
    return {name: Figure(Decimal(value), unit, why) for name, (value, unit, why) in rows.items()}


_STREET = "street price of a card in 2026, to be replaced by your own quotation"
_BOARD = "an eighth of an eight-way board, to be replaced by your own quotation"

AS_OF = date(2026, 11, 26)  # when they were put together
DEFAULTS: Mapping[str, Figure] = _figures(
    {
        "for_a_dollar": ("1", "of your currency", "the plan is in dollars unless you say more"),
        # Buying: no vendor publishes what accelerators cost.
        "price.t4": ("900", "USD", _STREET),
        "price.l4": ("2800", "USD", _STREET),
        "price.a10": ("3200", "USD", _STREET),
        "price.a30": ("4500", "USD", _STREET),
        "price.l40s": ("8500", "USD", _STREET),
        "price.rtx_4090": ("2200", "USD", _STREET),
        "price.rtx_5090": ("3000", "USD", _STREET),
        "price.a100_80gb_pcie": ("14000", "USD", _STREET),
        "price.h100_pcie": ("25000", "USD", _STREET),
        "price.h100_nvl_94gb": ("28000", "USD", _STREET),
        "price.a100_80gb_sxm": ("15000", "USD", _BOARD),
        "price.h100_sxm": ("30000", "USD", _BOARD),
        "price.h200_sxm": ("34000", "USD", _BOARD),
        "price.b200_sxm": ("44000", "USD", _BOARD),
        "price.mi300x": ("17000", "USD", _BOARD),
        "server_price": ("9000", "USD", "a server for up to eight cards, without them"),
        "board_server_price": (
            "70000",
            "USD",
            "a server for an eight-way board; with eight H100 310,000, as quoted in 2024",
        ),
        "server_w": ("400", "W", "the server beside its cards"),
        "machine_w": ("150", "W", "a machine without accelerators, as it is"),
        "board_server_w": ("3000", "W", "the server beside its board: fans, switches, network"),
        "power_share": ("0.7", "of rated power", "on the average of a month"),
        "hosting_per_kw": ("150", "USD a kW a month", "space, cooling and line, without power"),
        "spare_share": ("0.05", "of the price", "parts kept beside, bought at once"),
        # What is paid by the hour.
        "spot_spare_replicas": ("1", "replicas", "what is taken away needs a place to go"),
        # Availability.
        "replica_availability": ("0.995", "of the time", "engine, machine and changes"),
        "zone_availability": ("0.9995", "of the time", "power, cooling and network of a place"),
        "zones": ("3", "zones", "as most regions of clouds have them"),
        "places": ("1", "places", "where your own machines stand"),
        "api_availability": ("0.998", "of the time", "put in what your contract says"),
        "api_ttft_ms": ("1000", "ms", "at the 95th percentile; measure yours"),
        "api_tpot_ms": ("25", "ms a token", "at the 95th percentile; measure yours"),
        "api_context_tokens": ("32000", "tokens", "where none is published; look yours up"),
        # Regions.
        "regional_surcharge.OpenAI": (
            "0.1",
            "of the price",
            "published for models since March 2026, in a region that is asked for",
        ),
        # Training.
        "training_mfu": (
            "0.25",
            "of peak",
            "LoRA by PEFT with activations computed again: 0.17 (3 B) and 0.24 (8 B) on an H200 "
            "(bench/gpu_steps.py), 0.35 on an A100 (Qwen-7B, README of QwenLM/Qwen)",
        ),
        "activations_share": ("0.2", "of the rest", "batch and sequence decide"),
        "embedding_room": (
            "0.1",
            "of the memory for the cache",
            "what an embedding model may take of it, so that nine tenths are left",
        ),
        # People.
        "team_share.api": ("0.1", "of the team", "somebody watches keys and bills"),
        "team_share.managed": ("0.3", "of the team", "no machines, but versions and models"),
        "team_share.rented": ("0.8", "of the team", "all but the hardware"),
        "team_share.owned": ("1", "of the team", "what the team is for"),
        "team_share.at_hand": ("1", "of the team", "what the team is for"),
        "team_share.mixed": ("1", "of the team", "own machines beside an API"),
        "day_price": ("800", "USD a person and day", "of those who set it up"),
        "setup_days.api": ("3", "person-days", "client, keys, limits"),
        "setup_days.managed": ("8", "person-days", "endpoint, model, network"),
        "setup_days.rented": ("15", "person-days", "machines, gateway, model, watching"),
        "setup_days.owned": ("30", "person-days", "the same, and hardware on the floor"),
        "setup_days.at_hand": ("8", "person-days", "gateway, model, watching"),
        # Carbon.
        "grid_kg_per_kwh": ("0.45", "kg CO2e a kWh", "about the average of the world's grids"),
        "carbon_price_a_tonne": ("0", "USD", "counted where you have a price for it"),
        # Time to deliver, in days.
        "days.buying": ("60", "days", "order to rack, for cards and servers"),
        "days.buying_board": ("90", "days", "order to rack, for eight-way boards"),
        "days.approval": ("10", "days", "security and purchasing look at it"),
        "days.approval_provider": ("10", "days", "a provider's contract beside that"),
        "days.approval_sensitive": ("15", "days", "personal or health data: an assessment"),
        "days.setup_share": ("0.5", "days a person-day", "two people at a time"),
        "days.data": ("15", "days", "examples for tuning, gathered and checked"),
        "days.evaluation": ("5", "days", "does it answer well enough"),
    }
)
# Sold as boards of eight with a server around them.
BOARDS = frozenset({"a100_80gb_sxm", "h100_sxm", "h200_sxm", "b200_sxm", "mi300x"})
SERVER_CARDS = 8
_NEVER_ZERO = frozenset({"for_a_dollar", "training_mfu", "zones", "places"})
_MOST = {"zones": 20, "places": 20, "spot_spare_replicas": 1000}
_SHARES = frozenset(
    {"replica_availability", "zone_availability", "api_availability", "power_share"}
    | {"training_mfu", "embedding_room"}
    | {name for name in DEFAULTS if name.startswith("team_share.")}
)


@dataclass(frozen=True)
class Assumptions:
    figures: Mapping[str, Figure] = field(default_factory=lambda: DEFAULTS)

    def __getitem__(self, name: str) -> Figure:
        try:
            return self.figures[name]
        except KeyError:
            near = get_close_matches(name, self.figures, 3)
            known = "near it are " if near else "there are "
            known += ", ".join(near or sorted(self.figures))
            raise _refused(name, f"There is no assumption {name[:80]!r}; {known}.") from None

    def value(self, name: str) -> Decimal:
        return self[name].value

    def of(self, workload: Workload) -> "Assumptions":
        """With the figures that a workload says itself. What a tonne costs is in its currency."""
        made = self.given(dict(workload.assumptions))
        told: dict[str, Decimal] = {}
        carbon = workload.carbon
        if carbon is not None and carbon.grid_kg_per_kwh is not None:
            told["grid_kg_per_kwh"] = exact(carbon.grid_kg_per_kwh)
        if carbon is not None and carbon.price_a_tonne:
            told["carbon_price_a_tonne"] = exact(carbon.price_a_tonne) / made.value("for_a_dollar")
        return made.given(told)

    def price(self, accelerator: str) -> Figure | None:
        """What one costs to buy; None where nobody sells it."""
        return self.figures.get(f"price.{accelerator}")

    def given(self, values: Mapping[str, float | Decimal]) -> "Assumptions":
        """With the user's own figures in place of these. The price of an accelerator may be
        new; any other name must be one of the table."""
        figures = dict(self.figures)
        for name, value in values.items():
            if exact(value) < 0:
                raise _refused(name, f"{name} is {value}, and cannot be below zero.")
            if name in _NEVER_ZERO and exact(value) == 0:
                raise _refused(name, f"{name} is zero, and nothing comes of that.")
            if exact(value) > _MOST.get(name, 10**12):
                raise _refused(name, f"{name} is {value}, and {_MOST.get(name, 10**12)} at most.")
            if name in _SHARES and exact(value) > 1:
                raise _refused(name, f"{name} is {value}, and is a share: it is one at most.")
            if name.startswith("price.") and name not in figures:
                figures[name] = Figure(exact(value), "USD", "yours", assumed=False)
            else:
                figures[name] = replace(self[name], value=exact(value), why="yours", assumed=False)
        return Assumptions(figures)


def _refused(name: str, why: str) -> UserError:
    return UserError(Code.INVALID_VALUE, why, param=f"assumptions.{name}")
