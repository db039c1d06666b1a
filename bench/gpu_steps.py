"""What a GPU itself needs for a step, in models of random weights: prompts, tokens of answers, and
training of adapters, beside what `freehold fit` and the planner compute for it.

    python bench/gpu_steps.py measure OUT.json    on a machine with a GPU, PyTorch and PEFT
    python bench/gpu_steps.py compare OUT.json    anywhere

No engine is measured: a step is one CUDA graph of PyTorch's own kernels, so that an engine's
scheduling comes on top. What is computed must not be faster than this.
"""

import json
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_CONTEXT = 1024
_PROMPTS, _BATCHES = (512, 2048, 8192), (1, 8, 32, 128)
_ROUNDS = 20
_SPARE_BYTES = 6e9
_ON = "cuda"


@dataclass(frozen=True)
class Shape:
    model: str  # of the facts
    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    inner: int
    vocabulary: int


SHAPES = (
    Shape("llama-3.2-1b", 16, 2048, 32, 8, 64, 8192, 128256),
    Shape("llama-3.2-3b", 28, 3072, 24, 8, 128, 8192, 128256),
    Shape("llama-3.1-8b", 32, 4096, 32, 8, 128, 14336, 128256),
    Shape("qwen2.5-32b", 64, 5120, 40, 8, 128, 27648, 152064),
)


def measure(out: Path) -> None:
    import torch

    torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction = True
    rows: list[dict[str, Any]] = []
    for shape in SHAPES:
        for precision in ("bf16", "fp8"):
            rows += _of(shape, precision)
            print(json.dumps(rows[-1]), flush=True)
            torch.cuda.empty_cache()
    for shape in SHAPES[1:3]:
        rows += _training(shape)
    told = {
        "machine": torch.cuda.get_device_name(),
        "torch": torch.__version__,
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "rows": rows,
    }
    out.write_text(json.dumps(told, indent=1) + "\n")


def _of(shape: Shape, precision: str) -> Iterator[dict[str, Any]]:
    import torch

    before = torch.cuda.memory_allocated()
    decoder = Decoder(shape, precision)
    weights = torch.cuda.memory_allocated() - before
    told = {"model": shape.model, "precision": precision, "weight_bytes": weights}
    with torch.inference_mode():
        for tokens in _PROMPTS:
            seconds = _timed(lambda tokens=tokens: decoder.prompt(tokens))  # type: ignore[misc]
            yield {**told, "kind": "prompt", "tokens": tokens, "seconds": seconds}
        for batch in _BATCHES:
            room = torch.cuda.mem_get_info()[0] - _SPARE_BYTES
            if decoder.cache_bytes(batch) > room:
                continue
            before = torch.cuda.memory_allocated()
            cache = decoder.cache(batch)
            kept = torch.cuda.memory_allocated() - before
            graph = _captured(lambda batch=batch, cache=cache: decoder.step(batch, cache))  # type: ignore[misc]
            seconds = _timed(graph)
            del graph, cache
            torch.cuda.empty_cache()
            yield {
                **told, "kind": "answer", "batch": batch, "context": _CONTEXT,
                "cache_bytes": kept, "seconds": seconds,
            }  # fmt: skip


def _timed(act: Callable[[], Any]) -> float:
    """The median second."""
    import torch

    for _ in range(3):
        act()
    torch.cuda.synchronize()
    found = []
    for _ in range(_ROUNDS):
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record()
        act()
        end.record()
        torch.cuda.synchronize()
        found.append(begin.elapsed_time(end) / 1000)
    return sorted(found)[len(found) // 2]


def _captured(act: Callable[[], Any]) -> Callable[[], None]:
    import torch

    beside = torch.cuda.Stream()
    beside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(beside):
        act()
    torch.cuda.current_stream().wait_stream(beside)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        act()
    replay: Callable[[], None] = graph.replay
    return replay


class Decoder:
    """A Llama of random weights."""

    def __init__(self, shape: Shape, precision: str) -> None:
        self.shape, self.precision = shape, precision
        wide = (shape.heads + 2 * shape.kv_heads) * shape.head_dim
        self.layers = [
            (
                self._matrix(shape.hidden, wide),
                self._matrix(shape.heads * shape.head_dim, shape.hidden),
                self._matrix(shape.hidden, 2 * shape.inner),
                self._matrix(shape.inner, shape.hidden),
            )
            for _ in range(shape.layers)
        ]
        self.head = _random(shape.vocabulary, shape.hidden)

    def _matrix(self, given: int, made: int) -> Any:
        import torch

        kept = _random(made, given)
        return kept.to(torch.float8_e4m3fn) if self.precision == "fp8" else kept

    def _product(self, rows: Any, matrix: Any) -> Any:
        import torch

        if self.precision != "fp8":
            return rows @ matrix.t()
        most = rows.abs().amax(dim=-1, keepdim=True).float().clamp(min=1e-6) / 448
        small = (rows / most).to(torch.float8_e4m3fn)
        scale = torch.ones(1, matrix.shape[0], device=_ON)
        return torch._scaled_mm(
            small, matrix.t(), scale_a=most, scale_b=scale, out_dtype=torch.bfloat16
        )

    def prompt(self, tokens: int) -> Any:
        import torch

        rows = torch.ones(tokens, self.shape.hidden, device=_ON, dtype=torch.bfloat16)

        def attend(_: int, queries: Any, keys: Any, values: Any) -> Any:
            q, k, v = (each.transpose(0, 1).unsqueeze(0) for each in (queries, keys, values))
            found = torch.nn.functional.scaled_dot_product_attention(
                q, k, v, is_causal=True, enable_gqa=True
            )
            return found[0].transpose(0, 1)

        return self._through(rows, attend)[-1:] @ self.head.t()

    def cache_bytes(self, batch: int) -> int:
        s = self.shape
        return 2 * 2 * s.layers * batch * s.kv_heads * (_CONTEXT + 1) * s.head_dim

    def cache(self, batch: int) -> Any:
        import torch

        s = self.shape
        return torch.zeros(
            s.layers, 2, batch, s.kv_heads, _CONTEXT + 1, s.head_dim,
            device=_ON, dtype=torch.bfloat16,
        )  # fmt: skip

    def step(self, batch: int, cache: Any) -> Any:
        import torch

        rows = torch.ones(batch, self.shape.hidden, device=_ON, dtype=torch.bfloat16)

        def attend(layer: int, queries: Any, keys: Any, values: Any) -> Any:
            cache[layer, 0, :, :, -1] = keys
            cache[layer, 1, :, :, -1] = values
            s = self.shape
            # The heads that share a key are rows of one product.
            grouped = queries.view(batch, s.kv_heads, s.heads // s.kv_heads, s.head_dim)
            found = torch.nn.functional.scaled_dot_product_attention(
                grouped, cache[layer, 0], cache[layer, 1]
            )
            return found.reshape(batch, s.heads, s.head_dim)

        return self._through(rows, attend) @ self.head.t()

    def _through(self, rows: Any, attend: Callable[[int, Any, Any, Any], Any]) -> Any:
        import torch

        s = self.shape
        for number, (qkv, out, up, down) in enumerate(self.layers):
            normed = torch.nn.functional.rms_norm(rows, (s.hidden,))
            found = self._product(normed, qkv).view(len(rows), -1, s.head_dim)
            queries, keys, values = found.split([s.heads, s.kv_heads, s.kv_heads], dim=1)
            mixed = attend(number, queries, keys, values).reshape(len(rows), -1)
            rows = rows + self._product(mixed, out)
            gate, value = self._product(torch.nn.functional.rms_norm(rows, (s.hidden,)), up).chunk(
                2, dim=-1
            )
            rows = rows + self._product(torch.nn.functional.silu(gate) * value, down)
        return rows


def _random(made: int, given: int) -> Any:
    import torch

    return torch.empty(made, given, device=_ON, dtype=torch.bfloat16).normal_(std=0.02)


def _training(shape: Shape) -> Iterator[dict[str, Any]]:
    """Adapters of rank 16 on all linear layers, by PEFT, activations computed again."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import LlamaConfig, LlamaForCausalLM

    batch, tokens = 4, 2048
    config = LlamaConfig(
        vocab_size=shape.vocabulary, hidden_size=shape.hidden, intermediate_size=shape.inner,
        num_hidden_layers=shape.layers, num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads, head_dim=shape.head_dim,
        max_position_embeddings=4096,
    )  # fmt: skip
    with torch.device(_ON):
        torch.set_default_dtype(torch.bfloat16)
        base = LlamaForCausalLM(config)
        torch.set_default_dtype(torch.float32)
    model = get_peft_model(base, LoraConfig(r=16, target_modules="all-linear"))
    model.enable_input_require_grads()
    model.gradient_checkpointing_enable()
    model.train()
    wanted = [each for each in model.parameters() if each.requires_grad]
    optimizer = torch.optim.AdamW(wanted, lr=1e-4)
    given = torch.randint(0, shape.vocabulary, (batch, tokens), device=_ON)

    def step() -> None:
        loss = model(input_ids=given, labels=given, use_cache=False).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    seconds = _timed(step)
    most = torch.cuda.max_memory_allocated()
    yield {
        "model": shape.model, "precision": "bf16", "kind": "lora", "tokens": batch * tokens,
        "seconds": seconds, "most_bytes": most,
    }  # fmt: skip


def compare(found: Path) -> None:
    import machine

    from freehold.catalog.facts import load_facts

    told, facts = json.loads(found.read_text()), load_facts()
    accelerator = facts.accelerators["h200_sxm" if "H200" in told["machine"] else "h100_sxm"]
    rows: list[machine.Row] = []
    for row in told["rows"]:
        what, computed = _computed(row, facts.models[row["model"]], accelerator)
        case = f"{row['model']} {row['precision']} {what}"
        for system, version, ms in (
            ("PyTorch", told["torch"], row["seconds"] * 1e3),
            ("computed", "", computed * 1e3),
        ):
            rows.append(machine.Row(system, version, case, "ms", round(ms, 3)))
        ratio = round(computed / row["seconds"], 3)
        rows.append(machine.Row("computed", "", case, "times what was measured", ratio))
    machine.keep("gpu_steps", rows, elsewhere=(told["machine"], told["date"]))


def _computed(row: dict[str, Any], model: Any, accelerator: Any) -> tuple[str, float]:
    """What a row is about, and the seconds that we compute for it with vLLM."""
    from freehold.core.plan import Precision, Tuning
    from freehold.decide.money.assumptions import Assumptions
    from freehold.decide.money.training import run
    from freehold.decide.speed import fitted
    from freehold.decide.speed.memory import FORMATS, kv_sequence_bytes, memory_of
    from freehold.decide.speed.throughput import efficiency_of, roofline

    if row["kind"] == "lora":
        trained = run(model, Tuning(1, row["tokens"]), accelerator, Assumptions())
        return "LoRA, 4 x 2,048", float(trained.hours) * 3600 if trained else 0.0
    kept, kind = FORMATS[Precision(row["precision"])], row["precision"]
    memory = memory_of(model, accelerator, 1, kept)
    shares = efficiency_of(fitted.VALUES, "vllm", accelerator, kind, has_experts=False)
    steps = roofline(model, accelerator, 1, kept, memory, shares, computed_in=kind, family="vllm")
    if steps is None:
        raise SystemExit(f"No figures of {accelerator.id} are in the facts.")
    if row["kind"] == "prompt":
        return f"prompt of {row['tokens']:,}", steps.prefill_s(row["tokens"], 0)
    batch, context = row["batch"], row["context"]
    cache = batch * kv_sequence_bytes(model, context + 1)
    if abs(cache / row["cache_bytes"] - 1) > 0.03:
        print(f"cache: {cache / 1e9:.3f} GB computed, {row['cache_bytes'] / 1e9:.3f} taken")
    return f"{batch} answers", steps.decode_s(batch, batch * context)


if __name__ == "__main__":
    {"measure": measure, "compare": compare}[sys.argv[1]](Path(sys.argv[2]))
