"""The model endpoints: which the engine is asked for, and how each is shaped."""

from freehold.core.binding import Binding, Isolation
from freehold.core.clock import Clock
from freehold.core.engine import CHAT, COMPLETIONS, EMBEDDINGS
from freehold.serve.bodies import RESPONSES, Body
from freehold.serve.shape import Shaper
from freehold.serve.shape_chat import ChatShaper, CompletionShaper
from freehold.serve.shape_embeddings import EmbeddingShaper
from freehold.serve.shape_responses import ResponsesShaper

ENGINE_ENDPOINT = {
    CHAT: CHAT,
    COMPLETIONS: COMPLETIONS,
    EMBEDDINGS: EMBEDDINGS,
    RESPONSES: CHAT,
}


def shaper_for(endpoint: str, binding: Binding, body: Body, clock: Clock) -> Shaper:
    alias, created = binding.route.alias, clock.wall_us() // 1_000_000
    shows_cached = binding.isolation in (Isolation.REMOTE, Isolation.DEDICATED)
    bare_id = binding.request_id.removeprefix("req_")
    if endpoint == EMBEDDINGS:
        return EmbeddingShaper(alias, body.data.get("encoding_format") == "base64")
    if endpoint == RESPONSES:
        return ResponsesShaper(bare_id, alias, created, body.data, shows_cached)
    shape, prefix = (ChatShaper, "chatcmpl") if endpoint == CHAT else (CompletionShaper, "cmpl")
    return shape(f"{prefix}-{bare_id}", alias, created, body.include_usage, shows_cached)
