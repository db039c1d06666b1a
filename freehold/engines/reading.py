"""Answers whose chunks go through readers, where an engine's shape is not quite OpenAI's."""

from collections.abc import Callable, Sequence
from typing import Any

from freehold.engines.base import Answer
from freehold.engines.openai_http import failed

Reader = Callable[[dict[str, Any]], dict[str, Any]]  # one chunk after the other


class ReadAnswer:
    def __init__(self, answer: Answer, readers: Sequence[Reader]) -> None:
        self._answer = answer
        self._readers = readers

    async def read(self) -> list[dict[str, Any]] | None:
        chunks = await self._answer.read()
        return None if chunks is None else [_read(chunk, self._readers) for chunk in chunks]


def read_whole(content: dict[str, Any], readers: Sequence[Reader]) -> dict[str, Any]:
    """A whole answer is read as if it were its only chunk."""
    for choice in content["choices"]:
        if "message" in choice:
            choice["delta"] = choice.pop("message")
    content = _read(content, readers)
    for choice in content["choices"]:
        if "delta" in choice:
            choice["message"] = {"content": None, **choice.pop("delta")}
    return content


def _read(chunk: dict[str, Any], readers: Sequence[Reader]) -> dict[str, Any]:
    try:
        for reader in readers:
            chunk = reader(chunk)
    except (AttributeError, KeyError, TypeError, ValueError) as why:
        raise failed("The engine", "sent what is no answer") from why
    return chunk
