"""What is known of hardware, models, prices and published measurements, each with where it
is from. Nothing here is measured by us; None is what nobody published."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date


@dataclass(frozen=True, slots=True)
class Source:
    where: str  # a URL, or a file of the user
    at: date | None = None  # when it was published or read
    what: str | None = None


@dataclass(frozen=True, slots=True)
class Accelerator:
    """Compute is dense (no structured sparsity), with accumulation in 32 bits where it matters."""

    id: str
    name: str
    vendor: str
    kind: str  # gpu, cpu, soc, ...
    memory_gb: float | None  # 10^9 bytes, as it is sold
    bandwidth_gb_s: float | None
    fp16_tflops: float | None
    bf16_tflops: float | None
    int8_tops: float | None
    fp8_tflops: float | None
    power_w: float | None
    released: int | None
    sources: tuple[Source, ...]
    cores: int | None = None
    measured_bandwidth_gb_s: float | None = None
    fp4_tflops: float | None = None
    half_sum_tflops: float | None = (
        None  # of 16-bit floats summed up in 16 bits, where that differs
    )


@dataclass(frozen=True, slots=True)
class Score:
    benchmark: str
    value: float
    setting: str | None
    source: Source | None


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """The shape that memory and speed follow from, the licence, and published scores."""

    id: str
    name: str
    params_b: float
    active_params_b: float
    layers: int | None
    hidden: int | None
    heads: int | None
    kv_heads: int | None
    head_dim: int | None
    vocabulary: int | None
    context_length: int | None
    architecture: str
    licence: str
    may_be_sold: bool | None  # commercial use; None: nobody says
    licence_restriction: str | None
    released: str | None
    scores: tuple[Score, ...]
    sources: tuple[Source, ...]
    # What some architectures have beside that.
    sliding_window: int | None = None
    global_head_dim: int | None = None
    global_kv_heads: int | None = None
    full_attention_interval: int | None = None
    kv_lora_rank: int | None = None
    rope_head_dim: int | None = None
    experts: int | None = None
    experts_per_token: int | None = None
    native_quantization: str | None = None
    decoder_layers: int | None = None
    notes: str | None = None

    @property
    def mmlu(self) -> float | None:
        return next((each.value for each in self.scores if each.benchmark == "MMLU"), None)


@dataclass(frozen=True, slots=True)
class Measured:
    """A published measurement of an engine. `tokens_per_s` is that of all accelerators; None
    where only the time to the first token was measured. `model` and `precision` are empty where
    they were not said, `prompt_tokens_per_s` is of prompts of `prompt_tokens`."""

    id: str
    kind: str
    model: str  # the id of a `ModelFacts`
    precision: str
    accelerator: str  # the id of an `Accelerator`
    count: int
    engine: str
    input_tokens: float | None
    output_tokens: float | None
    concurrency: str | None  # as published: a number, or words
    tokens_per_s: float | None
    counted: str  # output, total, or whole: of answers, over the time of their prompts too
    ttft_ms: float | None
    tpot_ms: float | None
    source: Source
    prompt_tokens: int | None = None
    prompt_tokens_per_s: float | None = None
    is_for_acceptance: bool = False  # no fit sees it
    instances: int | None = None  # copies of the model on the whole of `count`, where it was said
    most_at_once: int | None = None  # requests in each of them


@dataclass(frozen=True, slots=True)
class RentPrice:
    """An instance with accelerators. `term` is on_demand, spot, reserved_1yr, ... as listed;
    `region` and `accelerator` are empty where none is named."""

    provider: str
    instance: str
    region: str
    accelerator: str
    count: int
    term: str
    usd_per_hour: float
    source: Source


@dataclass(frozen=True, slots=True)
class Egress:
    """`tiers`: up to so many GB a month (None: without end), at so many dollars each."""

    provider: str
    free_gb: float
    tiers: tuple[tuple[float | None, float], ...]
    between_zones_usd_per_gb: float | None
    source: Source


@dataclass(frozen=True, slots=True)
class ApiPrice:
    """Dollars for a million tokens, the ordinary tier. `long_context`: for prompts above so many
    tokens, the prices of input, cached input and output instead."""

    provider: str
    model: str
    name: str
    input_usd: float
    cached_usd: float | None
    output_usd: float
    context_length: int | None
    source: Source
    long_context: tuple[tuple[int, float | None, float | None, float | None], ...] = ()
    later: tuple[tuple[date, float, float], ...] = ()  # from a day on: input and output
    in_own_cloud: bool = False  # an endpoint in the account of whoever pays


@dataclass(frozen=True, slots=True)
class EmbeddingPrice:
    provider: str
    model: str
    usd: float  # a million tokens
    context_length: int | None
    source: Source


@dataclass(frozen=True, slots=True)
class ProviderTerms:
    """What a provider promises, as published: sentences that begin with yes or no, or None."""

    provider: str
    certifications: Mapping[str, str | None]  # soc2_type2, iso_27001, hipaa_baa, dpa
    regions: tuple[str, ...]
    serves_in_eu: bool | None
    residency_notes: str | None
    zero_retention: str | None
    trains_on_data: str | None
    sources: tuple[Source, ...]


@dataclass(frozen=True, slots=True)
class QuantizationLoss:
    """The score of one model by format (bf16, gptq_int8, ...)."""

    model: str
    by_format: Mapping[str, float]
    source: Source


@dataclass(frozen=True, slots=True)
class Facts:
    """All of it, by id where there is one. `compiled` says how old each part is."""

    compiled: Mapping[str, date]
    accelerators: Mapping[str, Accelerator]
    models: Mapping[str, ModelFacts]
    gpt3: tuple[Score, ...]  # what "better than the original GPT-3" is measured at
    quantization: tuple[QuantizationLoss, ...]
    measured: tuple[Measured, ...]
    rents: tuple[RentPrice, ...]
    egress: tuple[Egress, ...]
    apis: tuple[ApiPrice, ...]
    embeddings: tuple[EmbeddingPrice, ...]
    terms: tuple[ProviderTerms, ...]
    embedders: Mapping[str, ModelFacts] = field(default_factory=dict)  # models that embed, by id
