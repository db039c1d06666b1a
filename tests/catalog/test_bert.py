"""Safetensors of a sentence encoder become a GGUF that embeds alike."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from freehold.catalog.pull import pull
from freehold.catalog.store import ModelStore
from freehold.core import gguf
from freehold.core.errors import Code, UserError
from freehold.core.model import Task
from freehold.deploy import formats
from tests.catalog.making import safetensors_bytes, write

_WIDE, _LAYERS, _HEADS, _HIDDEN, _LONGEST = 64, 2, 4, 128, 64
_VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "cat", "sat", "##s", "down"]
_CONFIG = {
    "model_type": "bert",
    "hidden_act": "gelu",
    "hidden_size": _WIDE,
    "intermediate_size": _HIDDEN,
    "layer_norm_eps": 1e-12,
    "max_position_embeddings": _LONGEST,
    "num_attention_heads": _HEADS,
    "num_hidden_layers": _LAYERS,
    "type_vocab_size": 2,
    "vocab_size": len(_VOCABULARY),
}
Weights = dict[str, np.ndarray[Any, np.dtype[np.float32]]]


def _weights() -> Weights:
    chance = np.random.default_rng(3)

    def some(*shape: int) -> Any:
        return chance.normal(scale=0.3, size=shape).astype(np.float32)

    made = {
        "embeddings.word_embeddings.weight": some(len(_VOCABULARY), _WIDE),
        "embeddings.position_embeddings.weight": some(_LONGEST, _WIDE),
        "embeddings.token_type_embeddings.weight": some(2, _WIDE),
        "embeddings.LayerNorm.weight": some(_WIDE) + 1,
        "embeddings.LayerNorm.bias": some(_WIDE),
        "pooler.dense.weight": some(_WIDE, _WIDE),
    }
    for layer in range(_LAYERS):
        for name, rows, columns in (
            ("attention.self.query", _WIDE, _WIDE),
            ("attention.self.key", _WIDE, _WIDE),
            ("attention.self.value", _WIDE, _WIDE),
            ("attention.output.dense", _WIDE, _WIDE),
            ("intermediate.dense", _HIDDEN, _WIDE),
            ("output.dense", _WIDE, _HIDDEN),
        ):
            made[f"encoder.layer.{layer}.{name}.weight"] = some(rows, columns)
            made[f"encoder.layer.{layer}.{name}.bias"] = some(rows)
        for name in ("attention.output.LayerNorm", "output.LayerNorm"):
            made[f"encoder.layer.{layer}.{name}.weight"] = some(_WIDE) + 1
            made[f"encoder.layer.{layer}.{name}.bias"] = some(_WIDE)
    return made


def _repository(folder: Path, weights: Weights, **config: Any) -> str:
    header, data = {}, b""
    for name, values in weights.items():
        place = [len(data), len(data) + values.nbytes]
        header[name] = {"dtype": "F32", "shape": list(values.shape), "data_offsets": place}
        data += values.tobytes()
    write(folder / "model.safetensors", safetensors_bytes(header, data))
    write(folder / "config.json", json.dumps({**_CONFIG, **config}).encode())
    write(folder / "vocab.txt", "\n".join(_VOCABULARY).encode() + b"\n")
    return f"file:{folder}"


def _normed(x: Any, weights: Weights, name: str) -> Any:
    x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-12)
    return x * weights[f"{name}.weight"] + weights[f"{name}.bias"]


def _embedded(tokens: list[int], weights: Weights) -> Any:
    """The encoder as its paper has it, in numpy."""
    x = weights["embeddings.word_embeddings.weight"][tokens]
    x = x + weights["embeddings.position_embeddings.weight"][: len(tokens)]
    x = x + weights["embeddings.token_type_embeddings.weight"][0]
    x = _normed(x, weights, "embeddings.LayerNorm")
    for layer in range(_LAYERS):
        at = f"encoder.layer.{layer}."

        def linear(name: str, x: Any, at: str = at) -> Any:
            return x @ weights[f"{at}{name}.weight"].T + weights[f"{at}{name}.bias"]

        q, k, v = (
            linear(f"attention.self.{part}", x).reshape(len(tokens), _HEADS, -1).swapaxes(0, 1)
            for part in ("query", "key", "value")
        )
        scores = np.exp(q @ k.swapaxes(1, 2) / math.sqrt(_WIDE / _HEADS))
        mixed = (scores / scores.sum(-1, keepdims=True)) @ v
        mixed = mixed.swapaxes(0, 1).reshape(len(tokens), _WIDE)
        x = _normed(
            x + linear("attention.output.dense", mixed), weights, f"{at}attention.output.LayerNorm"
        )
        inner = linear("intermediate.dense", x)
        inner = inner * 0.5 * (1 + np.vectorize(math.erf)(inner / math.sqrt(2)))
        x = _normed(x + linear("output.dense", inner), weights, f"{at}output.LayerNorm")
    mean = x.mean(0)
    return mean / np.linalg.norm(mean)


def test_the_converted_model_embeds_as_the_original_does(tmp_path: Path) -> None:
    weights, home = _weights(), tmp_path / "home"
    store = ModelStore(home)
    reference = _repository(tmp_path / "mini", weights)

    card = pull(store, home, reference, accept_licence="a test", progress=lambda *_: None)

    assert (card.task, card.architecture, card.name) == (Task.EMBEDDINGS, "bert", "mini")
    assert (card.context_length, card.embedding_length) == (_LONGEST, _WIDE)
    assert gguf.read_header(store.path(card)).tokenizer == "bert"
    with formats.engine(store.path(card), "--embeddings", context=_LONGEST) as client:
        answer = client.post("/v1/embeddings", json={"input": ["The cats sat down"]}).json()
    found = np.array(answer["data"][0]["embedding"])
    words = ("[CLS]", "the", "cat", "##s", "sat", "down", "[SEP]")
    expected = _embedded([_VOCABULARY.index(word) for word in words], weights)
    assert answer["usage"]["prompt_tokens"] == 7
    assert float(found @ expected / np.linalg.norm(found)) > 0.999


@pytest.mark.parametrize(
    "config",
    [{"model_type": "llama"}, {"hidden_act": "relu"}, {"hidden_size": -1}, {"vocab_size": 11},
     {"num_hidden_layers": 10**12}, {"num_attention_heads": "4"}],
)  # fmt: skip
def test_a_description_that_does_not_fit_is_refused(config: dict[str, Any], tmp_path: Path) -> None:
    home = tmp_path / "home"
    reference = _repository(tmp_path / "mini", _weights(), **config)

    with pytest.raises(UserError) as refused:
        pull(ModelStore(home), home, reference, accept_licence="a test", progress=lambda *_: None)

    assert refused.value.code is Code.FILE_REFUSED
    assert ModelStore(home).list() == []
