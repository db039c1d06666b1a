from typing import Annotated

from pydantic import BaseModel, Field


class ErrorDetail(BaseModel):
    message: Annotated[str, Field(description="One sentence: the cause and the next step.")]
    type: str
    param: Annotated[str | None, Field(description="Where in the request: `messages[0].role`.")]
    code: Annotated[str, Field(description="Stable; each operation lists its own.")]


class Error(BaseModel):
    error: ErrorDetail
