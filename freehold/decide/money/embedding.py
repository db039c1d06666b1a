"""Hosting a model that embeds: its memory, how long it takes, and what that costs."""

from dataclasses import dataclass
from decimal import Decimal

from freehold.core.facts import Accelerator, ModelFacts, RentPrice
from freehold.core.plan import Embedding, Option, Part, Precision, Workload
from freehold.decide.money import demand, machines
from freehold.decide.money.assumptions import Assumptions
from freehold.decide.money.money import MONTH_DAYS, MONTH_HOURS, exact, part, shown
from freehold.decide.speed import fitted
from freehold.decide.speed.memory import (
    FORMATS,
    activation_bytes,
    memory_of,
    table_params,
    weight_bytes,
)
from freehold.decide.speed.throughput import efficiency_of, peak_flops

_CHUNK = 512  # tokens of a passage: what each sees of the others is half of it, on the average
_BATCH = 8192  # tokens of a step


@dataclass(frozen=True, slots=True)
class Run:
    """On one accelerator."""

    model: str
    gigabytes: Decimal
    tokens_a_second: Decimal
    hours_a_month: Decimal
    hours_once: Decimal

    @property
    def words(self) -> str:
        return (
            f"{self.model} ({shown(self.gigabytes)} GB) at {shown(self.tokens_a_second, 0)}"
            " tokens a second"
        )


@dataclass(frozen=True, slots=True)
class Host:
    run: Run
    rent: RentPrice


def run(model: ModelFacts, wanted: Embedding, accelerator: Accelerator) -> Run | None:
    """The roofline of prompts (`throughput.py`): of a batch, two operations a parameter that is
    multiplied and token, and four a token that is seen and value of the heads in each layer
    (Kaplan et al. 2020, 2.1), or reading the weights once. None where its speed is not known or
    it does not fit."""
    held = weight_bytes(model, FORMATS[Precision.BF16]) + activation_bytes(model, accelerator.kind)
    peak = peak_flops(accelerator, "bf16")
    bandwidth = accelerator.measured_bandwidth_gb_s or accelerator.bandwidth_gb_s
    if not peak or not bandwidth or held > 0.9e9 * (accelerator.memory_gb or 0):
        return None
    reached = efficiency_of(fitted.VALUES, "vllm", accelerator, "bf16", False)
    multiplied = model.params_b * 1e9 - table_params(model)
    seen = 4 * (model.heads or 0) * (model.head_dim or 0) * (model.layers or 0) * _CHUNK / 2
    computing = _BATCH * (2 * multiplied + seen) / (peak * reached.compute)
    reading = 2 * multiplied / (bandwidth * 1e9 * reached.bandwidth)
    a_second = exact(_BATCH / (max(computing, reading) + reached.step_s))
    return Run(
        model.id,
        exact(held) / 10**9,
        a_second,
        exact(wanted.tokens_a_day) * MONTH_DAYS / a_second / 3600,
        exact(wanted.documents_tokens) / a_second / 3600,
    )


def free_gb(
    option: Option, model: ModelFacts, accelerator: Accelerator, workload: Workload
) -> Decimal:
    """What a replica leaves for its cache, on each of its accelerators."""
    memory = memory_of(
        model,
        accelerator,
        option.accelerators_a_replica,
        FORMATS[option.precision or Precision.BF16],
        context=demand.longest(workload),
        adapters=workload.tenants_with_adapters,
        rank=workload.adapter_rank,
    )
    return exact(max(memory.free, 0.0)) / 10**9


def shared(here: Run, idle_hours: Decimal) -> tuple[Part, ...]:
    return (
        part(
            "Embeddings",
            f"no more: {here.words} beside the model, {shown(here.hours_a_month)} of"
            f" {shown(idle_hours)} hours a month that accelerators are idle"
            + (f"; the documents take {shown(here.hours_once)} hours" if here.hours_once else ""),
        ),
    )


def rented(host: Host, wanted: Embedding, assumptions: Assumptions) -> tuple[Part, ...]:
    """A machine that is there all month where something comes each day (but what scales to zero),
    and the hours that the documents take."""
    one, rent = host.run, host.rent
    usd, dollar = exact(rent.usd_per_hour), assumptions.value("for_a_dollar")
    parts = []
    if wanted.tokens_a_day:
        zero = rent.term == machines.SCALED_TO_ZERO
        hours = one.hours_a_month if zero else MONTH_HOURS
        parts.append(
            part(
                "Embeddings",
                f"{one.words} on {rent.instance} of {rent.provider}: {shown(hours)} hours"
                f" × {shown(usd, 6)} USD",
                a_month=hours * usd * dollar,
                source=rent.source.where,
            )
        )
    if wanted.documents_tokens:
        parts.append(
            part(
                "Embedding the documents",
                f"{one.words} on {rent.instance} of {rent.provider}: {shown(one.hours_once)}"
                f" hours × {shown(usd, 6)} USD",
                once=one.hours_once * usd * dollar,
                source=rent.source.where,
            )
        )
    return tuple(parts)
