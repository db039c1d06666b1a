from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

from freehold.core.binding import Environment
from freehold.serve.replies.fields import Count


class Dataset(BaseModel):
    """One version of a dataset. `accepted_findings` is why what its report warns of may be in
    it, where it warned."""

    id: str
    name: str
    version: Annotated[int, Field(ge=1)]
    environment: Environment
    digest: str
    kind: Literal["chat", "preference"]
    train: Count
    held_out: Count
    licence: str
    origin: str
    accepted_findings: str | None
    created_at: datetime
    created_by: str


class DatasetList(BaseModel):
    data: list[Dataset]
    has_more: Annotated[bool, Field(description="Ask again `after` the last id.")]


class DatasetAndReport(Dataset):
    """What was found in it; see docs/adapt/data.md. Null where its files are gone."""

    report: dict[str, Any] | None
