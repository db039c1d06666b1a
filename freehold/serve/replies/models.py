from typing import Literal

from pydantic import BaseModel

from freehold.core.model import ModelCard


class ModelFacts(BaseModel):
    """What a careful client wants to know besides."""

    engine: str
    model_digest: str | None
    adapter_digest: str | None
    licence: str | None
    quantization: str | None
    context_length: int | None
    endpoints: list[str]


class Model(BaseModel):
    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    freehold: ModelFacts


class ModelList(BaseModel):
    object: Literal["list"]
    data: list[Model]


class CardList(BaseModel):
    data: list[ModelCard]
