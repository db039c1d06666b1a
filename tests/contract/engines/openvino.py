"""The shared-base engine with the model that `freehold up` pulled."""

import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from freehold.catalog.store import ModelStore
from freehold.config.schema import OpenVinoSettings
from freehold.engines.base import Engine, LocalModel
from freehold.engines.openvino.engine import OpenVino
from tests.contract.engines.llama_cpp import CITY, MODEL
from tests.contract.entry import LocalEntry, Place, Promise

# Tiles of bfloat16 are used from some rows on, and round otherwise than what fewer rows use.
_HAS_TILES = "amx_bf16" in Path("/proc/cpuinfo").read_text() if sys.platform == "linux" else False
_SUMS: Mapping[Promise, str] = (
    {Promise.SAME_IN_ANY_BATCH: "sums in AMX's tiles differ with the batch, and near ties fall"}
    if _HAS_TILES
    else {}
)


class Entry(LocalEntry):
    name = "openvino"
    endless: Mapping[str, Any] = {
        "messages": [{"role": "user", "content": "Go on"}],
        "logit_bias": {CITY: 100},
        "max_tokens": 400,
    }
    cannot: Mapping[Promise, str] = {
        Promise.FORM_AND_TOOLS: "one schema says what a call is, a second cannot hold beside it",
        **_SUMS,
    }

    def engine(self, cache: Path | None = None) -> Engine:
        settings = OpenVinoSettings(
            threads=1, streams=4, context_length=512, kv_cache_bytes=64 * 1024 * 1024
        )
        return OpenVino(settings, cache)

    def model(self, place: Place) -> LocalModel:
        store = ModelStore(place.home)
        card = store.get(MODEL)
        return LocalModel(card, store.path(card))

    def impostor(self, place: Place) -> tuple[Engine, LocalModel]:
        model = self.model(place)
        other = replace(model.card, digest="sha256:" + "0" * 64)
        return self.engine(), replace(model, card=other)
