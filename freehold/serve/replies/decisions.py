from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

from freehold.core.plan import Basis, Precision, Verdict, Way
from freehold.serve.replies.fields import Count


class FitErrors(BaseModel):
    """On published measurements that no fit saw."""

    median: float
    nine_in_ten_within: float


class FitBytes(BaseModel):
    capacity: int
    weights: int
    adapters: int
    activations: int
    reserve: int
    free: int
    cache_of_a_stream: int


class FitRow(BaseModel):
    accelerator: str
    count: int
    format: str
    fits: bool
    why_not: str | None
    bytes_of_each_accelerator: FitBytes
    longest_context_tokens: int
    speed: Literal["measured", "computed"] | None
    computed_from: str | None
    ttft_ms_of_1000_tokens: float | None
    tokens_per_s_of_one: float | None
    tokens_per_s_of_streams: float | None
    streams_that_fit: int
    streams_at_once: int
    tokens_per_s_of_all: float | None


class Fits(BaseModel):
    model: str
    context_tokens: int
    streams: int
    computed_speeds_are_off_by: FitErrors
    rows: list[FitRow]


class Option(BaseModel):
    """One way to do the work. What does not belong to its way is null."""

    id: str
    way: Way
    model: str
    provider: str | None
    precision: Precision | None
    accelerator: str | None
    accelerators_a_replica: Count
    instance: str | None
    region: str | None
    term: str | None
    details: dict[str, str]


class CostPart(BaseModel):
    name: str
    a_month: float
    once: float
    formula: Annotated[str, Field(description="How it came about, in words and numbers.")]
    source: str | None


class JudgedRule(BaseModel):
    rule: str
    verdict: Verdict
    why: str
    source: str | None


class PredictedOfOption(BaseModel):
    """In the busiest hour of the last month, times at the 95th percentile."""

    basis: Basis
    ttft_ms: float | None
    tpot_ms: float | None
    whole_s: float | None
    tokens_per_s: float | None


class Emission(BaseModel):
    kg_a_month: float
    formula: str


class RankedOption(BaseModel):
    option: Option
    replicas: int | None
    a_month: float
    over_horizon: float
    days_to_deliver: int
    predicted: PredictedOfOption | None
    emitted: Emission | None
    parts: list[CostPart]
    rules: list[JudgedRule]
    is_llm: Annotated[
        JudgedRule, Field(description="Whether published scores beat the original GPT-3's.")
    ]
    notes: list[str]


class RejectedOption(BaseModel):
    what: Annotated[str, Field(description="An option, or what many have in common.")]
    why: str
    judged: list[JudgedRule]


class NearOption(BaseModel):
    """What would do, if these fields were other than was asked."""

    fields: list[str]
    instead: list[str]
    sentence: str
    option: RankedOption


class CheapestOfWay(BaseModel):
    a_month: Annotated[float, Field(description="With its share of what is paid once.")]
    option: str


class VolumePoint(BaseModel):
    requests_a_day: float
    by_way: dict[str, CheapestOfWay]


class CrossingPoint(BaseModel):
    """From `at` requests a day on, `above` is cheaper than `below`."""

    at: float
    below: Way
    above: Way
    is_cheapest: Annotated[bool, Field(description="Of all ways, there.")]
    ends: Annotated[bool, Field(description="`below` is not possible from there on.")]
    why: str


class BreakEvenPoints(BaseModel):
    points: Annotated[list[VolumePoint], Field(description="The least volume first.")]
    crossings: list[CrossingPoint]


class TriedValue(BaseModel):
    value: float
    margin: Annotated[
        float | None,
        Field(description="What the best other way costs more a month; below zero, it is better."),
    ]
    way: Way | None
    model: str | None


class DecisionChange(BaseModel):
    """From `at` on, away from what was told, the decision is another."""

    at: float
    way: Way | None
    model: str | None
    is_way: Annotated[bool, Field(description="Else the model alone changes.")]


class EffectOfInput(BaseModel):
    name: str
    unit: Annotated[str, Field(description="× is a factor of what was told.")]
    base: float
    tried: list[TriedValue]
    changes: list[DecisionChange]


class SensitivityOfPlan(BaseModel):
    base: TriedValue
    against: Annotated[Way | None, Field(description="The best other way.")]
    effects: Annotated[list[EffectOfInput], Field(description="What moves most first.")]


class Plan(BaseModel):
    workload: str
    options: Annotated[int, Field(description="How many are possible.")]
    horizon_months: int
    conflict: Annotated[str | None, Field(description="Why nothing does it, where nothing does.")]
    nearest: list[NearOption]
    unsaid: Annotated[
        list[str], Field(description="What the answer hangs on and nobody said, with its field.")
    ]
    ranked: list[RankedOption]
    best_of_each_way: Annotated[
        dict[str, RankedOption], Field(description="Also those that are not among the ranked.")
    ]
    rejected: list[RejectedOption]
    break_even: Annotated[
        BreakEvenPoints, Field(description="What each way costs at other volumes.")
    ]
    sensitivity: Annotated[
        SensitivityOfPlan | None,
        Field(description="What would change it; null where nothing is possible."),
    ]


class Predicted(BaseModel):
    """Volumes of the first month; costs of the whole horizon. What is not known is null."""

    requests_a_day: float
    growth_a_month: float
    prompt_tokens: float
    answer_tokens: float
    tokens_a_month: float
    a_month: float
    once: float
    over_horizon: float
    machines_a_month: float | None
    per_million: float | None
    per_million_reserved: Annotated[
        float | None, Field(description="What machines cost, for a million tokens.")
    ]
    tokens_a_second_busy: float
    tokens_a_second_full: float | None
    utilization_busy: float | None
    ttft_p95_ms: float | None
    tpot_p95_ms: float | None
    basis: Annotated[Basis | None, Field(description="What these times rest on.")]


class RunnerUp(BaseModel):
    way: Way
    id: str
    model: str
    a_month: float
    over_horizon: float
    per_million: float | None


class UsedPrice(BaseModel):
    what: str
    usd: float
    each: str
    source: str
    at: str | None


class Replicas(BaseModel):
    at_peak: int
    replicas: int
    zones: int


class WrittenWorkload(BaseModel):
    name: str
    written: Annotated[dict[str, Any], Field(description="What its file held.")]


class AcceleratorUsed(BaseModel):
    kind: str
    has_bf16: bool


class FactsUsed(BaseModel):
    digest: str
    compiled: dict[str, str]


class AssumedFigure(BaseModel):
    value: float
    unit: str
    assumed: bool


class DecisionInShort(BaseModel):
    id: str
    at: datetime
    made_by: str
    name: str
    way: Way
    option: str
    a_month: float
    per_million: float | None
    supersedes: str | None
    superseded_by: str | None


class DecisionList(BaseModel):
    data: list[DecisionInShort]


class Decision(BaseModel):
    """As it was made: it is never changed, only superseded by another."""

    id: str
    tenant: str
    at: datetime
    made_by: str
    name: str
    version: str
    supersedes: str | None
    superseded_by: str | None
    workload: WrittenWorkload
    aliases: list[str] | None
    planned_at: str
    option: Option
    rank: Count
    options: Count
    sized: Replicas | None
    accelerator: AcceleratorUsed | None
    context: Count
    horizon_months: Count
    days_to_deliver: int
    parts: list[CostPart]
    predicted: Predicted
    runners_up: list[RunnerUp]
    rules: list[JudgedRule]
    notes: list[str]
    prices: list[UsedPrice]
    machine: dict[str, float] | None
    assumptions: dict[str, AssumedFigure]
    facts: FactsUsed


class DecisionDeployment(BaseModel):
    """`text` is the file for `freehold up -f`, `settings` what it holds."""

    decision: str
    text: str
    settings: dict[str, Any]
    steps: Annotated[list[str], Field(description="What is to be done before the start.")]
    not_expressed: Annotated[list[str], Field(description="What the settings cannot say.")]


class CheckedFigure(BaseModel):
    """`within` is null where nothing was predicted or measured, or too little was watched."""

    name: str
    predicted: float | None
    measured: float | None
    least: float | None
    most: float | None
    within: bool | None


class DepartureFound(BaseModel):
    kind: Annotated[str, Field(description="volume, cost, api_cheaper, rules, ...")]
    subject: str
    what: str
    cause: str
    next_step: str


class AlternativeNow(BaseModel):
    way: Way
    id: str
    a_month: float
    once: float


class DecisionCheck(BaseModel):
    id: str
    name: str
    option: str
    at: datetime
    since: datetime
    days: float
    requests: Count
    tokens_in: Count
    tokens_out: Count
    holds: bool
    is_judged: Annotated[bool, Field(description="Whether enough was watched to judge figures.")]
    figures: list[CheckedFigure]
    departures: list[DepartureFound]
    a_month: Annotated[float | None, Field(description="What is paid for it now.")]
    alternatives: Annotated[
        list[AlternativeNow],
        Field(description="The best of each way, planned today for what was measured."),
    ]
