from pydantic import BaseModel

from freehold.core.usage import UsageRow
from freehold.serve.replies.fields import Count


class Thumbs(BaseModel):
    """What people said of the answers of one alias under one adapter, or the bare base."""

    alias: str
    adapter_digest: str | None
    up: Count
    down: Count


class UsageList(BaseModel):
    data: list[UsageRow]
    thumbs: list[Thumbs]  # of all keys
