from typing import Any, Literal

from pydantic import BaseModel

from freehold.serve.replies.chat import TokenUsage
from freehold.serve.replies.fields import Count


class TextChoice(BaseModel):
    index: Count
    text: str
    logprobs: dict[str, Any] | None
    finish_reason: str | None


class Completion(BaseModel):
    id: str
    object: Literal["text_completion"]
    created: int
    model: str
    choices: list[TextChoice]
    usage: TokenUsage | None = None
