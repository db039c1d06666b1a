"""What is computed beside what engines allocate and files weigh."""

from dataclasses import replace
from pathlib import Path

import pytest

from freehold.catalog.facts import load_facts
from freehold.core.facts import ModelFacts
from freehold.core.plan import Precision
from freehold.decide.speed import memory
from freehold.decide.speed.memory import FORMATS, kv_sequence_bytes, memory_of, weight_bytes
from freehold.engines.openvino.prepared import prepare
from freehold.engines.openvino.runner import Options, Runner

FACTS = load_facts()
MODELS, H100 = FACTS.models, FACTS.accelerators["h100_sxm"]
TINY = Path(__file__).parents[1] / "engines" / "openvino" / "reference" / "tiny" / "llama"
# SmolLM2-135M, as its file says.
SMOL = replace(
    MODELS["smollm2-360m"], params_b=0.134515008, active_params_b=0.134515008, layers=30,
    hidden=576, heads=9, kv_heads=3, head_dim=64, vocabulary=49152,
)  # fmt: skip


def _tiny() -> tuple[ModelFacts, object]:
    prepared = prepare("", {"m.gguf": next(TINY.glob("*.gguf"))}, "int8", None)
    shape = prepared.shape
    found = replace(
        SMOL, layers=shape.layers, hidden=shape.hidden, heads=shape.heads,
        kv_heads=shape.kv_heads, head_dim=shape.head_dim, vocabulary=shape.vocab,
    )  # fmt: skip
    return found, prepared


@pytest.mark.parametrize("kept", ["bf16", "u8"])
def test_the_cache_of_the_shared_base_engine_takes_what_is_computed(kept: str) -> None:
    model, prepared = _tiny()
    runner = Runner(prepared, Options(1, kv_cache=kept), 1 << 20)  # type: ignore[arg-type]
    size = model.head_dim or 0

    bytes_a_value = 2.0 if kept == "bf16" else memory.openvino_u8_bytes(size)

    computed = kv_sequence_bytes(model, 1, bytes_a_value)
    assert computed == pytest.approx(runner.bytes_per_token, rel=0.03)


def test_the_cache_of_llama_cpp_takes_what_it_logs() -> None:
    """`llama_kv_cache: size = 90.00 MiB (4096 cells, 30 layers)` with SmolLM2-135M."""
    assert kv_sequence_bytes(SMOL, 4096) == 90 * 2**20


@pytest.mark.parametrize(
    ("model", "kept", "size"),
    [
        # llama.cpp: `file size = 92.10 MiB`; the openvino engine: what its arrays hold.
        (SMOL, memory.Q4_1, 92.10 * 2**20),
        (SMOL, memory.OPENVINO_INT8, 134_889_216),
        # Files of the Hub, in the sizes that it shows.
        (MODELS["llama-3.1-8b"], memory.Q4_K_M, 4.92e9),
        (MODELS["llama-3.1-8b"], memory.Q8_0, 8.54e9),
        (MODELS["llama-3.1-8b"], FORMATS[Precision.BF16], 16.07e9),
        (MODELS["llama-3.1-8b"], FORMATS[Precision.INT4], 5.73e9),
        (MODELS["llama-3.1-70b"], memory.Q4_K_M, 42.52e9),
        (MODELS["llama-3.1-70b"], FORMATS[Precision.FP8], 72.7e9),
    ],
)
def test_weights_take_what_files_weigh(model: ModelFacts, kept: memory.Format, size: float) -> None:
    assert weight_bytes(model, kept) == pytest.approx(size, rel=0.03)


@pytest.mark.parametrize(
    ("model", "context", "expected"),
    [
        ("llama-3.1-8b", 1000, 1000 * 2 * 8 * 128 * 32 * 2),  # groups
        ("llama-2-7b", 1000, 1000 * 2 * 32 * 128 * 32 * 2),  # a KV head for each
        ("falcon-7b", 1000, 1000 * 2 * 1 * 64 * 32 * 2),  # one for all
        ("deepseek-v3", 1000, 1000 * (512 + 64) * 61 * 2),  # MLA
        ("gemma-3-27b", 10_000, 2 * 16 * 128 * 2 * (10 * 10_000 + 52 * 1024)),  # 10 of 62 global
        ("gemma-3-27b", 500, 2 * 16 * 128 * 2 * 62 * 500),  # inside the window
        ("gpt-oss-20b", 10_000, 2 * 8 * 64 * 2 * (12 * 10_000 + 12 * 128)),
        ("gemma-4-31b", 4096, 2 * 2 * (10 * 4 * 512 * 4096 + 50 * 16 * 256 * 1024)),
        ("flan-ul2", 1000, 1000 * 2 * 16 * 256 * 32 * 2),  # its decoder's layers
    ],
)
def test_the_cache_of_a_sequence_follows_from_how_it_attends(
    model: str, context: int, expected: float
) -> None:
    assert kv_sequence_bytes(MODELS[model], context) == expected


def test_layers_of_linear_attention_keep_the_same_whatever_the_context() -> None:
    model = MODELS["qwen3.5-27b"]
    one, two = kv_sequence_bytes(model, 1000), kv_sequence_bytes(model, 2000)

    assert two - one == 1000 * 2 * 4 * 256 * (64 // 4) * 2
    assert one > two - one


def test_accelerators_share_weights_and_heads_but_not_what_cannot_be_cut() -> None:
    llama, r1 = MODELS["llama-3.1-70b"], MODELS["deepseek-r1"]
    one, eight = memory_of(llama, H100, 1), memory_of(llama, H100, 8)
    sixteen = memory_of(replace(llama, heads=128), H100, 16)
    latent = memory_of(r1, FACTS.accelerators["h200_sxm"], 8)

    assert not one.fits
    assert eight.fits
    assert eight.weights == one.weights / 8
    assert eight.kv_sequence == one.kv_sequence / 8
    assert sixteen.kv_sequence == eight.kv_sequence, "eight KV heads are on all sixteen"
    assert latent.kv_sequence == kv_sequence_bytes(r1, 4096)
    assert memory_of(MODELS["qwen2.5-7b"], H100, 8).why_not == (
        "28 heads cannot be shared out to 8"
    )


def test_adapters_take_their_rank_times_both_sides_of_every_linear() -> None:
    """Llama 3.1 8B at rank 16: 83,886,080 bytes as PEFT saves it in 16 bits."""
    assert memory.adapter_bytes(MODELS["llama-3.1-8b"], 16) == pytest.approx(83_886_080, rel=0.001)
    without = memory_of(MODELS["llama-3.1-8b"], H100)
    with_ten = memory_of(MODELS["llama-3.1-8b"], H100, adapters=10)

    assert without.free - with_ten.free == pytest.approx(10 * 83_886_080, rel=0.001)


def test_more_context_for_each_leaves_room_for_fewer() -> None:
    short = memory_of(MODELS["llama-3.1-8b"], H100, context=1000)
    long = memory_of(MODELS["llama-3.1-8b"], H100, context=100_000)

    assert short.streams > 90 * long.streams > 0
    assert short.kv_tokens == pytest.approx(long.kv_tokens, rel=0.001)
    too_long = memory_of(MODELS["llama-3.1-8b"], H100, context=200_000)
    assert too_long.why_not is not None
    assert not too_long.fits


def test_what_is_not_known_does_not_fit() -> None:
    assert not memory_of(MODELS["granite-3.0-8b"], H100).fits
    assert not memory_of(MODELS["phi-2"], FACTS.accelerators["cpu_epyc_9654"]).fits
