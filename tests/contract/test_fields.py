"""Each field of OpenAI's bodies is honoured or refused by name, on every engine."""

import re
from pathlib import Path
from typing import Any

import orjson
import pytest

from freehold.config.schema import LlamaCppSettings
from freehold.core.engine import CHAT, COMPLETIONS, EMBEDDINGS
from freehold.core.errors import Code, UserError
from freehold.engines.base import LocalModel
from freehold.engines.llama_cpp import LlamaCpp
from freehold.serve.protocol.bodies import Body, admit, parse
from freehold.serve.protocol.chat_body import ChatBody, CompletionBody
from tests.contract.effects import BASE, EFFECTS, sample
from tests.contract.entry import Entry, Promise, Running
from tests.harness import card

pytestmark = pytest.mark.asyncio(loop_scope="session")

# Read by the gateway; no engine sees them.
_GATEWAYS = {
    "metadata", "model", "prompt_cache_key", "safety_identifier", "stream", "stream_options",
    "user",
}  # fmt: skip
FIELDS = [
    (endpoint, name)
    for endpoint, model in ((CHAT, ChatBody), (COMPLETIONS, CompletionBody))
    for name in model.model_fields
    if name not in _GATEWAYS
]
_API = Path(__file__).parents[2] / "docs" / "api.md"


def _parsed(endpoint: str, body: dict[str, Any]) -> Body:
    return parse(endpoint, orjson.dumps({"model": "m", **body}))


@pytest.mark.parametrize(("endpoint", "name"), FIELDS)
async def test_a_field_has_its_effect_or_is_refused_by_name(
    entry: Entry, running: Running, endpoint: str, name: str
) -> None:
    body = _parsed(endpoint, sample(endpoint, name))
    if name in running.capabilities.fields[endpoint]:
        sent = admit(body, running.capabilities)
        assert sent[name] == body.data[name]
        if name in entry.without_effect:
            assert await _said(running, endpoint, sent) == await _said(running, endpoint, {})
        else:
            await EFFECTS[endpoint][name](running, endpoint)
    elif name == "n":  # the gateway asks the engine as often
        assert "n" not in admit(body, running.capabilities)
    else:
        with pytest.raises(UserError) as refused:
            admit(body, running.capabilities)
        assert (refused.value.code, refused.value.param) == (Code.UNSUPPORTED_PARAMETER, name)


async def _said(running: Running, endpoint: str, fields: dict[str, Any]) -> tuple[Any, ...]:
    said = await running.ask(endpoint, **{**BASE[endpoint], **fields})
    return said.choices, said.usage


async def test_what_is_without_effect_is_taken_at_all(entry: Entry, running: Running) -> None:
    assert set(entry.without_effect) <= set().union(*running.capabilities.fields.values())


async def test_an_endpoint_that_is_not_served_is_refused(running: Running) -> None:
    assert running.capabilities.endpoints == {CHAT, COMPLETIONS}
    with pytest.raises(UserError) as refused:
        admit(_parsed(EMBEDDINGS, {"input": "a"}), running.capabilities)
    assert refused.value.code is Code.UNSUPPORTED_ENDPOINT


async def test_a_form_is_not_dropped_in_silence_where_the_model_may_choose_a_tool(
    entry: Entry, running: Running
) -> None:
    body = {**sample(CHAT, "tools"), **sample(CHAT, "response_format"), "max_tokens": 60}
    if Promise.FORM_AND_TOOLS in entry.cannot:
        with pytest.raises(UserError) as refused:
            await running.ask(CHAT, **body)
        assert refused.value.param == "response_format"
    else:
        said = await running.ask(CHAT, **body)
        is_kept = said.calls or said.text.lstrip().startswith("{")
        assert is_kept or "response_format" in entry.without_effect


async def test_the_documented_fields_are_those_that_llama_cpp_takes() -> None:
    engine = LlamaCpp(LlamaCppSettings())
    takes = engine.capabilities(LocalModel(card(), Path("/none"))).fields
    rows = dict(re.findall(r"^\| (.+?) \| (.+) \|$", _API.read_text(), re.MULTILINE))
    for endpoint, title in ((CHAT, "chat completions"), (COMPLETIONS, "completions")):
        told = set(re.findall(r"`(\w+)`", rows[title]))
        assert told == takes[endpoint] | {"n", "stream", "stream_options"}
