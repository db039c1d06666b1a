"""What a decision is about: the work to be done, the rules for it, and what could do it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol


class Precision(StrEnum):
    """What weights are kept in."""

    BF16 = "bf16"
    FP8 = "fp8"
    INT8 = "int8"
    INT4 = "int4"


class Verdict(StrEnum):
    """Unknown never counts as pass."""

    PASS = "pass"  # noqa: S105 - no password
    FAIL = "fail"
    UNKNOWN = "unknown"


class Way(StrEnum):
    """How tokens are had."""

    API = "api"  # bought by the token
    MANAGED = "managed"  # an endpoint in one's own cloud
    RENTED = "rented"
    OWNED = "owned"
    AT_HAND = "at_hand"  # the machine that this runs on
    MIXED = "mixed"  # own machines, and an API for the peaks


@dataclass(frozen=True, slots=True)
class Lengths:
    """Tokens of a request: quantiles at equal steps, the least first, so that a single value
    is a length that all have. Their mean is what bills go by."""

    quantiles: tuple[int, ...]

    @property
    def mean(self) -> float:
        return sum(self.quantiles) / len(self.quantiles)


@dataclass(frozen=True, slots=True)
class Targets:
    """At the 95th percentile; None: it does not matter."""

    ttft_ms: float | None = None
    tpot_ms: float | None = None
    whole_s: float | None = None
    availability: float | None = None  # of a month, 0.999


@dataclass(frozen=True, slots=True)
class Rules:
    residency: frozenset[str] = frozenset()  # regions that data may be in; none named: anywhere
    certifications: frozenset[str] = frozenset()
    data_class: str = "internal"  # public, internal, confidential, personal, health
    retention_days: int | None = None  # at most, 0 for none at all
    may_train_on_data: bool = False
    commercial_use: bool = True
    least_mmlu: float | None = None
    must_be_llm: bool = False  # better than the original GPT-3
    users_a_month: int | None = None  # of all that the company offers: licences have limits


@dataclass(frozen=True, slots=True)
class Tuning:
    """Training runs a month. `method` is full, lora or qlora."""

    runs_a_month: float
    tokens: int  # of a run, all epochs
    method: str = "lora"
    rank: int = 16
    data_licence: str | None = None  # what is trained on is given under; None: not said


@dataclass(frozen=True, slots=True)
class Embedding:
    tokens_a_day: float = 0.0
    documents_tokens: float = 0.0  # once, at the beginning
    model: str | None = None  # only this one, of weights or of an API; None: any


@dataclass(frozen=True, slots=True)
class Carbon:
    """That emissions are to be told, and what they cost. None: the grid that is assumed."""

    price_a_tonne: float = 0.0
    grid_kg_per_kwh: float | None = None


@dataclass(frozen=True, slots=True)
class Economics:
    """In the currency of the plan. Shares are of one; a month has 730 hours."""

    team_a_month: float = 0.0  # people who run what is hosted
    power_per_kwh: float = 0.20
    power_usage_effectiveness: float = 1.4
    discount_rate: float = 0.08  # a year
    amortization_months: int = 36
    egress_gb_a_request: float = 0.0
    utilization_ceiling: float = 0.75  # of what is planned to be busy


@dataclass(frozen=True, slots=True)
class Workload:
    name: str
    requests_a_day: float
    prompt: Lengths
    answer: Lengths
    hours: tuple[float, ...] = (1.0,) * 24  # how the day is shared out, any scale
    weekdays: tuple[float, ...] = (1.0,) * 7  # Monday first
    bursts: float = 0.0  # how much the rate of a minute varies: its deviation over its mean
    cached_share: float = 0.0  # of prompts, found again
    growth_a_month: float = 0.0
    horizon_months: int = 12
    tenants_with_adapters: int = 0
    adapter_rank: int = 16
    adapter_licence: str | None = None  # None: not said
    context_length: int | None = None  # None: that of the longest request
    region: str | None = None
    users_region: str | None = None  # where they are who wait
    deadline_days: int | None = None
    models: tuple[str, ...] = ()  # only these; none named: all
    targets: Targets = field(default_factory=Targets)
    rules: Rules = field(default_factory=Rules)
    embedding: Embedding | None = None
    tuning: Tuning | None = None
    economics: Economics = field(default_factory=Economics)
    carbon: Carbon | None = None  # None: nobody asked
    assumptions: tuple[tuple[str, float], ...] = ()  # in place of those that are made


class StepTimes(Protocol):
    """How long an engine takes on some hardware: what the simulation goes by."""

    def prefill_s(self, tokens: int, context_tokens: int) -> float:
        """To read `tokens`, after `context_tokens` that are there."""
        ...

    def decode_s(self, sequences: int, context_tokens: int) -> float:
        """One token for each of `sequences`, which have `context_tokens` in all."""
        ...

    @property
    def kv_tokens(self) -> int:
        """How many tokens of context fit, of all sequences."""
        ...


class Basis(StrEnum):
    """What predicted figures rest on."""

    SIMULATED = "simulated"
    CLOSED_FORM = "closed form"
    ASSUMED = "assumed"  # of an API that nobody measured
    GIVEN = "given"  # by whoever plans


@dataclass(frozen=True, slots=True)
class Predicted:
    """Of the busiest hour of the last month that is planned for: times at the 95th percentile, and
    tokens of answers. Of a mix, what its own machines answer. None: the formula says nothing."""

    basis: Basis
    ttft_ms: float | None
    tpot_ms: float | None
    whole_s: float | None
    tokens_per_s: float | None


@dataclass(frozen=True, slots=True)
class Judged:
    """A rule, what came of it, and why."""

    rule: str
    verdict: Verdict
    why: str
    source: str | None


@dataclass(frozen=True, slots=True)
class Part:
    """A part of what an option costs. `formula` says how it came about, in words and numbers."""

    name: str
    a_month: float
    once: float
    formula: str
    source: str | None = None


@dataclass(frozen=True, slots=True)
class Option:
    """One way to do the work, before anything is judged about it."""

    id: str
    way: Way
    model: str  # of the facts, or of an API
    provider: str | None = None
    precision: Precision | None = None
    accelerator: str | None = None
    accelerators_a_replica: int = 0
    instance: str | None = None
    region: str | None = None
    term: str | None = None
    details: Mapping[str, str] = field(default_factory=dict)
