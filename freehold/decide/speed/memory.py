"""How much memory a model takes, part by part, and how much context fits beside it."""

from dataclasses import dataclass

from freehold.core.facts import Accelerator, ModelFacts
from freehold.core.plan import Precision


@dataclass(frozen=True, slots=True)
class Format:
    """Bits a parameter, scales and zero points counted in. `table_bits` is of the embedding and
    the head, which most formats leave in 16 bits."""

    name: str
    bits: float
    table_bits: float = 16.0


# Per output channel a scale of 16 bits on int8 and fp8 (compressed-tensors W8A8, TensorRT-LLM),
# which is below 0.01 bits; groups of 128 with a scale of 16 and a zero point of 4 bits on int4
# (GPTQ, AWQ).
FORMATS = {
    Precision.BF16: Format("16-bit", 16.0),
    Precision.FP8: Format("fp8", 8.01),
    Precision.INT8: Format("int8", 8.01),
    Precision.INT4: Format("int4", 4 + 20 / 128),
}
# ggml.h: blocks of 32 with a scale of 16 bits. Q4_K_M mixes 4.5 and 6.5625 bits: llama.cpp's
# quantize tool tells 4.83 to 4.89 bits over the Llama and Mistral models of 7 to 70 billion.
Q8_0 = Format("Q8_0", 8.5, 8.5)
Q4_0 = Format("Q4_0", 4.5, 6.5625)
Q4_1 = Format("Q4_1", 5.0, 8.5)
Q4_K_M = Format("Q4_K_M", 4.85, 4.85)
# The shared-base engine: a scale of 16 bits a row, and groups of 32 with a scale of 16 and a zero
# point of 8 bits; its tables are in int8 both times.
OPENVINO_INT8 = Format("int8 (openvino)", 8.02, 8.02)
OPENVINO_INT4 = Format("int4 (openvino)", 4.75, 8.02)
# Blocks of 32 with a scale of 8 bits (OCP microscaling), and of 16 with one (NVFP4).
MXFP4 = Format("mxfp4", 4.25)
NVFP4 = Format("nvfp4", 4.5)

# Below this many parameters families tie the head to the embedding (Llama 3.2, Qwen 2.5 and 3,
# SmolLM); Gemma does in all sizes.
_TIED_BELOW_B = 4.0
# What a step holds at once: vLLM's default of tokens in a step, and rows of logits.
_STEP_TOKENS, _STEP_ROWS = 8192, 256
_CPU_STEP_TOKENS = 512
# What is left to the driver, graphs and fragments: vLLM takes 90% (gpu_memory_utilization); an
# ordinary machine has more beside.
RESERVES = {"gpu": 0.10, "cpu": 0.20, "soc": 0.25}
# Gated delta rules keep 128 values in 32 bits for each value of a token (Qwen3-Next's
# linear_key_head_dim), whatever the context.
_STATE_BYTES_A_VALUE = 128 * 4


@dataclass(frozen=True, slots=True)
class Memory:
    """In bytes of each accelerator, of `count` that share the model. `why_not` says why the
    model cannot be laid out so; then nothing else counts."""

    count: int
    capacity: float
    weights: float
    adapters: float
    activations: float
    reserve: float
    kv_sequence: float  # of one sequence of `context` tokens
    context: int
    why_not: str | None = None

    @property
    def free(self) -> float:
        """For the KV cache."""
        return self.capacity - self.weights - self.adapters - self.activations - self.reserve

    @property
    def streams(self) -> int:
        """Sequences of `context` tokens that fit at once."""
        if self.why_not or self.free <= 0:
            return 0
        return int(self.free // self.kv_sequence) if self.kv_sequence else 0

    @property
    def kv_tokens(self) -> int:
        """Tokens of context that fit, of all sequences, which have `context` each."""
        if self.why_not or self.free <= 0 or not self.kv_sequence:
            return 0
        return int(self.free * self.context / self.kv_sequence)

    @property
    def fits(self) -> bool:
        return self.streams > 0


def memory_of(
    model: ModelFacts,
    accelerator: Accelerator,
    count: int = 1,
    weights: Format = FORMATS[Precision.BF16],
    kv_bytes: float = 2.0,
    context: int = 4096,
    adapters: int = 0,
    rank: int = 16,
) -> Memory:
    """Tensor parallel over `count`: weights and activations are shared out; KV heads too, but
    each accelerator has one at least, and MLA's latent vectors are on every one of them."""
    capacity = (accelerator.memory_gb or 0.0) * 1e9
    kv = kv_sequence_bytes(model, context, kv_bytes)
    heads = model.kv_heads or count
    shared = 1.0 if model.kv_lora_rank else -(-heads // count) / heads
    return Memory(
        count=count,
        capacity=capacity,
        weights=weight_bytes(model, weights) / count,
        adapters=adapters * adapter_bytes(model, rank) / count,
        activations=activation_bytes(model, accelerator.kind) / count,
        reserve=capacity * RESERVES.get(accelerator.kind, 0.1),
        kv_sequence=kv * shared,
        context=context,
        why_not=_why_not(model, accelerator, count, context),
    )


def longest_context(model: ModelFacts, memory: Memory, kv_bytes: float = 2.0) -> int:
    """Tokens that one sequence may have, by memory and by the model."""
    of_context = kv_sequence_bytes(model, memory.context, kv_bytes)
    if memory.free <= 0 or not of_context or not memory.capacity:
        return 0
    room = memory.free * of_context / memory.kv_sequence
    low, high = 0, model.context_length or 2**24
    while low < high:
        middle = (low + high + 1) // 2
        if kv_sequence_bytes(model, middle, kv_bytes) <= room:
            low = middle
        else:
            high = middle - 1
    return low


def _why_not(model: ModelFacts, accelerator: Accelerator, count: int, context: int) -> str | None:
    if accelerator.memory_gb is None:
        return f"its memory is not known: say `memory_gb` of {accelerator.id} in facts of your own"
    if not has_shape(model):
        return f"the shape of {model.name} is not known"
    if count > 1 and model.heads and model.heads % count:
        return f"{model.heads} heads cannot be shared out to {count}"
    if model.context_length is not None and context > model.context_length:
        return f"{model.name} reads {model.context_length:,} tokens at most"
    return None


def has_shape(model: ModelFacts) -> bool:
    return bool(model.layers and model.kv_heads and model.head_dim and model.hidden)


def weight_bytes(model: ModelFacts, kept: Format) -> float:
    """Parameters times bits, the tables in theirs."""
    tables = table_params(model)
    linears = max(0.0, model.params_b * 1e9 - tables)
    return (linears * kept.bits + tables * kept.table_bits) / 8


def table_params(model: ModelFacts) -> float:
    """Of the embedding, and of the head where it is not the same matrix."""
    if not model.vocabulary or not model.hidden:
        return 0.0
    is_tied = model.params_b < _TIED_BELOW_B or model.id.startswith("gemma")
    return float(model.vocabulary * model.hidden * (1 if is_tied else 2))


def kv_sequence_bytes(model: ModelFacts, context: int, bytes_a_value: float = 2.0) -> float:
    """Of one sequence. Each layer keeps a key and a value of every KV head (Shazeer 2019 for one
    head, Ainslie et al. 2023 for groups); MLA keeps one latent vector and one rotary key
    (DeepSeek-V2, 2.1.2); layers with a window keep that much; layers of linear attention a state.
    An encoder-decoder keeps the prompt's in its cross attention and the answer's in its own, so
    that each token is in all decoder layers once."""
    if not has_shape(model):
        return 0.0
    layers = model.decoder_layers or model.layers or 0
    every = model.full_attention_interval
    growing = layers // every if every else layers
    others = layers - growing
    kept: float = _values_a_layer(model, is_global=True) * growing * context
    if others and model.sliding_window:
        kept += _values_a_layer(model, False) * others * min(context, model.sliding_window)
    state = 0 if model.sliding_window else others * (model.hidden or 0) * _STATE_BYTES_A_VALUE
    return kept * bytes_a_value + state


def openvino_u8_bytes(head_dim: int) -> float:
    """A value of its cache in u8: with keys there is a scale and a zero point, in 32 bits each,
    for every 32 tokens of a channel, with values for every token of a head."""
    return 1 + (8 / 32 + 8 / head_dim) / 2


def _values_a_layer(model: ModelFacts, is_global: bool) -> int:
    """Values a token. `is_global`: of a layer that sees everything."""
    if model.kv_lora_rank:
        return model.kv_lora_rank + (model.rope_head_dim or 0)
    heads, size = model.kv_heads or 0, model.head_dim or 0
    if is_global:
        heads, size = model.global_kv_heads or heads, model.global_head_dim or size
    return 2 * heads * size


def adapter_bytes(model: ModelFacts, rank: int) -> float:
    """LoRA in 16 bits on all linear layers: rank times inputs and outputs of each (Hu et al.
    2021). With experts only those of attention, as engines do by default."""
    if not has_shape(model):
        return 0.0
    hidden, size = model.hidden or 0, model.head_dim or 0
    q, kv = (model.heads or 0) * size, (model.kv_heads or 0) * size
    sides: float = (hidden + q) * 2 + (hidden + kv) * 2
    if not model.experts:
        sides += 3 * (hidden + feed_forward(model))
    return float(rank * sides * (model.layers or 0) * 2)


def feed_forward(model: ModelFacts) -> float:
    """Its width, from what of a layer's parameters attention leaves, in three matrices."""
    layers, hidden = model.layers or 1, model.hidden or 1
    size = model.head_dim or 0
    attention = hidden * size * 2 * ((model.heads or 0) + (model.kv_heads or 0))
    layer = (model.active_params_b * 1e9 - table_params(model)) / layers
    return max(layer - attention, 0.0) / (3 * hidden)


def activation_bytes(model: ModelFacts, kind: str) -> float:
    """Of a whole step: gate and up and their product's input beside a residual and a normed
    copy, in 16 bits, and logits in 32 with their probabilities."""
    tokens = _STEP_TOKENS if kind == "gpu" else _CPU_STEP_TOKENS
    width = 2 * feed_forward(model) + 4 * (model.hidden or 0)
    return tokens * width * 2 + _STEP_ROWS * (model.vocabulary or 0) * 8
