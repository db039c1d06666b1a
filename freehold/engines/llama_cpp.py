"""llama.cpp, from the prebuilt `xllamacpp` wheel, in a process of its own.

Its caches that span requests are off: its RAM cache answers one adapter's request
from another's state (ggml-org/llama.cpp#26207). Each request names its adapters
explicitly, because a request without the field skips that check altogether; one of the
base names an adapter and takes none of it. Requests under different adapters are never in
one batch of llama.cpp's, so they take turns.
"""

import sys
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from freehold.config.schema import LlamaCppSettings
from freehold.core.engine import CHAT, COMPLETIONS, EMBEDDINGS, Capabilities, EngineCall, LaunchSpec
from freehold.core.errors import Code, UserError
from freehold.core.model import ModelCard, Task
from freehold.engines import adapter_http, child, logprobs, tool_calls
from freehold.engines.base import Answer, EngineClient, LocalModel
from freehold.engines.cores import usable_cores
from freehold.engines.fields import EMBEDDING_FIELDS, TEXT_FIELDS
from freehold.engines.llama_cpp_switch import SwitchingClient
from freehold.engines.openai_http import OpenAIHttp, failed
from freehold.engines.reading import ReadAnswer, Reader, read_whole

_READY_S = 600.0


class LlamaCpp:
    name = "llama_cpp"

    def __init__(self, settings: LlamaCppSettings, cache: Path | None = None) -> None:
        """`cache` keeps converted adapters between starts; None converts each time."""
        self._settings = settings
        self._cache = cache

    def capabilities(self, model: LocalModel) -> Capabilities:
        is_embedding = model.card.task is Task.EMBEDDINGS
        return Capabilities(
            fields=EMBEDDING_FIELDS if is_embedding else TEXT_FIELDS,
            context_length=self._context_length(model),
            concurrency=self._settings.streams,
            answers_whole=is_embedding,
            adapters=not is_embedding,
            proves_adapters=False,
        )

    def launch(self, model: LocalModel, socket_path: str) -> LaunchSpec:
        streams = self._settings.streams
        argv = [
            sys.executable,
            "-m",
            "freehold.engines.llama_cpp_worker",
            f"--model={model.path}",
            f"--digest={model.card.digest}",
            f"--socket={socket_path}",
            f"--streams={streams}",
            f"--context={self._context_length(model) * streams}",
            f"--threads={self._settings.threads or usable_cores()}",
            f"--adapter-bytes={self._settings.adapter_bytes}",
        ]
        if self._cache is not None:
            argv.append(f"--cache={self._cache}")
        if model.card.task is Task.EMBEDDINGS:
            argv.append("--embeddings")
        return LaunchSpec(tuple(argv), child.clean_environment(), socket_path, _READY_S)

    def connect(self, model: LocalModel, socket_path: str) -> EngineClient:
        if model.card.task is Task.EMBEDDINGS:
            return LlamaCppClient(model.card, socket_path)
        return SwitchingClient(socket_path, partial(LlamaCppClient, model.card))

    def _context_length(self, model: LocalModel) -> int:
        return min(self._settings.context_length, model.card.context_length)


class LlamaCppClient(OpenAIHttp):
    """The client of one of llama.cpp's servers."""

    def __init__(self, card: ModelCard, socket_path: str) -> None:
        super().__init__("http://engine/v1", who="The engine", socket_path=socket_path)
        self._task = card.task
        self._template_reads_tools = card.template_reads_tools
        self._ids: Mapping[str, int] = {}  # of adapters, by digest; good for this server only

    def own_fields(self, call: EngineCall) -> Mapping[str, Any]:
        """llama.cpp answers under the bare base when it does not know an id."""
        if call.adapter is not None and call.adapter not in self._ids:
            raise adapter_http.not_there()
        lora = [{"id": self._ids[call.adapter], "scale": 1.0}] if call.adapter else self._none
        return {"lora": lora, "cache_prompt": False}

    @property
    def _none(self) -> list[dict[str, Any]]:
        return [{"id": 0, "scale": 0.0}] if self._ids else []

    async def learn_adapters(self) -> Collection[str]:
        found = await self.get_list("../lora-adapters")
        try:
            if any(each["scale"] for each in found):
                raise failed("The engine", "applies an adapter that was not asked for")
            # The process names their files by their digests.
            self._ids = {f"sha256:{Path(each['path']).stem}": int(each["id"]) for each in found}
        except (KeyError, TypeError, ValueError):
            raise failed("The engine", "did not say which adapters it has") from None
        return self._ids.keys()

    @asynccontextmanager
    async def stream(self, call: EngineCall) -> AsyncIterator[Answer]:
        asked, readers = self._prepared(call)
        async with super().stream(asked) as answer:
            yield ReadAnswer(answer, [*readers, partial(_under, call.adapter)])

    async def whole(self, call: EngineCall) -> dict[str, Any]:
        """Embeddings are asked for without a name: given one, llama.cpp answers under
        that name, whatever it has loaded."""
        if call.endpoint == EMBEDDINGS:
            return await self.post_json(EMBEDDINGS, call.body)
        asked, readers = self._prepared(call)
        content = await super().whole(asked)
        return _under(call.adapter, read_whole(content, readers) if readers else content)

    def _prepared(self, call: EngineCall) -> tuple[EngineCall, list[Reader]]:
        """The call as llama.cpp understands it, and what makes OpenAI's answer of its."""
        body = self._with_tools_told(call.body)
        readers: list[Reader] = []
        if body is not call.body and tool_calls.is_constrained(call.body):
            readers.append(tool_calls.CallReader().chunk)
        body, reader = logprobs.prepared(call.endpoint, body)
        if reader is not None:
            readers.append(reader)
        return (call if body is call.body else replace(call, body=body)), readers

    def _with_tools_told(self, body: dict[str, Any]) -> dict[str, Any]:
        if tool_calls.needs_help(body, self._template_reads_tools):
            return tool_calls.constrained(body)
        return body

    async def count_prompt_tokens(self, call: EngineCall) -> int | None:
        text = call.body.get("input" if call.endpoint == EMBEDDINGS else "prompt")
        if call.endpoint == CHAT:
            body = self._with_tools_told(call.body)
            asked: dict[str, Any] = {n: body[n] for n in ("messages", "tools") if n in body}
            text = (await self.post_json("../apply-template", asked)).get("prompt")
        if not isinstance(text, str):
            return None
        counted = await self.post_json("../tokenize", {"content": text, "add_special": True})
        tokens = counted.get("tokens")
        return len(tokens) if isinstance(tokens, list) else None

    async def probe(self) -> None:
        if self._task is Task.EMBEDDINGS:
            await self.whole(EngineCall(EMBEDDINGS, "probe", {"input": "a"}, "probe"))
            return
        body = {"prompt": "a", "max_tokens": 1}
        answer = await self.whole(EngineCall(COMPLETIONS, "probe", body, "probe"))
        if not answer.get("choices"):
            raise UserError(Code.ENGINE_UNAVAILABLE, "The engine makes no tokens: try again.")


def _under(adapter: str | None, chunk: dict[str, Any]) -> dict[str, Any]:
    """Says what was asked for: see `llama_cpp_switch.py`."""
    chunk["adapter"] = adapter
    return chunk
