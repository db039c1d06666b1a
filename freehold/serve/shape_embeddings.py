"""Embeddings, as floats or as the base64 that OpenAI's SDKs ask for."""

import base64
import struct
from typing import Any

from freehold.core.errors import Code, UserError
from freehold.serve.meter import Meter


class EmbeddingShaper:
    def __init__(self, model: str, as_base64: bool) -> None:
        self._model = model
        self._as_base64 = as_base64

    def chunk(self, chunks: list[dict[str, Any]]) -> bytes:
        return b""

    def end(self, meter: Meter) -> bytes:
        return b""

    def error(self, body: dict[str, Any]) -> bytes:
        return b""

    def whole(self, content: dict[str, Any], meter: Meter) -> dict[str, Any]:
        data = content.get("data")
        if not isinstance(data, list):
            raise UserError(Code.ENGINE_FAILED, "The engine sent no embeddings: try again.")
        usage = {"prompt_tokens": meter.tokens_in, "total_tokens": meter.tokens_in}
        return {
            "object": "list",
            "data": [self._entry(entry) for entry in data],
            "model": self._model,
            "usage": usage,
        }

    def _entry(self, entry: dict[str, Any]) -> dict[str, Any]:
        vector = entry.get("embedding")
        if self._as_base64 and isinstance(vector, list):
            packed = struct.pack(f"<{len(vector)}f", *vector)
            vector = base64.b64encode(packed).decode()
        return {"object": "embedding", "index": entry.get("index", 0), "embedding": vector}
