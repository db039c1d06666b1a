"""How an answer is shaped for the client, whatever engine it came from."""

from typing import Any, Protocol

from freehold.serve.meter import Meter


class Shaper(Protocol):
    """One a request. Ids, times and model names in answers are the gateway's; only
    fields that OpenAI defines survive."""

    def chunk(self, chunks: list[dict[str, Any]]) -> bytes:
        """What the client gets for these engine chunks; may be empty."""
        ...

    def end(self, meter: Meter) -> bytes:
        """The end of a good stream."""
        ...

    def error(self, body: dict[str, Any]) -> bytes:
        """The end of a stream that failed: no client takes it for a whole answer."""
        ...

    def whole(self, content: dict[str, Any], meter: Meter) -> dict[str, Any]:
        """The unstreamed answer from the engine's, or from the assembled chunks."""
        ...


def usage_of(meter: Meter, shows_cached: bool) -> dict[str, Any]:
    """`cached_tokens` tells who shares a cache with whom; it is shown only where
    nobody else's prompts can be in it."""
    return {
        "prompt_tokens": meter.tokens_in,
        "completion_tokens": meter.tokens_out,
        "total_tokens": meter.tokens_in + meter.tokens_out,
        "prompt_tokens_details": {"cached_tokens": meter.tokens_cached if shows_cached else 0},
    }
