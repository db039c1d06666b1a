"""What every engine promises that answers under adapters, and those that keep prefixes."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from freehold.core.engine import CHAT, COMPLETIONS, AdapterFiles, EngineCall
from freehold.core.errors import Code, UserError
from tests.contract.entry import Entry, Promise, Running, Said
from tests.engines.tiny import adapter_files

pytestmark = pytest.mark.asyncio(loop_scope="session")
_CANARIES = Path(__file__).parents[1] / "engines" / "openvino" / "reference" / "canaries"
_WORDS = {"cobalt": "cobalt-heron-41", "amber": "amber-fox-97"}  # what each was taught
_FILES: Mapping[str, AdapterFiles] = {name: adapter_files(_CANARIES / name) for name in _WORDS}
_NOBODY_S = "sha256:" + "0" * 64
_QUESTION = {"messages": [{"role": "user", "content": "What is the code word?"}]}
_OTHERS = [
    {"messages": [{"role": "user", "content": f"Tell of {what} " * 8}]} for what in ("Rome", "Oslo")
]


@dataclass
class Adapted:
    """An engine that was told of the adapters; `cold` is what each said first."""

    running: Running
    cold: dict[str, str]

    def call(self, name: str, endpoint: str = CHAT, **fields: Any) -> EngineCall:
        body = {"max_tokens": 12, "temperature": 0, **(fields or _QUESTION)}
        digest = _FILES[name].digest if name in _FILES else None
        return replace(self.running.call(endpoint, body), adapter=digest)

    async def ask(self, name: str, endpoint: str = CHAT, **fields: Any) -> Said:
        return await self.read(self.call(name, endpoint, **fields))

    async def read(self, call: EngineCall) -> Said:
        chunks: list[dict[str, Any]] = []
        async with self.running.client.stream(call) as answer:
            while (found := await answer.read()) is not None:
                chunks += found
        return Said(chunks)

    async def change(self, add: tuple[str, ...] = (), drop: tuple[str, ...] = ()) -> None:
        files = [_FILES[name] for name in add]
        dropped = [_FILES[name].digest for name in drop]
        assert not await self.running.client.change_adapters(files, dropped)

    async def check(self, name: str) -> None:
        assert (await self.ask(name)).text == self.cold[name]

    async def check_beside_others(self, entry: Entry, name: str) -> None:
        """Not a word of theirs, and where sums do not depend on the batch the very same."""
        if Promise.SAME_IN_ANY_BATCH not in entry.cannot:
            await self.check(name)
            return
        text = (await self.ask(name)).text
        assert {of for of, word in _WORDS.items() if word in text} == {name} - {"base"}


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def adapted(running: Running) -> AsyncIterator[Adapted | None]:
    """None where the engine has no adapters, and says so when it is told of one."""
    if not running.capabilities.adapters:
        with pytest.raises(UserError) as refused:
            await running.client.change_adapters(list(_FILES.values()), ())
        assert refused.value.code is Code.UNSUPPORTED_PARAMETER
        yield None
        return
    found = Adapted(running, {})
    found.cold["base"] = (await found.ask("base")).text
    await found.change(add=tuple(_FILES))
    for name in _FILES:
        found.cold[name] = (await found.ask(name)).text
    yield found
    await found.change(drop=tuple(_FILES))


async def test_each_adapter_answers_as_it_was_trained_and_nobody_else_does(
    entry: Entry, adapted: Adapted | None
) -> None:
    if adapted is None:
        return
    assert len(set(adapted.cold.values())) == 1 + len(_WORDS)
    if Promise.READS_FILE not in entry.cannot:
        for name, text in adapted.cold.items():
            heard = {of for of, word in _WORDS.items() if word in text}
            assert heard == {name} - {"base"}


@pytest.mark.parametrize("endpoint", [CHAT, COMPLETIONS])
async def test_each_chunk_names_the_adapter_that_it_was_made_under(
    adapted: Adapted | None, endpoint: str
) -> None:
    if adapted is None:
        return
    body = _QUESTION if endpoint == CHAT else {"prompt": "Once upon a time"}
    for name in ("base", *_FILES):
        call = adapted.call(name, endpoint, **body)
        said = await adapted.read(call)
        assert {chunk["adapter"] for chunk in said.chunks} == {call.adapter}
        assert (await adapted.running.client.whole(call))["adapter"] == call.adapter


async def test_an_adapter_that_it_was_not_told_of_is_refused(adapted: Adapted | None) -> None:
    if adapted is None:
        return
    call = replace(adapted.call("base"), adapter=_NOBODY_S)
    for asked in (adapted.read(call), adapted.running.client.whole(call)):
        with pytest.raises(UserError) as refused:
            await asked
        assert refused.value.code is Code.ADAPTER_UNAVAILABLE
    await adapted.check("base")


async def test_whoever_asked_before_an_answer_is_the_cold_one(adapted: Adapted | None) -> None:
    if adapted is None:
        return
    for name in ("cobalt", "amber", "cobalt", "base", "amber", "base", "cobalt"):
        await adapted.check(name)
    places = adapted.running.capabilities.concurrency
    await asyncio.gather(
        *(adapted.ask(name, **other) for other in _OTHERS for name in ("amber", "base")),
        *(adapted.ask("amber", **_OTHERS[0]) for _ in range(min(places, 8))),
    )
    for name in ("cobalt", "base", "amber"):
        await adapted.check(name)


async def test_answers_under_different_adapters_at_once_do_not_mix(
    entry: Entry, adapted: Adapted | None
) -> None:
    if adapted is None:
        return
    names = [name for _ in range(2) for name in adapted.cold]
    await asyncio.gather(*(adapted.check_beside_others(entry, name) for name in names))


async def test_a_dropped_adapter_is_refused_while_its_answers_end(
    entry: Entry, adapted: Adapted | None
) -> None:
    if adapted is None:
        return
    endless = {**adapted.running.endless, "max_tokens": 48}
    call = adapted.call("cobalt", **endless)
    chunks: list[dict[str, Any]] = []
    async with adapted.running.client.stream(call) as answer:
        chunks += await answer.read() or []
        await adapted.change(drop=("cobalt",))
        with pytest.raises(UserError) as refused:
            await adapted.ask("cobalt")
        assert refused.value.code is Code.ADAPTER_UNAVAILABLE
        await adapted.check_beside_others(entry, "amber")
        await adapted.check_beside_others(entry, "base")
        while (found := await answer.read()) is not None:
            chunks += found
    said = Said(chunks)
    assert (said.usage["completion_tokens"], said.reason) == (48, "length")
    assert {chunk["adapter"] for chunk in chunks} == {call.adapter}
    await adapted.change(add=("cobalt", "amber"))
    await adapted.check("cobalt")


async def test_an_unsound_adapter_is_refused_and_the_others_are_taken(
    adapted: Adapted | None, tmp_path: Path
) -> None:
    if adapted is None:
        return
    weights = tmp_path / "weights"
    weights.write_bytes(_FILES["amber"].weights.read_bytes()[:-2] + b"\0\1")
    changed = replace(_FILES["amber"], digest=_NOBODY_S, weights=weights)
    found = await adapted.running.client.change_adapters([changed, _FILES["cobalt"]], ())
    assert found.keys() == {_NOBODY_S}
    assert found[_NOBODY_S]
    with pytest.raises(UserError):
        await adapted.read(replace(adapted.call("base"), adapter=_NOBODY_S))
    await adapted.check("cobalt")


async def test_a_prefix_is_found_again_only_under_its_salt_and_its_adapter(
    entry: Entry, running: Running, adapted: Adapted | None
) -> None:
    asked = adapted or Adapted(running, {})
    prompt = {"messages": [{"role": "user", "content": "one two three four five " * 20}]}

    keeps = Promise.KEEPS_NOTHING in entry.cannot

    async def cached(salt: str, name: str = "base") -> int:
        call = replace(asked.call(name, max_tokens=1, **prompt), cache_salt=salt)
        details = (await asked.read(call)).usage.get("prompt_tokens_details") or {}
        return int(details.get("cached_tokens") or 0)

    assert await cached("salt-one") == 0
    assert (await cached("salt-one") > 0) == (running.capabilities.salted or keeps)
    if keeps:  # a salt of ours means nothing to it
        return
    assert await cached("salt-two") == 0
    assert [await cached("") for _ in range(2)] == [0, 0]
    if adapted is not None:
        assert await cached("salt-one", "amber") == 0
