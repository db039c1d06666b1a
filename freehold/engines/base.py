"""What an engine is.

An engine turns a stored model into a `LaunchSpec` and speaks OpenAI's HTTP shape
on the socket that the launched process opens (a remote launches nothing). The
gateway is the only client. One contract suite, `tests/contract/`, runs against
every engine; what an engine cannot do is written in its `Capabilities` and in its
entry there.
"""

from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from freehold.core.engine import AdapterFiles, Capabilities, EngineCall, LaunchSpec
from freehold.core.model import ModelCard


@dataclass(frozen=True, slots=True)
class LocalModel:
    """A stored model as a process gets it: its card and the path of its main file."""

    card: ModelCard
    path: Path


class Answer(Protocol):
    """An engine's streamed answer, open until its context ends.

    Leaving the context before the end aborts the work inside the engine within a
    second; leaving it after the end gives the connection back.
    """

    async def read(self) -> list[dict[str, Any]] | None:
        """The next chunks in OpenAI's shape, at least one; None after the engine
        said it was done. Raises `UserError` with `ENGINE_FAILED` when the engine
        dies, ends without saying so, or sends what is no chunk."""
        ...


class EngineClient(Protocol):
    """The gateway's side of one replica; safe for any number of calls at once."""

    def stream(self, call: EngineCall) -> AbstractAsyncContextManager[Answer]:
        """Entering sends the call and returns when the engine accepted it.

        Raises `UserError`: `ENGINE_UNAVAILABLE` when nothing answers on the socket,
        `CONTEXT_LENGTH_EXCEEDED`, `INVALID_VALUE` or `UPSTREAM_*` when the engine
        refused, `ENGINE_FAILED` for anything else. Engine texts are never quoted.
        """
        ...

    async def whole(self, call: EngineCall) -> dict[str, Any]:
        """The unstreamed answer; the same errors as `stream`."""
        ...

    async def count_prompt_tokens(self, call: EngineCall) -> int | None:
        """Prompt tokens of `call` under the model's own template and tokenizer;
        None where the engine cannot tell."""
        ...

    async def identity(self) -> str | None:
        """The base digest that the process computed from the file it loaded; None
        where the engine cannot prove its weights (a remote)."""
        ...

    async def probe(self) -> None:
        """Makes one token, so that it fails when the engine hangs though its port
        answers. Raises `UserError(ENGINE_UNAVAILABLE)`; the caller sets the time."""
        ...

    async def change_adapters(
        self, add: Sequence[AdapterFiles], drop: Collection[str]
    ) -> Mapping[str, str]:
        """From its return on the process answers under `add`, and no new request under
        `drop`; requests that run go on under what they began with. Returns the refused
        ones with the reason. Both may be repeated. Raises `UserError`:
        `UNSUPPORTED_PARAMETER` from an engine without adapters."""
        ...

    async def close(self) -> None: ...


class Engine(Protocol):
    name: str

    def capabilities(self, model: LocalModel) -> Capabilities: ...

    def launch(self, model: LocalModel, socket_path: str) -> LaunchSpec: ...

    def connect(self, model: LocalModel, socket_path: str) -> EngineClient: ...
