"""Counts what one request uses while it runs."""

from dataclasses import dataclass
from typing import Any

BYTES_A_TOKEN = 4  # the usual ratio for English text; only for estimates


@dataclass(slots=True)
class Meter:
    """`tokens_out` grows with the chunks that carry text, one token each, until the
    engine reports exact counts, which then replace every estimate."""

    tokens_in: int = 0
    tokens_out: int = 0
    tokens_cached: int = 0
    is_exact: bool = False
    first_token_s: float | None = None

    @property
    def tokens(self) -> tuple[int, int, int]:
        """In, cached among them, and out: what a price is multiplied with."""
        return self.tokens_in, self.tokens_cached, self.tokens_out

    def see(self, chunks: list[dict[str, Any]], now_s: float) -> None:
        for chunk in chunks:
            usage = chunk.get("usage")
            if usage:
                self.take(usage)
            elif _carries_text(chunk):
                self.tokens_out += 1
                if self.first_token_s is None:
                    self.first_token_s = now_s

    def take(self, usage: dict[str, Any]) -> None:
        """The engine's own counts, which it sends at the end."""
        self.tokens_in = _count(usage.get("prompt_tokens"))
        self.tokens_out = _count(usage.get("completion_tokens"))
        details = usage.get("prompt_tokens_details")
        self.tokens_cached = (
            _count(details.get("cached_tokens")) if isinstance(details, dict) else 0
        )
        self.is_exact = True


def _carries_text(chunk: dict[str, Any]) -> bool:
    for choice in chunk.get("choices") or ():
        delta = choice.get("delta")
        if delta is None:
            if choice.get("text"):
                return True
        elif delta.get("content") or delta.get("tool_calls") or delta.get("reasoning_content"):
            return True
    return False


def _count(value: Any) -> int:
    """Engines are not believed blindly: a count is a small non-negative integer."""
    return value if isinstance(value, int) and 0 <= value < 2**31 else 0
