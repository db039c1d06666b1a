"""llama.cpp with the model that `freehold up` pulled and the format it chose."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from freehold.catalog.store import ModelStore
from freehold.config.schema import LlamaCppSettings
from freehold.engines.base import Engine, LocalModel
from freehold.engines.llama_cpp import LlamaCpp
from tests.contract.entry import LocalEntry, Place, Promise

MODEL = "smollm2-135m-instruct"
CITY = "2240"  # the number of " city" in that model's vocabulary


class Entry(LocalEntry):
    name = "llama_cpp"
    endless: Mapping[str, Any] = {
        "messages": [{"role": "user", "content": "Go on"}],
        "logit_bias": {CITY: 100},
        "max_tokens": 400,
    }
    cannot: Mapping[Promise, str] = {
        Promise.FORM_AND_TOOLS: "one schema says what a call is, a second cannot hold beside it",
        Promise.HELD_TEXT: "its stream forgets what it kept back when the limit ends it",
    }

    def engine(self, cache: Path | None = None) -> Engine:
        return LlamaCpp(LlamaCppSettings(threads=1, streams=4, context_length=512))

    def model(self, place: Place) -> LocalModel:
        store = ModelStore(place.home)
        card = store.get(MODEL)
        return LocalModel(card, store.path(card))

    def impostor(self, place: Place) -> tuple[Engine, LocalModel]:
        model = self.model(place)
        other = replace(model.card, digest="sha256:" + "0" * 64)
        return self.engine(), replace(model, card=other)
