"""The headers that the document describes."""

from typing import Any

from freehold.serve.openapi.answers import Schema


def _header(said: str, required: bool, **schema: Any) -> Schema:
    return {"description": said, "required": required, "schema": {"type": "string", **schema}}


RATE_HEADERS = {
    f"x-ratelimit-{part}-{measure}": _header(f"{said} (where a limit for a minute holds).", False)
    for measure in ("requests", "tokens")
    for part, said in (
        ("limit", f"So many {measure} a minute"),
        ("remaining", f"The {measure} that this minute still allows"),
    )
}
HEADERS = {
    **RATE_HEADERS,
    "x-freehold-request-id": _header(
        "Names this request in the log and in the records.", True, pattern="^req_[0-9A-Z]{26}$"
    ),
    "x-freehold-model-digest": _header(
        "The weights that answered, as the engine computed it; absent for an upstream.",
        False,
        pattern="^sha256:[0-9a-f]{64}$",
    ),
    "x-freehold-adapter-digest": _header(
        "The adapter that it answered under, as the engine says; absent for a bare base.",
        False,
        pattern="^sha256:[0-9a-f]{64}$",
    ),
    "x-freehold-engine": _header("The engine that answered.", False),
    "x-freehold-weights": _header(
        "`proved` where the engine names the weights that computed the answer, `claimed` where "
        "it repeats what it was asked for.",
        False,
        pattern="^(proved|claimed)$",
    ),
    "retry-after": _header("Seconds to wait.", False, pattern="^[0-9]+$"),
    "www-authenticate": _header("How to send a key.", True),
}
INFERENCE_HEADERS = [
    {
        "name": "Idempotency-Key",
        "in": "header",
        "description": "The same key with the same body within 24 hours gets the same answer.",
        "schema": {"type": "string", "pattern": "^[!-~]{1,255}$"},
    },
    {
        "name": "x-freehold-conversation",
        "in": "header",
        "description": "A label, kept with the record of the request.",
        "schema": {"type": "string", "pattern": "^[A-Za-z0-9._:-]{1,128}$"},
    },
    {
        "name": "x-freehold-priority",
        "in": "header",
        "schema": {"type": "string", "enum": ["interactive", "batch"], "default": "interactive"},
    },
]
