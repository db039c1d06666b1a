"""Small prices and options with round numbers, so that costs can be worked out by hand."""

from dataclasses import replace
from datetime import date

from freehold.core.facts import (
    Accelerator,
    ApiPrice,
    Egress,
    EmbeddingPrice,
    ModelFacts,
    RentPrice,
    Source,
)
from freehold.core.plan import Economics, Lengths, Option, Precision, Way, Workload
from freehold.decide.money.assumptions import Assumptions
from freehold.decide.money.cost import Offer, Surroundings

START = date(2026, 12, 1)
A_PAGE = Source("https://prices.example", date(2026, 8, 1))
# 24,000 requests a day are 24,000 × 730 ÷ 24 = 730,000 a month.
WORK = Workload("work", 24_000, prompt=Lengths((1000,)), answer=Lengths((200,)))
API = ApiPrice("Seller", "big", "Big", 2.0, 0.5, 8.0, None, A_PAGE)
CARD = Accelerator(
    "l4", "L4", "NVIDIA", "gpu", 24.0, 300.0, 121.0, 121.0, 242.0, 242.0, 72.0, 2023, (A_PAGE,)
)
BOARD = replace(CARD, id="h100_sxm", memory_gb=80.0, bf16_tflops=1000.0, power_w=700.0)
MODEL = ModelFacts(
    "small-8b", "Small 8B", 8.0, 8.0, 32, 4096, 32, 8, 128, 128_000, 131_072, "decoder",
    "Apache-2.0", True, None, "2025-01", (), (A_PAGE,),
)  # fmt: skip
RENT = RentPrice("Cloud", "one-l4", "eu-1", "l4", 1, "on_demand", 0.8, A_PAGE)
EGRESS = Egress("Cloud", 100.0, ((10_000.0, 0.09), (50_000.0, 0.085), (None, 0.05)), 0.01, A_PAGE)
EMBEDDING = EmbeddingPrice("Seller", "embed", 0.02, 8192, A_PAGE)


def hosted(way: Way, **changes: object) -> Offer:
    option = Option(
        "an-option", way, MODEL.id, "Cloud", Precision.FP8, CARD.id, 1, "one-l4", "eu-1"
    )
    told: dict[str, object] = {"accelerator": CARD, "model": MODEL}
    if way in {Way.RENTED, Way.MANAGED}:
        told["rent"] = RENT
    return Offer(**{"option": option, **told, **changes})  # type: ignore[arg-type]


def bought(api: ApiPrice = API) -> Offer:
    return Offer(Option("an-api", Way.API, api.model, api.provider), None, api=api)


def around(assumptions: Assumptions | None = None, **changes: object) -> Surroundings:
    told = {"assumptions": assumptions or Assumptions(), "start": START, **changes}
    return Surroundings(**told)  # type: ignore[arg-type]


def economics(**changes: float) -> Workload:
    return replace(WORK, economics=replace(Economics(), **changes))
