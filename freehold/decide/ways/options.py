"""What could do the work: the models, formats, machines and providers of the facts, put
together. Nothing is judged here but what can't be put together at all."""

from collections.abc import Iterator
from dataclasses import replace
from decimal import Decimal

from freehold.core.facts import Accelerator, ApiPrice, Facts, ModelFacts, RentPrice
from freehold.core.plan import Option, Precision, Way, Workload
from freehold.decide.money import demand, machines
from freehold.decide.money.assumptions import Assumptions
from freehold.decide.money.cost import Offer
from freehold.decide.money.money import shown

COUNTS = (1, 2, 4, 8)  # accelerators of a replica
_BYTES = {Precision.BF16: 2.0, Precision.FP8: 1.0, Precision.INT8: 1.0, Precision.INT4: 0.5}
_NATIVE = {"mxfp4": Precision.INT4, "fp8": Precision.FP8}
# What vendors add to a model's name, which does not make it another.
_NO_OTHER_MODEL = frozenset(
    {"meta", "instruct", "turbo", "instant", "versatile", "fp8", "16e", "17b", "128e"}
)


# Endpoints in one's own cloud that are sold by units of their own: nobody publishes what a unit
# takes of a model that we know.
_BY_UNITS = (
    "Neither what a unit costs nor what it takes of a model is published in figures that can be"
    " checked: put your quotation into a file of your own facts (cloud_prices, with a term of"
    " per_second_always_on), and it is ranked."
)
UNPRICED = {
    "managed/Azure OpenAI/provisioned throughput (PTU)": _BY_UNITS,
    "managed/AWS (Bedrock)/provisioned throughput": _BY_UNITS,
    "managed/Google (Vertex AI)/provisioned throughput": _BY_UNITS,
    "managed/AWS (SageMaker)/endpoints": (
        "What SageMaker asks for its instances is not among the facts: put it into a file of your"
        " own facts (cloud_prices, with a term of per_second_always_on), and it is ranked."
    ),
}


def canonical(model: str) -> str:
    """The name that offers of one model have in common: `meta-llama/Llama-3.3-70B-Instruct-Turbo`
    and `llama-3.3-70b-versatile` are `llama-3.3-70b`."""
    words = model.rsplit("/", 1)[-1].lower().replace("llama3", "llama-3").split("-")
    return "-".join(each for each in words if each not in _NO_OTHER_MODEL)


def is_wanted(model: str, workload: Workload) -> bool:
    """Where models are named, those alone, by either name."""
    names = {canonical(each) for each in workload.models}
    return not names or canonical(model) in names


def context_needed(workload: Workload) -> int:
    return demand.longest(workload)


def precisions(model: ModelFacts, accelerator: Accelerator) -> tuple[Precision, ...]:
    """What weights can be kept in there: as they were trained, where that is in few bits; 8-bit
    floats only where the hardware multiplies them."""
    native = _NATIVE.get(model.native_quantization or "")
    if native is not None:
        return (native,)
    has_fp8 = accelerator.fp8_tflops is not None
    has_bf16 = accelerator.bf16_tflops is not None or accelerator.fp16_tflops is not None
    return (
        *((Precision.BF16,) if has_bf16 else ()),
        *((Precision.FP8,) if has_fp8 else ()),
        Precision.INT8,
        Precision.INT4,
    )


def may_hold(model: ModelFacts, precision: Precision, accelerator: Accelerator, count: int) -> bool:
    """Less than its weights no engine gets by with."""
    held = (accelerator.memory_gb or 0) * count
    return model.params_b * _BYTES[precision] < held


def apis(facts: Facts, workload: Workload, assumptions: Assumptions) -> Iterator[Offer]:
    models = {canonical(name): model for name, model in facts.models.items()}
    for price in facts.apis:
        if is_wanted(price.model, workload):
            model = models.get(canonical(price.model))
            way = Way.MANAGED if price.in_own_cloud else Way.API
            option = Option(
                f"{way}/{price.provider}/{price.model}", way, price.model, price.provider
            )
            yield Offer(
                option, model, api=price, surcharge=_surcharge(price, workload, assumptions)
            )


def _surcharge(price: ApiPrice, workload: Workload, assumptions: Assumptions) -> Decimal:
    """Where a region is asked for, what the provider adds for staying in one."""
    figure = assumptions.figures.get(f"regional_surcharge.{price.provider}")
    return figure.value if figure is not None and workload.rules.residency else Decimal(0)


def path(rent: RentPrice) -> str:
    """What the ids of all options on it begin with."""
    where = f"{rent.provider}/{rent.instance}/{rent.region or '-'}/{rent.term}"
    return f"{machines.way(rent)}/{where}"


def rented(
    model: ModelFacts, precision: Precision, rent: RentPrice, accelerator: Accelerator, count: int
) -> Offer:
    option = Option(
        f"{path(rent)}/{model.id}/{precision}/{count}x{accelerator.id}",
        machines.way(rent), model.id, rent.provider, precision, accelerator.id, count,
        rent.instance, rent.region or None, rent.term,
    )  # fmt: skip
    return Offer(option, model, accelerator, rent)


def on_own(
    way: Way,
    model: ModelFacts,
    precision: Precision,
    accelerator: Accelerator,
    count: int,
    region: str | None,
) -> Offer:
    option = Option(
        f"{way}/{model.id}/{precision}/{count}x{accelerator.id}",
        way, model.id, None, precision, accelerator.id, count, region=region,
    )  # fmt: skip
    return Offer(option, model, accelerator)


def mixed(base: Offer, replicas: int, peaks: Offer) -> Offer:
    own, api = base.option, peaks.option
    option = Option(
        f"mixed/{replicas} of {own.id}+{api.id}",
        Way.MIXED, own.model, api.provider, own.precision, own.accelerator,
        own.accelerators_a_replica, region=own.region,
        details={"base": str(own.way), "peaks": api.model, "replicas": str(replicas)},
    )  # fmt: skip
    return replace(base, option=option, api=peaks.api, surcharge=peaks.surcharge)


def why_no_offer(rent: RentPrice, facts: Facts, workload: Workload) -> str | None:
    """Why this price is nothing that can be taken, in a sentence; None where it can."""
    if rent.provider == "market median":
        return "It is the median of what others ask, and nobody's offer."
    if not rent.accelerator or not rent.count:
        return "It has no accelerator, and speeds without one are not worked out."
    if rent.accelerator not in facts.accelerators:
        return f"Nothing is known of {rent.accelerator} but this price."
    if rent.term.startswith("reserved_1y") and workload.horizon_months < 12:
        return f"It binds for 12 months, and the plan is for {workload.horizon_months}."
    if rent.term in machines.SPOT and workload.targets.availability is not None:
        target = shown(workload.targets.availability * 100, 8)
        return f"Spot capacity can be taken away at any time, and {target} % of a month is wanted."
    return None
