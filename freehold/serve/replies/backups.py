from datetime import datetime
from typing import Annotated

from pydantic import BaseModel, Field

from freehold.serve.replies.fields import Count


class Backup(BaseModel):
    """What an encrypted one does not tell before it is opened is null."""

    name: str
    path: str
    size_bytes: Count
    encrypted: bool
    at: datetime
    version: str | None
    schema_: Annotated[str | None, Field(alias="schema")]


class MadeBackup(Backup):
    notes: Annotated[list[str], Field(description="What was amiss, in sentences.")]


class BackupList(BaseModel):
    data: list[Backup]
