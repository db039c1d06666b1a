"""One request inside the engine's process, from its body to its chunks."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from freehold.core.engine import CHAT
from freehold.core.errors import Code, UserError
from freehold.engines.openvino.adapters import Adapter
from freehold.engines.openvino.answer import Answer
from freehold.engines.openvino.generation import Constraint, Job, Made
from freehold.engines.openvino.sample import Sampler
from freehold.engines.openvino.sequence import Sequence

Reader = Callable[[dict[str, Any]], dict[str, Any]]  # of one chunk after the other


@dataclass(slots=True, eq=False)
class Request:
    """`ends` are the tokens that end the model's turn; `reader` turns an answer
    in our own form back into calls of tools."""

    endpoint: str
    sequence: Sequence
    sampler: Sampler
    ends: frozenset[int]
    answer: Answer
    adapter: Adapter | None
    constraint: Constraint | None = None
    reader: Reader | None = None

    def job(self, deliver: Callable[[Made], None]) -> Job:
        return Job(self.sequence, self.sampler, self.ends, deliver, self.adapter, self.constraint)

    def take(self, made: Made) -> dict[str, Any] | None:
        """The next chunk, if the token makes one. Raises `UserError` where the model
        failed this request, or another adapter than its own computed it."""
        expected = self.adapter.digest if self.adapter else None
        if made.reason == "error" or made.adapter != expected:
            raise UserError(Code.ENGINE_FAILED, "The model's output is unusable: try again.")
        self.answer.adapter = made.adapter
        chunk = self.answer.take(made.drawn, made.reason)
        if chunk is None or self.reader is None:
            return chunk
        read = self.reader(chunk)
        (choice,) = read["choices"]
        return read if choice["delta"] or choice["finish_reason"] else None

    def usage(self) -> dict[str, Any]:
        sequence = self.sequence
        return self.answer.usage(sequence.prompt_length, sequence.cached_tokens)

    def whole(self, chunks: list[dict[str, Any]]) -> dict[str, Any]:
        """An unstreamed answer out of the streamed one's chunks."""
        *parts, last = chunks
        choices = [part["choices"][0] for part in parts]
        whole: dict[str, Any] = {"index": 0, "finish_reason": choices[-1]["finish_reason"]}
        if self.endpoint == CHAT:
            deltas = [choice["delta"] for choice in choices]
            message: dict[str, Any] = {"role": "assistant", "content": _joined(deltas, "content")}
            calls = _merged(deltas)
            whole["message"] = message | ({"tool_calls": calls} if calls else {})
        else:
            whole["text"] = _joined(choices, "text") or ""
        kind = "chat.completion" if self.endpoint == CHAT else "text_completion"
        return {**last, "object": kind, "choices": [whole]}


def _merged(deltas: list[dict[str, Any]]) -> list[dict[str, Any]]:
    calls: dict[int, dict[str, Any]] = {}
    for part in (part for delta in deltas for part in delta.get("tool_calls", ())):
        call = calls.setdefault(part["index"], part)
        if call is not part:
            call["function"]["arguments"] += part["function"]["arguments"]
    return list(calls.values())


def _joined(parts: list[dict[str, Any]], name: str) -> str | None:
    texts = [part[name] for part in parts if part.get(name)]
    return "".join(texts) if texts else None
