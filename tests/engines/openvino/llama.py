"""A running llama.cpp to compare with, and small models with vocabularies for it."""

import hashlib
import http.client
import json
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import gguf
import numpy as np

from freehold.config.schema import LlamaCppSettings
from freehold.engines.base import LocalModel
from freehold.engines.llama_cpp import LlamaCpp
from tests.harness import card


class Llama:
    def __init__(self, path: str) -> None:
        self._path = path

    def post(self, path: str, body: Mapping[str, Any]) -> Any:
        with socket.socket(socket.AF_UNIX) as found:
            found.connect(self._path)
            connection = http.client.HTTPConnection("engine")
            connection.sock = found
            headers = {"content-type": "application/json", "connection": "close"}
            connection.request("POST", path, json.dumps(body).encode(), headers)
            with connection.getresponse() as answer:
                if answer.status != 200:
                    raise ConnectionError(answer.status)
                return json.loads(answer.read())

    def tokens(self, text: str, *, parse_special: bool, add_bos: bool = False) -> list[int]:
        body = {"content": text, "add_special": add_bos, "parse_special": parse_special}
        found: list[int] = self.post("/tokenize", body)["tokens"]
        return found

    def rendered(self, body: Mapping[str, Any]) -> str:
        found: str = self.post("/apply-template", body)["prompt"]
        return found


@contextmanager
def serving(model: Path) -> Iterator[Llama]:
    """As the gateway starts it."""
    digest = "sha256:" + hashlib.sha256(model.read_bytes()).hexdigest()
    engine = LlamaCpp(LlamaCppSettings(threads=1, streams=1, context_length=256))
    path = str(model.parent / "llama.sock")
    Path(path).unlink(missing_ok=True)
    spec = engine.launch(LocalModel(replace(card("tiny"), digest=digest), model), path)
    process = subprocess.Popen(
        spec.argv,
        env=dict(spec.env),
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    llama = Llama(path)
    try:
        _await(llama, process)
        yield llama
    finally:
        process.kill()
        process.communicate()


def _await(llama: Llama, process: "subprocess.Popen[bytes]") -> None:
    for _ in range(1200):
        try:
            llama.tokens("a", parse_special=False)
        except OSError:
            assert process.poll() is None, "llama.cpp does not take this model"
            time.sleep(0.05)
        else:
            return
    raise AssertionError("llama.cpp does not start")


def write_model(path: Path, tokenizer: Mapping[str, Any], vocabulary: int) -> Path:
    """A model of one tiny layer with this vocabulary."""
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(1)
    writer.add_context_length(256)
    writer.add_embedding_length(32)
    writer.add_feed_forward_length(32)
    writer.add_head_count(1)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(vocabulary)
    for key, value in tokenizer.items():
        _add(writer, f"tokenizer.{key}", value)
    shapes = {"token_embd": (vocabulary, 32), "output_norm": (32,)}
    shapes |= {f"blk.0.attn_{name}": (32, 32) for name in ("q", "k", "v", "output")}
    shapes |= {f"blk.0.ffn_{name}": (32, 32) for name in ("gate", "up", "down")}
    shapes |= {f"blk.0.{name}_norm": (32,) for name in ("attn", "ffn")}
    for name, shape in shapes.items():
        writer.add_tensor(f"{name}.weight", np.zeros(shape, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _add(writer: gguf.GGUFWriter, key: str, value: Any) -> None:
    if isinstance(value, bool):
        writer.add_bool(key, value)
    elif isinstance(value, int):
        writer.add_uint32(key, value)
    elif isinstance(value, str):
        writer.add_string(key, value)
    else:
        writer.add_array(key, value)


def sentencepiece(corpus: str) -> dict[str, Any]:
    """A vocabulary of the corpus's most frequent short strings, the longer ones better,
    with runs of spaces, bytes and special tokens. No other runs: where two merges make the
    same token, llama.cpp takes the leftmost and `tokenizers` the one that is listed first."""
    text = corpus.replace(" ", "▁")
    special = ("<unk>", "<s>", "</s>")
    counts: dict[str, int] = {}
    for length in range(1, 6):
        for at in range(len(text) - length):
            found = text[at : at + length]
            odd = length > 2 and len(set(found)) == 1
            if found.isprintable() and found not in special and not odd:
                counts[found] = counts.get(found, 0) + 1
    frequent = sorted(counts, key=lambda found: (-counts[found] * len(found), found))[:3000]
    words = list(dict.fromkeys(["▁▁", "▁▁▁▁", *frequent]))
    tokens = [*special, *(f"<0x{byte:02X}>" for byte in range(256)), *words]
    kinds = [2, 3, 3, *[6] * 256, *[1] * len(words)]
    tokens += ["<|im_start|>", "<|im_end|>", "<|tool|>"]
    kinds += [3, 3, 4]
    return {
        "ggml.model": "llama",
        "ggml.tokens": tokens,
        "ggml.token_type": kinds,
        "ggml.scores": [-float(at) for at in range(len(tokens))],
        "ggml.bos_token_id": 1,
        "ggml.eos_token_id": 2,
    }
