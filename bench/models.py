"""What the engines compute: one small model and one of 1.1 billion random weights, each in
the form that every engine reads, and random adapters. Kept in `.peers/models`."""

import hashlib
import json
import os
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from gguf import GGMLQuantizationType as Kind

from freehold.core.adapter import CONFIG, WEIGHTS
from freehold.core.engine import AdapterFiles
from freehold.core.ids import digest_of_files
from freehold.engines.openvino.adapters import bfloat16
from freehold.engines.openvino.shape import SITES, Shape
from freehold.engines.openvino.weights_gguf import GgufWeights

MODELS = Path(__file__).parent / ".peers" / "models"
SMALL, LARGE = "smollm2-135m", "random-1b"
LARGE_SHAPE = Shape(
    layers=16, hidden=2048, heads=32, kv_heads=8, head_dim=64, ffn=8192, vocab=49152,
    rms_eps=1e-5, tied=True,
)  # fmt: skip
RANK = 16
_ALPHA = 2 * RANK
_GGUF_NAMES = {
    "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down", "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}  # fmt: skip
_MODULES = {name: full for full in _GGUF_NAMES for name in (full.rsplit(".", 1)[-1],)}
Tensor = np.ndarray[Any, Any]


@dataclass(frozen=True, slots=True)
class Model:
    """`source`: what Freehold reads, a GGUF file or a folder of safetensors."""

    name: str
    shape: Shape
    source: Path
    hf: Path
    q4_0: Path
    q8_0: Path

    def files(self) -> dict[str, Path]:
        if self.source.is_file():
            return {"model.gguf": self.source}
        return {path.name: path for path in sorted(self.source.iterdir())}


@dataclass(frozen=True, slots=True)
class Lora:
    """`folder` is PEFT's, `gguf` the same factors as llama.cpp reads them."""

    name: str
    folder: Path
    gguf: Path
    size_bytes: int

    def files(self) -> AdapterFiles:
        paths = {name: self.folder / name for name in (CONFIG, WEIGHTS)}
        digests = {
            name: "sha256:" + hashlib.sha256(path.read_bytes()).hexdigest()
            for name, path in paths.items()
        }
        return AdapterFiles(digest_of_files(digests), paths[CONFIG], paths[WEIGHTS])


def small() -> Model:
    source = _pulled()
    weights = GgufWeights(source)
    return _made(SMALL, weights.shape, source, weights.read, source)


def large() -> Model:
    """Llama's shape with the vocabulary of the small model, weights drawn at random."""
    rng = np.random.default_rng(7)

    def read(name: str) -> Tensor:
        size = _size(LARGE_SHAPE, name)
        if "norm" in name:
            return np.ones(size, np.float32)
        return rng.standard_normal(size, np.float32) * np.float32(0.02)

    return _made(LARGE, LARGE_SHAPE, None, read, _pulled())


def loras(model: Model, count: int) -> list[Lora]:
    """Rank 16 on all seven linears of every layer, in float16."""
    found = []
    for number in range(count):
        folder = MODELS / f"{model.name}-adapters" / f"a{number}"
        made = Lora(folder.name, folder, folder.with_suffix(".gguf"), 0)
        if not made.gguf.exists():
            _write_lora(made, model.shape, number)
        size = (folder / WEIGHTS).stat().st_size
        found.append(Lora(made.name, folder, made.gguf, size))
    return found


def _pulled() -> Path:
    """The model that `freehold up` serves first, as it is published."""
    home = MODELS.parent / "home"
    program = str(Path(sys.executable).parent / "freehold")
    environment = {**os.environ, "FREEHOLD_HOME": str(home)}
    kept = MODELS / "published.gguf"
    if not kept.exists():
        print("Fetching the small model ...", file=sys.stderr)
        MODELS.mkdir(parents=True, exist_ok=True)
        pull = [program, "model", "pull", "smollm2-135m-instruct", "--keep-format", "--json"]
        subprocess.run(pull, env=environment, check=True, stdout=subprocess.DEVNULL)
        shown = subprocess.run(
            [program, "model", "list", "--json"], env=environment, check=True, capture_output=True
        )
        digest = json.loads(shown.stdout)[0]["digest"].removeprefix("sha256:")
        (blob,) = home.rglob(digest)
        kept.hardlink_to(blob)
    return kept


def _made(
    name: str, shape: Shape, source: Path | None, read: Callable[[str], Tensor], like: Path
) -> Model:
    hf = MODELS / f"{name}-hf"
    made = Model(
        name, shape, source or hf, hf, MODELS / f"{name}-q4_0.gguf", MODELS / f"{name}-q8_0.gguf"
    )
    if not made.q8_0.exists():
        print(f"Writing {name} in every form ...", file=sys.stderr)
        tensors = {each: read(each) for each in _names(shape)}
        _write_hf(hf, shape, tensors, like)
        _write_gguf(made.q4_0, shape, tensors, like, Kind.Q4_0)
        _write_gguf(made.q8_0, shape, tensors, like, Kind.Q8_0)
    return made


def _names(shape: Shape) -> Iterator[str]:
    yield "embed_tokens.weight"
    yield "norm.weight"
    for layer in range(shape.layers):
        for name in _GGUF_NAMES:
            yield f"layers.{layer}.{name}.weight"


def _size(shape: Shape, name: str) -> tuple[int, ...]:
    last = name.removesuffix(".weight").rsplit(".", 1)[-1]
    if last in shape.linears():
        inputs, outputs = shape.linears()[last]
        return outputs, inputs
    return (shape.hidden,) if "norm" in last else (shape.vocab, shape.hidden)


# Hugging Face


def _write_hf(folder: Path, shape: Shape, tensors: Mapping[str, Tensor], like: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    fields = gguf.GGUFReader(like).fields
    halves = {f"model.{name}": bfloat16(values) for name, values in tensors.items()}
    write_safetensors(folder / "model.safetensors", halves, "BF16")
    theta = float(fields["llama.rope.freq_base"].contents())
    config = {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu",
        "num_hidden_layers": shape.layers, "hidden_size": shape.hidden,
        "num_attention_heads": shape.heads, "num_key_value_heads": shape.kv_heads,
        "head_dim": shape.head_dim, "intermediate_size": shape.ffn, "vocab_size": shape.vocab,
        "rms_norm_eps": shape.rms_eps, "rope_theta": theta, "max_position_embeddings": 8192,
        "tie_word_embeddings": True, "attention_bias": False, "mlp_bias": False,
        "bos_token_id": 1, "eos_token_id": 2, "torch_dtype": "bfloat16",
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": 2}))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<|im_start|>",
        "eos_token": "<|im_end|>", "unk_token": "<|endoftext|>", "pad_token": "<|im_end|>",
    }  # fmt: skip
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    (folder / "tokenizer.json").write_text(json.dumps(_tokenizer(fields)))


def _tokenizer(fields: Mapping[str, gguf.ReaderField]) -> dict[str, Any]:
    texts: list[str] = fields["tokenizer.ggml.tokens"].contents()
    kinds: list[int] = fields["tokenizer.ggml.token_type"].contents()
    special = int(gguf.TokenType.CONTROL)
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}
    digits = {"type": "Digits", "individual_digits": True}
    return {
        "version": "1.0", "truncation": None, "padding": None, "normalizer": None,
        "post_processor": None, "decoder": byte_level | {"use_regex": True},
        "added_tokens": [
            {"id": id, "content": texts[id], "special": True, **flags}
            for id, kind in enumerate(kinds) if kind == special
        ],
        "pre_tokenizer": {
            "type": "Sequence", "pretokenizers": [digits, byte_level | {"use_regex": True}]
        },
        "model": {
            "type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
            "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False,
            "ignore_merges": False, "vocab": {text: id for id, text in enumerate(texts)},
            "merges": fields["tokenizer.ggml.merges"].contents(),
        },
    }  # fmt: skip


def write_safetensors(path: Path, tensors: Mapping[str, Tensor], kind: str) -> None:
    header, at = {}, 0
    for name, values in tensors.items():
        offsets = [at, at + values.nbytes]
        header[name] = {"dtype": kind, "shape": list(values.shape), "data_offsets": offsets}
        at += values.nbytes
    raw = json.dumps(header).encode()
    raw += b" " * (-len(raw) % 8)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(raw)) + raw)
        for values in tensors.values():
            file.write(np.ascontiguousarray(values).data)


# GGUF


def _write_gguf(
    path: Path, shape: Shape, tensors: Mapping[str, Tensor], like: Path, kind: Kind
) -> None:
    """Norms stay in float32 and the embedding, which is the head too, in Q8_0."""
    half = path.with_suffix(".half")
    writer = gguf.GGUFWriter(half, "llama")
    for name, field in gguf.GGUFReader(like).fields.items():
        if name.startswith("tokenizer."):
            nested = field.types[1] if len(field.types) > 1 else None
            writer.add_key_value(name, field.contents(), field.types[0], nested)
    writer.add_block_count(shape.layers)
    writer.add_context_length(8192)
    writer.add_embedding_length(shape.hidden)
    writer.add_feed_forward_length(shape.ffn)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.kv_heads)
    writer.add_rope_freq_base(
        float(gguf.GGUFReader(like).fields["llama.rope.freq_base"].contents())
    )
    writer.add_rope_dimension_count(shape.head_dim)
    writer.add_layer_norm_rms_eps(shape.rms_eps)
    writer.add_vocab_size(shape.vocab)
    writer.add_file_type(
        gguf.LlamaFileType.MOSTLY_Q4_0 if kind is Kind.Q4_0 else gguf.LlamaFileType.MOSTLY_Q8_0
    )
    for name, values in tensors.items():
        named = _gguf_name(name)
        if values.ndim == 1:
            writer.add_tensor(named, values.astype(np.float32))
            continue
        used = Kind.Q8_0 if named == "token_embd.weight" else kind
        packed = gguf.quants.quantize(_paired(name, values, shape), used)
        writer.add_tensor(named, packed, raw_dtype=used)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    half.replace(path)


def _gguf_name(name: str) -> str:
    if name.startswith("layers."):
        _, layer, inner = name.split(".", 2)
        return f"blk.{layer}.{_GGUF_NAMES[inner.removesuffix('.weight')]}.weight"
    return {"embed_tokens.weight": "token_embd.weight", "norm.weight": "output_norm.weight"}[name]


def _paired(name: str, rows: Tensor, shape: Shape) -> Tensor:
    """llama.cpp turns pairs of neighbours where Hugging Face turns halves."""
    heads = {"q_proj": shape.heads, "k_proj": shape.kv_heads}
    found = next((count for linear, count in heads.items() if linear in name), None)
    if found is None:
        return rows
    split = rows.reshape(found, 2, rows.shape[0] // found // 2, rows.shape[1])
    return np.ascontiguousarray(split.swapaxes(1, 2).reshape(rows.shape))


# adapters


def _write_lora(lora: Lora, shape: Shape, seed: int) -> None:
    lora.folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    tensors: dict[str, Tensor] = {}
    writer = gguf.GGUFWriter(lora.gguf.with_suffix(".half"), "llama")
    writer.add_type("adapter")
    writer.add_string("adapter.type", "lora")
    writer.add_float32("adapter.lora.alpha", float(_ALPHA))
    for layer in range(shape.layers):
        for _, linears in SITES:
            for linear in linears:
                inputs, outputs = shape.linears()[linear]
                name = f"layers.{layer}.{_MODULES[linear]}.weight"
                a = (rng.standard_normal((RANK, inputs), np.float32) * 0.02).astype(np.float16)
                b = (rng.standard_normal((outputs, RANK), np.float32) * 0.02).astype(np.float16)
                full = f"base_model.model.model.layers.{layer}.{_MODULES[linear]}"
                tensors |= {f"{full}.lora_A.weight": a, f"{full}.lora_B.weight": b}
                writer.add_tensor(f"{_gguf_name(name)}.lora_a", a)
                writer.add_tensor(f"{_gguf_name(name)}.lora_b", _paired(name, b, shape))
    write_safetensors(lora.folder / WEIGHTS, tensors, "F16")
    settings = {
        "peft_type": "LORA", "task_type": "CAUSAL_LM", "r": RANK, "lora_alpha": _ALPHA,
        "target_modules": sorted(shape.linears()), "bias": "none",
    }  # fmt: skip
    (lora.folder / CONFIG).write_text(json.dumps(settings))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    lora.gguf.with_suffix(".half").replace(lora.gguf)
