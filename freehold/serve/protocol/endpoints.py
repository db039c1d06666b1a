"""The model endpoints: which the engine is asked for, and how each is shaped."""

from typing import Any

from freehold.core.binding import Binding, Isolation
from freehold.core.clock import Clock
from freehold.core.engine import CHAT, COMPLETIONS, EMBEDDINGS
from freehold.serve.protocol.bodies import RESPONSES, Body
from freehold.serve.protocol.shape import Shaper
from freehold.serve.protocol.shape_chat import ChatShaper, CompletionShaper
from freehold.serve.protocol.shape_embeddings import EmbeddingShaper
from freehold.serve.protocol.shape_responses import ResponsesShaper

ENGINE_ENDPOINT = {
    CHAT: CHAT,
    COMPLETIONS: COMPLETIONS,
    EMBEDDINGS: EMBEDDINGS,
    RESPONSES: CHAT,
}


def shaper_for(endpoint: str, binding: Binding, body: Body, clock: Clock) -> Shaper:
    alias, created = binding.route.alias, clock.wall_us() // 1_000_000
    shows_cached = binding.isolation is not Isolation.NOCACHE  # where it is its own cache
    bare_id = binding.request_id.removeprefix("req_")
    if endpoint == EMBEDDINGS:
        as_base64 = body.data.get("encoding_format") == "base64"
        return EmbeddingShaper(alias, as_base64, _inputs(body.data["input"]))
    if endpoint == RESPONSES:
        return ResponsesShaper(bare_id, alias, created, body.data, shows_cached)
    shape, prefix = (ChatShaper, "chatcmpl") if endpoint == CHAT else (CompletionShaper, "cmpl")
    return shape(f"{prefix}-{bare_id}", alias, created, body.include_usage, shows_cached)


def _inputs(given: Any) -> int:
    """How many are to be embedded: a list of numbers is one text, as tokens."""
    return len(given) if isinstance(given, list) and not isinstance(given[0], int) else 1
