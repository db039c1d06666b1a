"""The engine's process on a stored checkpoint: unquantized, it says what transformers and
PEFT say, bare and under each adapter at once."""

import asyncio
import json
import shutil
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from freehold.catalog.pull import pull
from freehold.catalog.store import ModelStore
from freehold.config.schema import OpenVinoSettings
from freehold.core import peft
from freehold.core.engine import COMPLETIONS, AdapterFiles, EngineCall
from freehold.core.errors import Code, UserError
from freehold.engines.base import EngineClient, LocalModel
from freehold.engines.openvino.engine import OpenVino
from freehold.engines.openvino.tokenizer import Tokenizer
from tests.contract.entry import launched

pytestmark = pytest.mark.asyncio(loop_scope="module")

_TINY = Path(__file__).parent / "reference" / "tiny" / "qwen3"
_REFERENCE = json.loads((_TINY / "reference.json").read_text())
_SETTINGS = OpenVinoSettings(
    threads=1, streams=8, context_length=256, weights="float32", kv_cache_bytes=16 * 1024 * 1024
)


def _adapter(name: str) -> AdapterFiles:
    folder = _TINY / "adapters" / name
    config, weights = folder / peft.CONFIG, folder / peft.WEIGHTS
    return AdapterFiles(peft.digest_of(config.read_bytes(), weights.read_bytes()), config, weights)


_ADAPTERS = {name: _adapter(name) for name in _REFERENCE["answers"] if name != "base"}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def client(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[EngineClient]:
    home = tmp_path_factory.mktemp("home")
    source = home / "qwen3"
    source.mkdir()
    for path in _TINY.iterdir():
        if path.is_file() and path.suffix != ".gguf" and path.name != "reference.json":
            shutil.copy(path, source)
    store = ModelStore(home)
    card = pull(
        store, home, f"file:{source}", progress=lambda *_: None, accept_licence="made for this test"
    )
    model = LocalModel(card, store.path(card))
    async with launched(OpenVino(_SETTINGS, home / "cache"), model, home) as (found, _):
        assert await found.identity() == card.digest
        refused = await found.change_adapters(list(_ADAPTERS.values()), [])
        assert refused == {}
        yield found


async def _ask(client: EngineClient, prompt: str, adapter: str | None, **fields: Any) -> Any:
    body = {"prompt": prompt, "max_tokens": 24, "temperature": 0, **fields}
    call = EngineCall(COMPLETIONS, "m", body, "r", adapter=adapter)
    chunks: list[dict[str, Any]] = []
    async with client.stream(call) as answer:
        while (found := await answer.read()) is not None:
            chunks += found
    assert {chunk["adapter"] for chunk in chunks} == {adapter}
    return "".join(chunk["choices"][0]["text"] for chunk in chunks if chunk["choices"])


async def test_all_adapters_at_once_say_what_transformers_and_peft_say(
    client: EngineClient,
) -> None:
    tokenizer = Tokenizer.from_folder(_TINY)
    asked, expected = [], []
    for name, answers in _REFERENCE["answers"].items():
        adapter = _ADAPTERS[name].digest if name in _ADAPTERS else None
        for prompt, answer in zip(_REFERENCE["prompts"], answers, strict=True):
            asked.append(_ask(client, prompt["text"], adapter))
            pieces = b"".join(map(tokenizer.shown_bytes, answer["greedy"]))
            expected.append(pieces.decode(errors="replace"))
    assert await asyncio.gather(*asked) == expected
    assert len(set(expected)) > len(expected) / 2


async def test_an_adapter_that_it_was_not_told_of_is_refused(client: EngineClient) -> None:
    with pytest.raises(UserError) as refused:
        await _ask(client, "a", "sha256:" + "0" * 64)
    assert refused.value.code is Code.ADAPTER_UNAVAILABLE


async def test_files_that_are_not_the_digest_s_are_refused_with_the_reason(
    client: EngineClient,
) -> None:
    one, another = list(_ADAPTERS.values())[:2]
    mixed = AdapterFiles(one.digest, one.config, another.weights)
    refused = await client.change_adapters([mixed], [])
    assert "changed" in refused[one.digest]
    assert await _ask(client, "a", one.digest)  # the sound one that it had is still there


async def test_a_dropped_adapter_is_gone_and_comes_back(client: EngineClient) -> None:
    one = next(iter(_ADAPTERS.values()))
    before = await _ask(client, "abc", one.digest)
    assert await client.change_adapters([], [one.digest]) == {}
    with pytest.raises(UserError):
        await _ask(client, "abc", one.digest)
    assert await client.change_adapters([one], []) == {}
    assert await _ask(client, "abc", one.digest) == before


def _another(folder: Path, like: AdapterFiles) -> AdapterFiles:
    """One with weights of its own, so that a test may spoil it."""
    config, weights = folder / peft.CONFIG, folder / peft.WEIGHTS
    shutil.copy(like.config, config)
    content = bytearray(like.weights.read_bytes())
    content[-4] ^= 1
    weights.write_bytes(content)
    return AdapterFiles(peft.digest_of(config.read_bytes(), bytes(content)), config, weights)


def _change(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-4] ^= 2
    path.write_bytes(content)


@pytest.mark.parametrize(
    "spoil",
    [Path.unlink, _change, lambda path: path.write_bytes(path.read_bytes()[:-8])],
    ids=["removed", "changed", "cut short"],
)
async def test_an_adapter_that_the_disk_spoilt_is_never_used_and_the_reason_is_told_when_asked(
    client: EngineClient, tmp_path: Path, spoil: Callable[[Path], object]
) -> None:
    one = _another(tmp_path, next(iter(_ADAPTERS.values())))
    sound = one.weights.read_bytes()
    many = [replace(one, digest=f"sha256:{number:064x}") for number in range(20)]
    assert await client.change_adapters([one], []) == {}
    spoil(one.weights)
    for _ in range(2):
        with pytest.raises(UserError) as refused:
            await _ask(client, "a", one.digest)
        assert refused.value.code is Code.ADAPTER_UNAVAILABLE
    for told in ([one], [one, *many]):  # of many at once, as at a start, not all are read
        found = await client.change_adapters(told, [])
        assert found.keys() == {one.digest}
        assert "again" in found[one.digest]
    assert await _ask(client, "a", None)
    one.weights.write_bytes(sound)
    assert await client.change_adapters([one], [each.digest for each in many]) == {}
    answer = await _ask(client, "a", one.digest)
    spoil(one.weights)  # it is in memory
    assert await _ask(client, "a", one.digest) == answer
    assert await client.change_adapters([], [one.digest]) == {}


async def test_a_prompt_without_tokens_is_refused_and_the_engine_lives(
    client: EngineClient,
) -> None:
    with pytest.raises(UserError) as refused:
        await _ask(client, "", None)
    assert (refused.value.code, refused.value.param) == (Code.INVALID_VALUE, "prompt")
    assert await _ask(client, "a", None)
