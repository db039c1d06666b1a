from typing import Annotated, Literal

from pydantic import BaseModel, Field

from freehold.serve.replies.fields import Count


class Embedding(BaseModel):
    object: Literal["embedding"]
    index: Count
    embedding: Annotated[
        list[float] | str,
        Field(description="Numbers, or the base64 of little-endian 32-bit floats."),
    ]


class EmbeddingUsage(BaseModel):
    prompt_tokens: Count
    total_tokens: Count


class EmbeddingList(BaseModel):
    object: Literal["list"]
    data: list[Embedding]
    model: str
    usage: EmbeddingUsage
