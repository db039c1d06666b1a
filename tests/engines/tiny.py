"""The tiny models with adapters as GGUF files of full precision, and PEFT's answers."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGMLQuantizationType as Kind
from tokenizers import Tokenizer

from freehold.core import peft
from freehold.core.engine import AdapterFiles
from freehold.core.safetensors import read_header
from freehold.engines.base import LocalModel
from tests.engines.openvino.reference import tiny_gguf
from tests.harness import card

FOLDER = Path(__file__).parent / "openvino" / "reference" / "tiny"
_NUMBERS = {"F32": "<f4", "F16": "<f2", "BF16": "<u2"}


@dataclass(frozen=True)
class Tiny:
    """`answers` are PEFT's greedy texts by adapter (or "base") and by prompt."""

    model: LocalModel
    prompts: Sequence[Sequence[int]]
    answers: dict[str, list[str]]
    adapters: dict[str, AdapterFiles]


def tiny(name: str, folder: Path) -> Tiny:
    source = FOLDER / name
    path = folder / f"{name}.gguf"
    tiny_gguf.write(path, source, _weights(source / "model.safetensors"), Kind.F32)
    digest = "sha256:" + hashlib.sha256(path.read_bytes()).hexdigest()
    reference = json.loads((source / "reference.json").read_text())
    words = Tokenizer.from_file(str(source / "tokenizer.json"))
    answers = {
        each: [shown(words.decode(one["greedy"])) for one in found]
        for each, found in reference["answers"].items()
    }
    return Tiny(
        LocalModel(replace(card(name), digest=digest), path),
        [prompt["ids"] for prompt in reference["prompts"]],
        answers,
        {path.name: adapter_files(path) for path in sorted((source / "adapters").iterdir())},
    )


def shown(text: str) -> str:
    """Without what is no character: tokens of these models are often parts of one."""
    return text.replace("\ufffd", "")


@cache
def adapter_files(folder: Path) -> AdapterFiles:
    """A PEFT folder as an engine is told of it."""
    config, weights = folder / peft.CONFIG, folder / peft.WEIGHTS
    digest = peft.digest_of(config.read_bytes(), weights.read_bytes())
    return AdapterFiles(digest, config, weights)


def _weights(path: Path) -> dict[str, Any]:
    content = path.read_bytes()
    found = {}
    for tensor in read_header(path):
        values = np.frombuffer(content[tensor.begin : tensor.end], _NUMBERS[tensor.dtype])
        if tensor.dtype == "BF16":
            values = (values.astype(np.uint32) << 16).view(np.float32)
        found[tensor.name] = values.astype(np.float32).reshape(tensor.shape)
    return found
