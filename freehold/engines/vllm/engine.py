"""The gateway's side of vLLM: how its process starts, and its client.

vLLM says in each answer under which adapter it was asked, not under which its kernels
computed (vllm-project/vllm#47724 was the difference): its capabilities say so.
"""

import importlib.util
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from freehold.config.schema import VllmSettings
from freehold.core.engine import CHAT, COMPLETIONS, Capabilities, EngineCall, LaunchSpec
from freehold.core.errors import Code, UserError
from freehold.core.model import Task
from freehold.engines import child, tool_calls
from freehold.engines.adapter_http import AdapterHttp
from freehold.engines.base import Answer, LocalModel
from freehold.engines.cores import usable_cores
from freehold.engines.fields import TEXT_FIELDS
from freehold.engines.reading import ReadAnswer, Reader, read_whole

_READY_S = 1800.0  # large weights are read, and kernels compiled
_START = Path(__file__).with_name("start.py")
_ASK = "import importlib.util, sys; sys.exit(importlib.util.find_spec('vllm') is None)"
_ASK_S = 60.0
# vLLM's numbers of completions do not fit the text where that is cut or kept back.
_FIELDS = {**TEXT_FIELDS, COMPLETIONS: TEXT_FIELDS[COMPLETIONS] - {"logprobs"}}


class Vllm:
    name = "vllm"

    def __init__(self, settings: VllmSettings) -> None:
        self._settings = settings
        self._is_installed = False

    def capabilities(self, model: LocalModel) -> Capabilities:
        """Raises `UserError`: `NOT_INSTALLED`, or `FILE_REFUSED` for what it cannot read."""
        self._check(model)
        return Capabilities(
            fields=_FIELDS,
            context_length=self._context_length(model),
            concurrency=self._settings.streams,
            adapters=True,
            salted=True,
            proves_weights=False,
        )

    def launch(self, model: LocalModel, socket_path: str) -> LaunchSpec:
        settings = self._settings
        self._check(model)
        argv = [
            settings.python or sys.executable,
            "-P",  # the folder of what is run is no place for modules
            str(_START),
            *(f"--file={name}={path}" for name, path in _files(model).items()),
            f"--digest={model.card.digest}",
            f"--socket={socket_path}",
            f"--threads={settings.threads or usable_cores()}",
            f"--streams={settings.streams}",
            f"--context={self._context_length(model)}",
            f"--dtype={settings.dtype}",
            f"--gpus={settings.gpus}",
            f"--gpu-memory={settings.gpu_memory_utilization}",
            f"--max-rank={settings.max_rank}",
            f"--adapters-at-once={settings.adapters_at_once}",
            f"--max-adapters={settings.max_adapters}",
        ]
        if settings.kv_cache_bytes is not None:
            argv.append(f"--kv-cache-bytes={settings.kv_cache_bytes}")
        if settings.eager:
            argv.append("--eager")
        return LaunchSpec(tuple(argv), child.clean_environment(), socket_path, _READY_S)

    def connect(self, model: LocalModel, socket_path: str) -> "VllmClient":
        return VllmClient(socket_path, model.card.digest)

    def _check(self, model: LocalModel) -> None:
        if not self._is_installed and not _has_vllm(self._settings.python):
            raise UserError(
                Code.NOT_INSTALLED,
                f"vLLM is not installed for {self._settings.python or sys.executable}: run "
                'pip install "freehold[vllm]", or name in engines.vllm.python an interpreter '
                "that has it.",
            )
        self._is_installed = True
        if model.card.format != "safetensors" or model.card.task is not Task.CHAT:
            raise UserError(
                Code.FILE_REFUSED,
                f"vLLM serves chat models of safetensors files here and {model.card.name} is "
                "none: serve it with another engine.",
            )

    def _context_length(self, model: LocalModel) -> int:
        return min(self._settings.context_length, model.card.context_length)


def _has_vllm(python: str | None) -> bool:
    """Without importing it, which takes long and reserves a GPU's memory."""
    if python is None:
        return importlib.util.find_spec("vllm") is not None
    try:
        asked = subprocess.run(
            [python, "-P", "-c", _ASK],
            env=child.clean_environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_ASK_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return asked.returncode == 0


def _files(model: LocalModel) -> dict[str, Path]:
    """By name; all of a model's files lie in one folder, each under its digest."""
    if len(model.card.files) == 1:
        return {model.card.files[0].name: model.path}
    folder = model.path.parent
    return {f.name: folder / f.digest.removeprefix("sha256:") for f in model.card.files}


class VllmClient(AdapterHttp):
    def __init__(self, socket_path: str, base: str) -> None:
        super().__init__("http://engine/v1", who="The engine", socket_path=socket_path)
        self._base = base

    @asynccontextmanager
    async def stream(self, call: EngineCall) -> AsyncIterator[Answer]:
        asked, readers = _prepared(call)
        async with super().stream(asked) as answer:
            yield ReadAnswer(answer, readers) if readers else answer

    async def whole(self, call: EngineCall) -> dict[str, Any]:
        asked, readers = _prepared(call)
        content = await super().whole(asked)
        return read_whole(content, readers) if readers else content

    async def count_prompt_tokens(self, call: EngineCall) -> int | None:
        names = ("messages",) if call.endpoint == CHAT else ("prompt",)
        body = _prepared(call)[0].body
        counted = await self.post_json("../tokenize", {name: body[name] for name in names})
        found = counted.get("count")
        return found if isinstance(found, int) else None

    async def probe(self) -> None:
        body = {"prompt": "a", "max_tokens": 1}
        answer = await self.whole(EngineCall(COMPLETIONS, self._base, body, "probe"))
        if not answer.get("choices"):
            raise UserError(Code.ENGINE_UNAVAILABLE, "The engine makes no tokens: try again.")


def _prepared(call: EngineCall) -> tuple[EngineCall, list[Reader]]:
    """The call as vLLM takes it, and what makes OpenAI's answer of its. Tools are told and
    read here: vLLM wants to be told at its start in which words a model calls them."""
    body = dict(call.body)
    readers: list[Reader] = []
    if call.endpoint != CHAT:
        return call, readers
    if not body.get("logprobs"):
        body.pop("top_logprobs", None)
    if tool_calls.needs_help(body, template_reads_tools=False):
        if tool_calls.is_constrained(body):
            readers.append(tool_calls.CallReader().chunk)
        body = tool_calls.constrained(body)
    for name in ("tools", "tool_choice", "parallel_tool_calls"):
        body.pop(name, None)  # of no use without a tool
    return replace(call, body=body), readers
