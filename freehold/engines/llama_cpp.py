"""llama.cpp, from the prebuilt `xllamacpp` wheel, in a process of its own.

Its caches that span requests are off: its RAM cache answers one adapter's request
from another's state (ggml-org/llama.cpp#26207). Each request names its adapters
explicitly, because a request without the field skips that check altogether.
"""

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

from freehold.config.schema import LlamaCppSettings
from freehold.core.engine import CHAT, COMPLETIONS, EMBEDDINGS, Capabilities, EngineCall, LaunchSpec
from freehold.core.errors import Code, UserError
from freehold.core.model import ModelCard, Task
from freehold.engines import child, logprobs, tool_calls
from freehold.engines.base import Answer, LocalModel
from freehold.engines.cores import usable_cores
from freehold.engines.fields import EMBEDDING_FIELDS, TEXT_FIELDS
from freehold.engines.openai_http import OpenAIHttp
from freehold.engines.reading import ReadAnswer, Reader, read_whole

_OWN_FIELDS: dict[str, Any] = {"lora": [], "cache_prompt": False}
_READY_S = 600.0


class LlamaCpp:
    name = "llama_cpp"

    def __init__(self, settings: LlamaCppSettings) -> None:
        self._settings = settings

    def capabilities(self, model: LocalModel) -> Capabilities:
        is_embedding = model.card.task is Task.EMBEDDINGS
        return Capabilities(
            fields=EMBEDDING_FIELDS if is_embedding else TEXT_FIELDS,
            context_length=self._context_length(model),
            concurrency=self._settings.streams,
            answers_whole=is_embedding,
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
        ]
        if model.card.task is Task.EMBEDDINGS:
            argv.append("--embeddings")
        return LaunchSpec(tuple(argv), child.clean_environment(), socket_path, _READY_S)

    def connect(self, model: LocalModel, socket_path: str) -> "LlamaCppClient":
        return LlamaCppClient(socket_path, model.card)

    def _context_length(self, model: LocalModel) -> int:
        return min(self._settings.context_length, model.card.context_length)


class LlamaCppClient(OpenAIHttp):
    def __init__(self, socket_path: str, card: ModelCard) -> None:
        super().__init__(
            "http://engine/v1",
            who="The engine",
            socket_path=socket_path,
            extra_body={CHAT: _OWN_FIELDS, COMPLETIONS: _OWN_FIELDS},
        )
        self._task = card.task
        self._template_reads_tools = card.template_reads_tools

    @asynccontextmanager
    async def stream(self, call: EngineCall) -> AsyncIterator[Answer]:
        asked, readers = self._prepared(call)
        async with super().stream(asked) as answer:
            yield ReadAnswer(answer, readers) if readers else answer

    async def whole(self, call: EngineCall) -> dict[str, Any]:
        """Embeddings are asked for without a name: given one, llama.cpp answers under
        that name, whatever it has loaded."""
        if call.endpoint == EMBEDDINGS:
            return await self.post_json(EMBEDDINGS, call.body)
        asked, readers = self._prepared(call)
        content = await super().whole(asked)
        return read_whole(content, readers) if readers else content

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

    async def identity(self) -> str | None:
        models = (await self.get_json("models")).get("data")
        if not isinstance(models, list) or not models or not isinstance(models[0], dict):
            return None
        found = models[0].get("id")
        return found if isinstance(found, str) else None

    async def probe(self) -> None:
        if self._task is Task.EMBEDDINGS:
            await self.whole(EngineCall(EMBEDDINGS, "probe", {"input": "a"}, "probe"))
            return
        body = {"prompt": "a", "max_tokens": 1}
        answer = await self.whole(EngineCall(COMPLETIONS, "probe", body, "probe"))
        if not answer.get("choices"):
            raise UserError(Code.ENGINE_UNAVAILABLE, "The engine makes no tokens: try again.")
