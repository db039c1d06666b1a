"""Write a tiny model as GGUF, tensor for tensor as llama.cpp's converter lays it out."""

import json
import math
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from gguf import GGMLQuantizationType as Kind

_LAYER = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}
_TOP = {
    "model.embed_tokens.weight": "token_embd.weight",
    "model.norm.weight": "output_norm.weight",
    "lm_head.weight": "output.weight",
}


def write(path: Path, folder: Path, tensors: dict[str, np.ndarray], kind: Kind) -> None:
    """`folder` holds the config and the tokenizer, `tensors` the names of Hugging Face."""
    config = json.loads((folder / "config.json").read_text())
    writer = gguf.GGUFWriter(path, config["model_type"])
    _describe(writer, config, kind)
    _tokenizer(writer, folder, config)
    factors = _rope_factors(config)
    if factors is not None:
        writer.add_tensor("rope_freqs.weight", factors)
    for name, value in tensors.items():
        _add(writer, _name(name), _permuted(name, value, config), kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _describe(writer: gguf.GGUFWriter, config: dict[str, Any], kind: Kind) -> None:
    heads = config["num_attention_heads"]
    head_dim = config.get("head_dim") or config["hidden_size"] // heads
    file_types = {
        Kind.F32: gguf.LlamaFileType.ALL_F32,
        Kind.F16: gguf.LlamaFileType.MOSTLY_F16,
        Kind.BF16: gguf.LlamaFileType.MOSTLY_BF16,
        Kind.Q8_0: gguf.LlamaFileType.MOSTLY_Q8_0,
    }
    writer.add_name(f"tiny {config['model_type']}")
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(heads)
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_rope_freq_base(rope(config)["rope_theta"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_key_length(head_dim)
    writer.add_value_length(head_dim)
    writer.add_file_type(file_types[kind])
    writer.add_vocab_size(config["vocab_size"])
    if config["model_type"] == "llama":
        writer.add_rope_dimension_count(head_dim)


def _tokenizer(writer: gguf.GGUFWriter, folder: Path, config: dict[str, Any]) -> None:
    model = json.loads((folder / "tokenizer.json").read_text())
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    tokens = [f"[PAD{i}]" for i in range(config["vocab_size"])]
    kinds = [gguf.TokenType.UNUSED] * len(tokens)
    for token, index in model["model"]["vocab"].items():
        tokens[index], kinds[index] = token, gguf.TokenType.NORMAL
    for added in model["added_tokens"]:
        tokens[added["id"]], kinds[added["id"]] = added["content"], gguf.TokenType.CONTROL
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    writer.add_token_merges([" ".join(pair) for pair in model["model"]["merges"]])
    writer.add_bos_token_id(config["bos_token_id"])
    writer.add_eos_token_id(config["eos_token_id"])
    writer.add_add_bos_token(False)
    writer.add_chat_template(settings["chat_template"])


def rope(config: dict[str, Any]) -> dict[str, Any]:
    """The rotary settings in one form: version 5 of transformers writes them otherwise."""
    if "rope_parameters" in config:
        return dict(config["rope_parameters"])
    return {**(config.get("rope_scaling") or {}), "rope_theta": config["rope_theta"]}


def _rope_factors(config: dict[str, Any]) -> np.ndarray | None:
    """What each rotary frequency is divided by in Llama 3.1 and later, else None."""
    settings = rope(config)
    if settings.get("rope_type") != "llama3":
        return None
    head_dim = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
    low, high = settings["low_freq_factor"], settings["high_freq_factor"]
    context, factor = settings["original_max_position_embeddings"], settings["factor"]
    factors = []
    for i in range(0, head_dim, 2):
        wavelength = 2 * math.pi * settings["rope_theta"] ** (i / head_dim)
        if wavelength < context / high:
            factors.append(1.0)
        elif wavelength > context / low:
            factors.append(factor)
        else:
            smooth = (context / wavelength - low) / (high - low)
            factors.append(1 / ((1 - smooth) / factor + smooth))
    return np.array(factors, dtype=np.float32)


def _name(name: str) -> str:
    if name in _TOP:
        return _TOP[name]
    _, _, layer, rest = name.split(".", 3)
    stem, _, ending = rest.rpartition(".")
    return f"blk.{layer}.{_LAYER[stem]}.{ending}"


def _permuted(name: str, value: np.ndarray, config: dict[str, Any]) -> np.ndarray:
    """Llama's rotation pairs neighbours in GGUF and halves in Hugging Face."""
    if config["model_type"] != "llama" or not name.endswith(("q_proj.weight", "k_proj.weight")):
        return value
    heads = config["num_attention_heads" if "q_proj" in name else "num_key_value_heads"]
    rows, columns = value.shape
    halves = value.reshape(heads, 2, rows // heads // 2, columns)
    return np.ascontiguousarray(halves.swapaxes(1, 2).reshape(rows, columns))


def _add(writer: gguf.GGUFWriter, name: str, value: np.ndarray, kind: Kind) -> None:
    """Vectors stay float32, as the converter keeps them."""
    if value.ndim == 1:
        writer.add_tensor(name, value)
    else:
        writer.add_tensor(name, gguf.quants.quantize(value, kind), raw_dtype=kind)
