from datetime import datetime
from typing import Annotated

from pydantic import BaseModel, Field


class SigningKey(BaseModel):
    """`made_at` is null for keys that the settings name."""

    id: str
    by: str
    signs: Annotated[bool, Field(description="Whether what is signed here now is by it.")]
    made_at: datetime | None
    public: Annotated[str, Field(description="In PEM.")]


class SigningKeyList(BaseModel):
    data: list[SigningKey]
