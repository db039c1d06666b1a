"""The gateway's side of the shared-base engine: how its process starts, and its client."""

import sys
from pathlib import Path

from freehold.config.schema import OpenVinoSettings
from freehold.core.engine import COMPLETIONS, Capabilities, EngineCall, LaunchSpec
from freehold.core.errors import Code, UserError
from freehold.engines import child
from freehold.engines.adapter_http import AdapterHttp
from freehold.engines.base import LocalModel
from freehold.engines.cores import usable_cores
from freehold.engines.fields import TEXT_FIELDS

_READY_S = 1800.0  # a large model is quantized at its first start


class OpenVino:
    name = "openvino"

    def __init__(self, settings: OpenVinoSettings, cache: Path | None = None) -> None:
        """`cache` keeps prepared models between starts; None prepares each time."""
        self._settings = settings
        self._cache = cache

    def capabilities(self, model: LocalModel) -> Capabilities:
        return Capabilities(
            fields=TEXT_FIELDS,
            context_length=self._context_length(model),
            concurrency=self._settings.streams,
            adapters=True,
            salted=True,
        )

    def launch(self, model: LocalModel, socket_path: str) -> LaunchSpec:
        settings = self._settings
        argv = [
            sys.executable,
            "-m",
            "freehold.engines.openvino.worker",
            *(f"--file={name}={path}" for name, path in _files(model).items()),
            f"--digest={model.card.digest}",
            f"--socket={socket_path}",
            f"--threads={settings.threads or usable_cores()}",
            f"--streams={settings.streams}",
            f"--context={self._context_length(model)}",
            f"--weights={settings.weights}",
            f"--kv-cache={settings.kv_cache}",
            f"--kv-cache-bytes={settings.kv_cache_bytes}",
            f"--adapter-bytes={settings.adapter_bytes}",
            f"--max-rank={settings.max_rank}",
        ]
        if self._cache is not None:
            argv.append(f"--cache={self._cache}")
        if model.card.chat_template_digest is not None:
            argv.append(f"--template-digest={model.card.chat_template_digest}")
        return LaunchSpec(tuple(argv), child.clean_environment(), socket_path, _READY_S)

    def connect(self, model: LocalModel, socket_path: str) -> "OpenVinoClient":
        return OpenVinoClient(socket_path)

    def _context_length(self, model: LocalModel) -> int:
        return min(self._settings.context_length, model.card.context_length)


def _files(model: LocalModel) -> dict[str, Path]:
    """By name; all of a model's files lie in one folder, each under its digest."""
    if len(model.card.files) == 1:
        return {model.card.files[0].name: model.path}
    folder = model.path.parent
    return {f.name: folder / f.digest.removeprefix("sha256:") for f in model.card.files}


class OpenVinoClient(AdapterHttp):
    def __init__(self, socket_path: str) -> None:
        super().__init__("http://engine/v1", who="The engine", socket_path=socket_path)

    async def count_prompt_tokens(self, call: EngineCall) -> int | None:
        body = {**call.body, "endpoint": call.endpoint}
        found = (await self.post_json("count", body)).get("tokens")
        return found if isinstance(found, int) else None

    async def probe(self) -> None:
        body = {"prompt": "a", "max_tokens": 1}
        answer = await self.whole(EngineCall(COMPLETIONS, "probe", body, "probe"))
        if not answer.get("choices"):
            raise UserError(Code.ENGINE_UNAVAILABLE, "The engine makes no tokens: try again.")
