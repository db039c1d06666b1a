"""Tiny checkpoints of families that our own decoder does not compute, with random weights."""

import json
from pathlib import Path

import torch
import transformers

from tests.tune.told import TINY

_SIZES = {
    "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 512,
}  # fmt: skip
_EXPERTS = {"num_experts_per_tok": 1, "moe_intermediate_size": 32}
MADE = {
    "cohere": (transformers.CohereConfig, {}),
    "gemma": (transformers.GemmaConfig, {"head_dim": 8}),
    "gemma2": (transformers.Gemma2Config, {"head_dim": 8}),
    "gemma3_text": (transformers.Gemma3TextConfig, {"head_dim": 8}),
    "gpt_oss": (transformers.GptOssConfig, {"head_dim": 8, "num_local_experts": 2} | _EXPERTS),
    "granite": (transformers.GraniteConfig, {}),
    "ministral": (transformers.MinistralConfig, {"head_dim": 8}),
    "mixtral": (transformers.MixtralConfig, {"num_local_experts": 2, "num_experts_per_tok": 1}),
    "olmo2": (transformers.Olmo2Config, {}),
    "olmo3": (transformers.Olmo3Config, {}),
    "phi3": (transformers.Phi3Config, {"pad_token_id": 0}),
    "qwen2_moe": (
        transformers.Qwen2MoeConfig,
        {"num_experts": 2, "shared_expert_intermediate_size": 32} | _EXPERTS,
    ),
    "qwen3_moe": (transformers.Qwen3MoeConfig, {"num_experts": 2, "head_dim": 8} | _EXPERTS),
    "smollm3": (transformers.SmolLM3Config, {"pad_token_id": 0}),
    "stablelm": (transformers.StableLmConfig, {}),
}


def make(family: str, folder: Path) -> None:
    """With the tokenizer of a family that is known."""
    kind, more = MADE[family]
    source = TINY / "llama"
    vocabulary = json.loads((source / "config.json").read_text())["vocab_size"]
    torch.manual_seed(0)
    config = kind(**_SIZES, **more, vocab_size=vocabulary, tie_word_embeddings=False)
    transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32).save_pretrained(
        folder
    )
    for file in source.iterdir():
        if file.is_file() and file.name.startswith(("tokenizer", "special", "chat_template")):
            (folder / file.name).write_bytes(file.read_bytes())
