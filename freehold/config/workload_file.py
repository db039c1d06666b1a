"""The shape of `workload.yaml`, small to start with and rich when wanted."""

from typing import Annotated, Any, Literal, NamedTuple

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator

from freehold.config.lengths import lengths
from freehold.config.quantity import (
    AnyShare,
    Count,
    Days,
    Gigabytes,
    Months,
    Seconds,
    Share,
    Whole,
    count,
)
from freehold.core.plan import (
    Carbon,
    Economics,
    Embedding,
    Lengths,
    Rules,
    Targets,
    Tuning,
    Workload,
)

_LengthsField = Annotated[Lengths, BeforeValidator(lengths)]
_Word = Annotated[str, Field(min_length=1, max_length=200)]
DataClass = Literal["public", "internal", "confidential", "personal", "health"]


class Peak(NamedTuple):
    hours: tuple[float, ...]
    weekdays: tuple[float, ...]


# Shapes of ours, for those who have not measured; a day's hours from midnight where users are.
PEAKS = {
    "always": Peak((1.0,) * 24, (1.0,) * 7),
    "office": Peak(
        (0.1,) * 7
        + (0.5, 1.5, 2.5, 2.8, 2.6, 1.8, 2.2, 2.6, 2.6, 2.2, 1.4)
        + (0.5,) * 2
        + (0.2,) * 4,
        (1.0, 1.05, 1.05, 1.0, 0.9, 0.1, 0.1),
    ),
    "evening": Peak(
        (0.4, 0.2)
        + (0.1,) * 4
        + (0.3, 0.6, 0.8)
        + (0.9,) * 7
        + (1.1, 1.5, 2.0, 2.6, 3.0, 2.8, 2.0, 1.0),
        (0.9, 0.9, 0.9, 0.95, 1.05, 1.2, 1.1),
    ),
}


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class AdaptersSection(_Section):
    tenants: Whole
    rank: Annotated[Whole, Field(ge=1, le=512)] = 16
    licence: _Word | None = None


class TargetsSection(_Section):
    ttft_p95: Seconds | None = None
    tpot_p95: Seconds | None = None
    whole_p95: Seconds | None = None
    availability: Share | None = None

    @field_validator("ttft_p95", "tpot_p95", "whole_p95")
    @classmethod
    def _takes_time(cls, value: float | None) -> float | None:
        if value == 0:
            raise ValueError("nothing takes no time: leave it out where it does not matter")
        return value

    @field_validator("availability")
    @classmethod
    def _may_fail(cls, value: float | None) -> float | None:
        if value == 1:
            raise ValueError("nothing is there 100 % of the time: write 99.9 %, say")
        return value


class RulesSection(_Section):
    residency: tuple[_Word, ...] = ()
    certifications: tuple[_Word, ...] = ()
    retention: Days | None = None
    may_train_on_data: bool = False
    commercial_use: bool = True
    least_mmlu: Annotated[float, Field(ge=0, le=100)] | None = None
    must_be_llm: bool = False
    users_a_month: Whole | None = None


class EmbeddingsSection(_Section):
    tokens_per_day: Count = 0.0
    documents_tokens: Count = 0.0
    model: _Word | None = None


class TuningSection(_Section):
    runs_per_month: Count
    tokens: Whole
    method: Literal["full", "lora", "qlora"] = "lora"
    rank: Annotated[Whole, Field(ge=1, le=512)] = 16
    data_licence: _Word | None = None


class CarbonSection(_Section):
    price_per_tonne: Count = 0.0
    grid_kg_per_kwh: Annotated[Count, Field(le=3)] | None = None


def _carbon(value: Any) -> Any:
    """`carbon: true` tells emissions; a number is what a tonne costs."""
    if isinstance(value, dict | CarbonSection) or value is None:
        return value
    if isinstance(value, bool):
        return CarbonSection() if value else None
    return CarbonSection(price_per_tonne=count(value))


_USUAL = Economics()
MOST_A_DAY = 1e10


class EconomicsSection(_Section):
    team_per_month: Count = _USUAL.team_a_month
    power_per_kwh: Count = _USUAL.power_per_kwh
    power_usage_effectiveness: Annotated[Count, Field(ge=1, le=5)] = (
        _USUAL.power_usage_effectiveness
    )
    discount_rate: Share = _USUAL.discount_rate
    amortization: Annotated[Months, Field(ge=1, le=240)] = _USUAL.amortization_months
    egress_per_request: Gigabytes = _USUAL.egress_gb_a_request
    utilization_ceiling: Annotated[Share, Field(gt=0)] = _USUAL.utilization_ceiling


class WorkloadFile(_Section):
    """Units are written with the values; prices are in the currency of the plan."""

    name: _Word | None = None
    requests_per_day: Count
    prompt: _LengthsField
    answer: _LengthsField
    region: _Word | None = None
    users_region: _Word | None = None
    data_class: DataClass = "internal"
    peak: Literal["always", "office", "evening"] | None = None
    hours: tuple[Count, ...] | None = None
    weekdays: tuple[Count, ...] | None = None
    bursts: Annotated[AnyShare, Field(le=10)] = 0.0
    cached: Share = 0.0
    growth_per_month: Annotated[AnyShare, Field(le=10)] = 0.0
    horizon: Annotated[Months, Field(ge=1, le=120)] = 12
    adapters: AdaptersSection | None = None
    context_length: Annotated[Whole, Field(ge=1)] | None = None
    deadline: Days | None = None
    models: tuple[_Word, ...] = ()
    targets: TargetsSection = TargetsSection()
    rules: RulesSection = RulesSection()
    embeddings: EmbeddingsSection | None = None
    tuning: TuningSection | None = None
    economics: EconomicsSection = EconomicsSection()
    carbon: Annotated[CarbonSection | None, BeforeValidator(_carbon)] = None
    assumptions: dict[_Word, Count] = {}

    @field_validator("requests_per_day")
    @classmethod
    def _asks(cls, value: float) -> float:
        if value <= 0:
            raise ValueError("without a request a day there is nothing to decide")
        if value < 1 / 365:
            raise ValueError("is less than a request a year: there is nothing to decide")
        if value > MOST_A_DAY:
            raise ValueError("is more than one a day for everybody alive")
        return value

    @field_validator("hours", "weekdays")
    @classmethod
    def _some(cls, value: tuple[float, ...] | None, info: Any) -> tuple[float, ...] | None:
        wanted = 24 if info.field_name == "hours" else 7
        if value is not None and len(value) != wanted:
            raise ValueError(f"has {len(value)} numbers and must have {wanted}")
        if value is not None and sum(value) <= 0:
            raise ValueError("must not be zero everywhere: requests come at some time")
        return value

    def workload(self, name: str) -> Workload:
        """`name` where the file has none."""
        peak = PEAKS[self.peak or "always"]
        targets, rules = self.targets, self.rules
        return Workload(
            name=self.name or name,
            requests_a_day=self.requests_per_day,
            prompt=self.prompt,
            answer=self.answer,
            hours=self.hours or peak.hours,
            weekdays=self.weekdays or peak.weekdays,
            bursts=self.bursts,
            cached_share=self.cached,
            growth_a_month=self.growth_per_month,
            horizon_months=self.horizon,
            tenants_with_adapters=self.adapters.tenants if self.adapters else 0,
            adapter_rank=self.adapters.rank if self.adapters else 16,
            adapter_licence=self.adapters.licence if self.adapters else None,
            context_length=self.context_length,
            region=self.region,
            users_region=self.users_region,
            deadline_days=self.deadline,
            models=self.models,
            targets=Targets(
                _in_ms(targets.ttft_p95),
                _in_ms(targets.tpot_p95),
                targets.whole_p95,
                targets.availability,
            ),
            rules=Rules(
                residency=frozenset(rules.residency),
                certifications=frozenset(rules.certifications),
                data_class=self.data_class,
                retention_days=rules.retention,
                may_train_on_data=rules.may_train_on_data,
                commercial_use=rules.commercial_use,
                least_mmlu=rules.least_mmlu,
                must_be_llm=rules.must_be_llm,
                users_a_month=rules.users_a_month,
            ),
            embedding=Embedding(*self.embeddings.model_dump().values())
            if self.embeddings
            else None,
            tuning=Tuning(*self.tuning.model_dump().values()) if self.tuning else None,
            economics=Economics(*self.economics.model_dump().values()),
            carbon=Carbon(*self.carbon.model_dump().values()) if self.carbon else None,
            assumptions=tuple(sorted(self.assumptions.items())),
        )


def _in_ms(seconds: float | None) -> float | None:
    return None if seconds is None else seconds * 1000
