"""What a Hugging Face checkpoint of a decoder is, told from its config and the headers of
its safetensors; nothing of it is run, and nothing else is read."""

import json
import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from freehold.core import safetensors
from freehold.core.errors import Code, UserError
from freehold.core.gguf import Header

CONFIG, VOCABULARY = "config.json", "tokenizer.json"
_DESCRIPTIONS = frozenset(
    {
        CONFIG, VOCABULARY, "chat_template.jinja", "generation_config.json",
        "model.safetensors.index.json", "special_tokens_map.json", "tokenizer_config.json",
    }
)  # fmt: skip
# Whose layers have their linears under the names of the Llama family. The shared-base engine
# computes the first four; all are trained, and served by vLLM.
SHARED_BASE = frozenset({"llama", "mistral", "qwen2", "qwen3"})
KINDS = SHARED_BASE | {
    "cohere", "gemma", "gemma2", "gemma3_text", "gpt_oss", "granite", "ministral", "mixtral",
    "olmo2", "olmo3", "phi3", "qwen2_moe", "qwen3_moe", "smollm3", "stablelm",
}  # fmt: skip
_LINEARS = (
    "q_proj", "k_proj", "v_proj", "qkv_proj", "o_proj", "gate_proj", "up_proj", "gate_up_proj",
    "down_proj",
)  # fmt: skip
_LINEAR = re.compile(
    rf"model\.layers\.(\d{{1,4}})\.(?:self_attn|mlp)\.({'|'.join(_LINEARS)})\.weight\Z"
)
_SEVEN = 7
_MOST = 2**31


def files_of(fetched: Sequence[Path]) -> tuple[Path, ...]:
    """What belongs to the first weights' checkpoint, which may lie in a folder of what
    was fetched."""
    weights = sorted(path for path in fetched if path.suffix.lower() == ".safetensors")
    beside = [path for path in fetched if path.parent == weights[0].parent]
    return (
        *(path for path in beside if path.suffix.lower() == ".safetensors"),
        *(path for path in beside if path.name in _DESCRIPTIONS),
    )


def read(files: Mapping[str, Path]) -> Header | None:
    """Of files by their names; None when they are no checkpoint of a decoder that an
    engine here computes. Raises `FILE_INVALID` for one that does not agree with itself."""
    if not {CONFIG, VOCABULARY} <= files.keys():
        return None
    config = _object(files[CONFIG])
    kind = config.get("model_type")
    if kind not in KINDS:
        return None
    tensors = [
        tensor
        for name, path in sorted(files.items())
        if name.endswith(".safetensors")
        for tensor in safetensors.read_header(path)
    ]
    twice = [name for name, count in Counter(t.name for t in tensors).items() if count > 1]
    if twice:
        raise _invalid(f"the tensor {twice[0][:60]!r} is there twice")
    types: Counter[str] = Counter()
    for tensor in tensors:
        types[tensor.dtype] += _size(tensor)
    linears, layers = _linears(kind, tensors)
    if layers != _number(config, "num_hidden_layers"):
        raise _invalid("its layers are not those that its config.json names")
    heads = _number(config, "num_attention_heads")
    return Header(
        architecture=kind,
        parameters=sum(types.values()),
        quantization=types.most_common(1)[0][0],
        context_length=_number(config, "max_position_embeddings"),
        embedding_length=_number(config, "hidden_size"),
        chat_template=_template(files),
        licence=None,
        tokenizer=None,
        is_embedding=False,
        linears=linears,
        layers=layers,
        heads=heads,
        kv_heads=_number(config, "num_key_value_heads") if _has(config) else heads,
    )


def _linears(
    kind: str, tensors: list[safetensors.Tensor]
) -> tuple[dict[str, tuple[int, int]], int]:
    """(inputs, outputs) by names in PEFT, the same in each layer, and how many there are."""
    found: dict[int, dict[str, tuple[int, int]]] = defaultdict(dict)
    for tensor in tensors:
        match = _LINEAR.match(tensor.name)
        if match and len(tensor.shape) == 2:
            found[int(match[1])][match[2]] = (tensor.shape[1], tensor.shape[0])
    first = found.get(0, {})
    if not first or any(found.get(n) != first for n in range(len(found))):
        raise _invalid("its layers do not have the same linears each")
    if kind in SHARED_BASE and len(first) != _SEVEN:
        raise _invalid("its layers do not have the seven linears of their family")
    return {name: first[name] for name in _LINEARS if name in first}, len(found)


def _template(files: Mapping[str, Path]) -> str | None:
    """As transformers finds it: a file of its own before the tokenizer's settings."""
    if "chat_template.jinja" in files:
        return files["chat_template.jinja"].read_text()
    if "tokenizer_config.json" not in files:
        return None
    found = _object(files["tokenizer_config.json"]).get("chat_template")
    return found if isinstance(found, str) else None


def _has(config: Mapping[str, Any]) -> bool:
    """Whether keys have heads of their own number; otherwise as many as queries."""
    return config.get("num_key_value_heads") is not None


def _size(tensor: safetensors.Tensor) -> int:
    size = 1
    for length in tensor.shape:
        size *= length
    return size


def _number(config: Mapping[str, Any], name: str) -> int:
    found = config.get(name)
    if isinstance(found, bool) or not isinstance(found, int) or not 0 < found < _MOST:
        raise _invalid(f"its config.json says no {name}")
    return found


def _object(path: Path) -> dict[str, Any]:
    found = json.loads(path.read_bytes())  # parsed once before, when it was admitted
    if not isinstance(found, dict):
        raise _invalid(f"{path.name[:60]} is no JSON object")
    return found


def _invalid(why: str) -> UserError:
    return UserError(
        Code.FILE_INVALID, f"This checkpoint cannot be used, since {why}: ask its author."
    )
