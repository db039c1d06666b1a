"""JSON that is kept for a while."""

from typing import Any

import orjson


def packed(value: Any) -> bytes:
    """In memory of its own size: what orjson returns holds 4 kB, however short it is."""
    return bytes(memoryview(orjson.dumps(value)))
