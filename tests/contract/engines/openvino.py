"""The shared-base engine with the model that `freehold up` pulled."""

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


class Entry(LocalEntry):
    name = "openvino"
    endless: Mapping[str, Any] = {
        "messages": [{"role": "user", "content": "Go on"}],
        "logit_bias": {CITY: 100},
        "max_tokens": 400,
    }
    cannot: Mapping[Promise, str] = {
        Promise.FORM_AND_TOOLS: "one schema says what a call is, a second cannot hold beside it",
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
