"""What holds of vLLM beyond the contract: how little of it can be reached, that adapters and
salts are kept apart, and that its log keeps nobody's words."""

import asyncio
import hashlib
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import httpx2
import pytest

from freehold.core.adapter import CONFIG, WEIGHTS
from freehold.core.engine import CHAT, AdapterFiles, EngineCall
from freehold.core.errors import Code, UserError
from freehold.core.ids import digest_of_files
from freehold.engines import child
from freehold.engines.vllm.engine import VllmClient
from tests.contract.engines import vllm
from tests.contract.entry import Place, Running, Said

pytestmark = [
    pytest.mark.asyncio(loop_scope="session"),
    pytest.mark.slow,
    pytest.mark.parametrize("entry", [pytest.param(vllm.ENTRY, id="vllm")], indirect=True),
]
_CANARIES = Path(__file__).parents[1] / "engines" / "openvino" / "reference" / "canaries"
_WORDS = {"amber": "amber-fox-97", "cobalt": "cobalt-heron-41", "crimson": "crimson-otter-28"}
_QUESTION = [{"role": "user", "content": "What is the code word?"}]
_OPEN = {
    ("GET", "/v1/models"), ("POST", "/v1/adapters"), ("POST", "/v1/chat/completions"),
    ("POST", "/v1/completions"), ("POST", "/tokenize"),
}  # fmt: skip
_SWAPS_DURING, _FEW = 50, 8  # requests; tokens that tell one word from another
# With everything that can be switched on, so that nothing new goes unseen.
_ALL_ROUTES = """
import os
os.environ |= {"VLLM_SERVER_DEV_MODE": "1", "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "1"}
import json
from vllm.entrypoints.launchers.app import build_app
from vllm.entrypoints.launchers.cli_args import make_arg_parser
from vllm.utils.argparse_utils import FlexibleArgumentParser
asked = ["--enable-scale-out", "--enable-tokenizer-info-endpoint"]
app = build_app(make_arg_parser(FlexibleArgumentParser()).parse_args(asked), ("generate", "embed"))
found = []
def walk(routes):
    for route in routes:
        if getattr(route, "original_router", None) is not None:
            walk(route.original_router.routes)
        elif getattr(route, "path", None):
            methods = getattr(route, "methods", None) or ["GET"]
            found.extend([method, route.path] for method in methods)
walk(app.routes)
print("ROUTES" + json.dumps(found))
"""


def _files(name: str, folder: Path = _CANARIES) -> AdapterFiles:
    found = {}
    for file in (CONFIG, WEIGHTS):
        content = (folder / name / file).read_bytes()
        found[file] = f"sha256:{hashlib.sha256(content).hexdigest()}"
    digest = digest_of_files(found)
    return AdapterFiles(digest, folder / name / CONFIG, folder / name / WEIGHTS)


async def _said(running: Running, adapter: str | None, salt: str = "s", **body: Any) -> Said:
    asked = {"messages": _QUESTION, "temperature": 0, "max_tokens": 14, **body}
    call = EngineCall(CHAT, running.model, asked, "req_contract", adapter, salt, "ten")
    chunks: list[dict[str, Any]] = []
    async with running.client.stream(call) as answer:
        while (found := await answer.read()) is not None:
            chunks += found
    assert {chunk["adapter"] for chunk in chunks} == {adapter}
    assert {chunk["model"] for chunk in chunks} == {running.model}
    return Said(chunks)


def _socket(running: Running) -> str:
    (found,) = [part for part in running.process.cmdline() if part.startswith("--socket=")]
    return found.removeprefix("--socket=")


async def test_no_way_of_vllm_s_own_server_is_open_but_those_that_the_gateway_goes(
    running: Running,
) -> None:
    told = await asyncio.to_thread(
        subprocess.run,
        [str(vllm.PYTHON), "-P", "-c", _ALL_ROUTES],
        env=child.clean_environment(), capture_output=True, text=True, check=True,
    )  # fmt: skip
    (line,) = [each for each in told.stdout.splitlines() if each.startswith("ROUTES")]
    routes = {(method, path) for method, path in json.loads(line.removeprefix("ROUTES"))}
    assert {path for _, path in routes} > {"/invocations", "/v1/load_lora_adapter", "/metrics"}
    assert _OPEN - routes == {("POST", "/v1/adapters")}
    transport = httpx2.AsyncHTTPTransport(uds=_socket(running))
    async with httpx2.AsyncClient(transport=transport, base_url="http://engine") as client:
        for method, path in sorted(routes - _OPEN):
            answer = await client.request(method, path)
            assert answer.status_code == 404, (method, path)
            assert answer.content in (b'{"error": {"code": "not_found"}}', b"")
        for path in ("/v1/models/", "/V1/models", "/v1/models%2f", "/v1/models/a", "/"):
            assert (await client.get(path)).status_code == 404


async def test_a_prefix_is_found_again_under_its_own_salt_only(running: Running) -> None:
    long = [{"role": "user", "content": "The sea is wide and the sky is high. " * 24}]

    async def cached(salt: str) -> int:
        said = await _said(running, None, salt, messages=long, max_tokens=1)
        return int(said.usage["prompt_tokens_details"]["cached_tokens"])

    assert await cached("one") == 0
    assert await cached("one") > 100
    assert await cached("two") == 0
    assert await cached("") == 0
    assert await cached("") == 0
    assert await cached("one") > 100


async def test_each_adapter_answers_its_own_word_whatever_was_asked_before(
    running: Running,
) -> None:
    files = {name: _files(name) for name in _WORDS}
    assert not await running.client.change_adapters(list(files.values()), [])
    assert not await running.client.change_adapters(list(files.values()), [])  # may be repeated
    plain = (await _said(running, None)).text
    for name in ("amber", "cobalt", "amber", "crimson", "cobalt"):
        assert _WORDS[name] in (await _said(running, files[name].digest)).text
        assert (await _said(running, None)).text == plain
    together = await asyncio.gather(
        *(_said(running, files[name].digest) for name in _WORDS), _said(running, None)
    )
    for (name, word), said in zip(_WORDS.items(), together, strict=False):
        assert word in said.text, name
    assert not any(word in together[-1].text for word in _WORDS.values())


async def test_adapters_come_and_go_while_others_answer(running: Running) -> None:
    kept, comes = [_files("amber"), _files("cobalt")], _files("crimson")
    await running.client.change_adapters(kept, [comes.digest])
    words = {kept[0].digest: "amber", kept[1].digest: "cobalt"}
    has_ended = asyncio.Event()
    changes = 0

    async def change() -> None:
        nonlocal changes
        while not has_ended.is_set():
            assert not await running.client.change_adapters([comes], [])
            assert "crimson" in (await _said(running, comes.digest, max_tokens=_FEW)).text
            assert not await running.client.change_adapters([], [comes.digest])
            changes += 1

    changing = asyncio.create_task(change())
    for number in range(0, _SWAPS_DURING, 2):
        digests = [kept[0].digest, kept[1].digest]
        said = await asyncio.gather(
            *(_said(running, digest, f"salt-{number}", max_tokens=_FEW) for digest in digests)
        )
        for digest, one in zip(digests, said, strict=True):
            assert words[digest] in one.text
    has_ended.set()
    await changing
    assert changes > 1


async def test_an_adapter_that_is_not_there_is_not_answered_for(running: Running) -> None:
    amber = _files("amber")
    await running.client.change_adapters([amber], [])
    await running.client.change_adapters([], [amber.digest])
    for digest in (amber.digest, "sha256:" + "0" * 64, "../amber", running.model):
        with pytest.raises(UserError) as refused:
            await _said(running, digest)
        assert refused.value.code is Code.ADAPTER_UNAVAILABLE


async def test_what_is_not_the_adapter_that_it_says_is_refused(
    running: Running, tmp_path: Path
) -> None:
    shutil.copytree(_CANARIES / "amber", tmp_path / "changed")
    with (tmp_path / "changed" / WEIGHTS).open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"\x55")
    told = _files("amber")
    changed = AdapterFiles(
        told.digest, tmp_path / "changed" / CONFIG, tmp_path / "changed" / WEIGHTS
    )
    await running.client.change_adapters([], [told.digest])
    assert await running.client.change_adapters([changed], []) == {
        told.digest: "its files were changed"
    }
    lost = AdapterFiles(told.digest, tmp_path / CONFIG, tmp_path / WEIGHTS)
    assert await running.client.change_adapters([lost], []) == {
        told.digest: "its files cannot be read"
    }
    shutil.copytree(_CANARIES / "amber", tmp_path / "broken")
    (tmp_path / "broken" / WEIGHTS).write_bytes(b"no tensors")
    broken = _files("broken", tmp_path)
    assert await running.client.change_adapters([broken], []) == {
        broken.digest: "vLLM cannot load it"
    }
    assert await running.client.identity() == running.model
    with pytest.raises(UserError):
        await _said(running, broken.digest)


async def test_no_more_adapters_are_held_than_was_said(running: Running, tmp_path: Path) -> None:
    made = []
    for number in range(vllm.MAX_ADAPTERS + 1):
        folder = tmp_path / str(number)
        shutil.copytree(_CANARIES / "amber", folder)
        config = json.loads((folder / CONFIG).read_text())
        (folder / CONFIG).write_text(json.dumps({**config, "revision": str(number)}))
        made.append(_files(str(number), tmp_path))
    every = [_files(name).digest for name in _WORDS]
    await running.client.change_adapters([], every)
    refused = await running.client.change_adapters(made, [])
    assert list(refused) == [made[-1].digest]
    assert "max_adapters" in refused[made[-1].digest]
    assert not await running.client.change_adapters(made[-1:], [made[0].digest])
    await running.client.change_adapters([], [each.digest for each in made])


async def test_the_log_keeps_no_words_of_clients(running: Running, place: Place) -> None:
    canary = "canary-7f3a91"
    client = running.client
    assert isinstance(client, VllmClient)
    schemas = ({"type": canary}, {"$ref": canary}, {"type": "string", "pattern": f"(?<{canary}"})
    for schema in schemas:
        form = {"type": "json_schema", "json_schema": {"name": canary, "schema": schema}}
        asked = _said(running, None, response_format=form, max_tokens=2)
        await asyncio.gather(asked, return_exceptions=True)
    for messages in (
        [{"role": canary, "content": canary}],
        [{"role": "user", "content": canary * 600}],
    ):
        await asyncio.gather(_said(running, None, messages=messages), return_exceptions=True)
    for body in ({canary: 1}, {"prompt": {"a": canary}}, {"prompt": canary, "max_tokens": canary}):
        asked = client.post_json("completions", body)
        await asyncio.gather(asked, return_exceptions=True)
    await _said(running, None, salt=canary, max_tokens=4)
    log = (place.folder / "engine.log").read_bytes()
    assert b"EngineCore" in log
    assert canary.encode() not in log
