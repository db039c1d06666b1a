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
MADE = {
    "gemma2": (transformers.Gemma2Config, {"head_dim": 8}),
    "phi3": (transformers.Phi3Config, {"pad_token_id": 0}),
    "mixtral": (transformers.MixtralConfig, {"num_local_experts": 2, "num_experts_per_tok": 1}),
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
