"""The fake engine: a real process that makes words from the prompt alone."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from freehold.engines.base import Engine, LocalModel
from freehold.engines.fake import Fake, FakeClient, tokens_for
from tests.contract.entry import LocalEntry, Place, Promise, Running
from tests.harness import card

_WORDS = "its words come from the prompt alone"
_PLAIN = "it makes plain words only"


class Entry(LocalEntry):
    name = "fake"
    endless: Mapping[str, Any] = {
        "messages": [{"role": "user", "content": "[[slow 0.02]] [[tokens 20000]]"}]
    }
    cannot: Mapping[Promise, str] = {
        Promise.READS_FILE: "it loads nothing and repeats the digest that it was told",
        Promise.REFUSES: "it reads nothing but prompt and limit",
        Promise.HELD_TEXT: "it knows no stop sequences",
    }
    without_effect: Mapping[str, str] = {
        "frequency_penalty": _WORDS,
        "logit_bias": _WORDS,
        "logprobs": "it has no probabilities",
        "parallel_tool_calls": _PLAIN,
        "presence_penalty": _WORDS,
        "response_format": _PLAIN,
        "seed": _WORDS,
        "stop": _WORDS,
        "temperature": _WORDS,
        "tool_choice": _PLAIN,
        "tools": _PLAIN,
        "top_logprobs": "it has no probabilities",
        "top_p": _WORDS,
    }

    def engine(self, cache: Path | None = None) -> Engine:
        return Fake(streams=8)

    def model(self, place: Place) -> LocalModel:
        return LocalModel(card(context=512), Path("/none"))

    def impostor(self, place: Place) -> tuple[Engine, LocalModel]:
        return Fake(("--wrong-digest",)), self.model(place)

    def own(self, number: int) -> tuple[dict[str, Any], str]:
        words = tokens_for(str(number), 16)
        return {"messages": [{"role": "user", "content": str(number)}]}, "".join(words)

    async def is_idle(self, running: Running) -> bool:
        assert isinstance(running.client, FakeClient)
        return not (await running.client.get_json("seen"))["running"]
