"""Embeddings, as floats or as the base64 that OpenAI's SDKs ask for."""

import base64
import math
import struct
from operator import itemgetter
from typing import Any

from freehold.serve.protocol.meter import Meter
from freehold.serve.protocol.shape import reads_engine


class EmbeddingShaper:
    """Engines answer in either form; the caller gets the one that was asked for, one
    for each input and in their order, by which programs match them."""

    def __init__(self, model: str, as_base64: bool, inputs: int) -> None:
        self._model = model
        self._as_base64 = as_base64
        self._inputs = inputs

    def chunk(self, chunks: list[dict[str, Any]]) -> bytes:
        return b""

    def end(self, meter: Meter) -> bytes:
        return b""

    def error(self, body: dict[str, Any]) -> bytes:
        return b""

    @reads_engine
    def whole(self, content: dict[str, Any], meter: Meter) -> dict[str, Any]:
        data = sorted((self._entry(entry) for entry in content["data"]), key=itemgetter("index"))
        if [entry["index"] for entry in data] != list(range(self._inputs)):
            raise ValueError("not one embedding for each input")
        return {
            "object": "list",
            "data": data,
            "model": self._model,
            "usage": {"prompt_tokens": meter.tokens_in, "total_tokens": meter.tokens_in},
        }

    def _entry(self, entry: dict[str, Any]) -> dict[str, Any]:
        vector = entry["embedding"]
        if isinstance(vector, str):
            vector = vector if self._as_base64 else _unpacked(vector)
        else:
            vector = _packed(vector) if self._as_base64 else [float(number) for number in vector]
        return {"object": "embedding", "index": entry.get("index", 0), "embedding": vector}


def _packed(vector: list[float]) -> str:
    try:
        return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()
    except struct.error as error:
        raise ValueError("no numbers") from error


def _unpacked(text: str) -> list[float]:
    content = base64.b64decode(text, validate=True)
    if len(content) % 4:
        raise ValueError("no whole numbers")
    vector = list(struct.unpack(f"<{len(content) // 4}f", content))
    if not all(map(math.isfinite, vector)):
        raise ValueError("no finite numbers")
    return vector
