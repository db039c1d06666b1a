"""What a model is: its card, its licence, and how its file came to be."""

from dataclasses import dataclass, field
from enum import StrEnum

from freehold.core.ids import digest_of_files as digest_of_files

# Mean KL divergence of next-token distributions from the fetched file's. Published
# llama.cpp measurements of models of 8 billion parameters lie near 0.005 for Q5_K_M,
# which nobody notices, and near 0.07 for three-bit formats, which people do. Measured
# on SmolLM2-135M from Q4_1: 0.005 for Q8_0; 0.27, with every third likeliest token
# another, for Q4_0, whose second rounding this bound is there to refuse.
MAX_KL_NATS = 0.05


class Task(StrEnum):
    CHAT = "chat"
    EMBEDDINGS = "embeddings"


@dataclass(frozen=True, slots=True)
class Licence:
    """`spdx` is an SPDX id or a descriptive `LicenseRef-…`; `commercial_use` is
    None when nobody has established it, which counts as "no" at every gate."""

    spdx: str
    commercial_use: bool | None
    url: str | None = None
    waiver: str | None = None  # the recorded reason of --accept-licence


@dataclass(frozen=True, slots=True)
class ModelFile:
    """One file of a model: its name inside the model, its own digest and size."""

    name: str
    digest: str
    size_bytes: int


@dataclass(frozen=True, slots=True)
class FormatTrial:
    """One measured format: decode and prefill speed here, and the loss of quality."""

    quantization: str
    decode_tokens_per_s: float
    prefill_tokens_per_s: float
    mean_kl_nats: float
    top1_agreement: float
    size_bytes: int
    chosen: bool
    refused_because: str | None = None


@dataclass(frozen=True, slots=True)
class Conversion:
    """How the served file was made from the fetched one."""

    from_digest: str
    from_quantization: str
    quality_bound_kl_nats: float
    machine: str
    trials: tuple[FormatTrial, ...]


@dataclass(frozen=True, slots=True)
class QualityTrial:
    """What one choice of `weights` and `kv_cache` makes of the model. Divergence and
    agreement are to full precision; decode speeds are of 1 and of 8 streams, in all."""

    weights: str
    kv_cache: str
    perplexity: float
    mean_kl_nats: float
    p99_kl_nats: float
    top1_agreement: float
    weights_bytes: int
    kv_bytes_per_token: int
    decode_tokens_per_s: float
    decode_tokens_per_s_of_8: float
    exceeds_bound: bool


@dataclass(frozen=True, slots=True)
class Quality:
    """The measured choices of an engine. `machine_fingerprint` names machines on which
    the speeds mean the same; `scored_tokens` is how many were predicted."""

    engine: str
    machine: str
    machine_fingerprint: str
    measured_at_us: int
    scored_tokens: int
    quality_bound_kl_nats: float
    trials: tuple[QualityTrial, ...]


@dataclass(frozen=True, slots=True)
class ModelCard:
    """Everything known of one stored model.

    `digest` names it: the file's own SHA-256 when the model is one file, else the
    SHA-256 of the sorted `name digest` lines of its files. `smoke` marks a model
    that proves the installation and is not meant for work.
    """

    name: str
    digest: str
    task: Task
    format: str  # gguf | safetensors
    architecture: str
    parameters: int
    quantization: str
    context_length: int
    embedding_length: int
    licence: Licence
    source: str
    files: tuple[ModelFile, ...]
    added_at_us: int
    smoke: bool = False
    chat_template_digest: str | None = None
    template_reads_tools: bool = False
    conversion: Conversion | None = None
    notes: tuple[str, ...] = field(default=())
    quality: Quality | None = None

    @property
    def size_bytes(self) -> int:
        return sum(file.size_bytes for file in self.files)
