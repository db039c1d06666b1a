"""Vocabularies that are cheap: the first merges of GPT-2's kind, learnt from a corpus."""

from pathlib import Path
from typing import Any

import orjson
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

from tests.engines.openvino.corpus import texts

SPECIALS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")


def learnt(**added: bool) -> Tokenizer:
    """A byte-level vocabulary with ChatML's control tokens, and `<tool>`, an ordinary one."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=1500,
        special_tokens=list(SPECIALS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts(0), trainer)
    tokenizer.add_tokens([AddedToken("<tool>", normalized=False, **added)])
    return tokenizer


def as_gguf(tokenizer: Tokenizer, pre: str = "gpt-2", **more: Any) -> dict[str, Any]:
    """The same vocabulary as keys of a GGUF file."""
    told = orjson.loads(tokenizer.to_str())
    vocabulary = tokenizer.get_vocab()
    tokens = sorted(vocabulary, key=vocabulary.__getitem__)
    kind = {**dict.fromkeys(SPECIALS, 3), "<tool>": 4}
    return {
        "ggml.model": "gpt2",
        "ggml.pre": pre,
        "ggml.tokens": tokens,
        "ggml.token_type": [kind.get(token, 1) for token in tokens],
        "ggml.merges": [" ".join(merge) for merge in told["model"]["merges"]],
        "ggml.bos_token_id": 1,
        "ggml.eos_token_id": 2,
        **more,
    }


def save(tokenizer: Tokenizer, folder: Path, **files: bytes) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    for name, content in files.items():
        (folder / f"{name}.json").write_bytes(content)
    return folder
