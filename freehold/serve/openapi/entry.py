"""One row of the table of operations."""

from dataclasses import dataclass

from pydantic import BaseModel

from freehold.core.errors import Code


@dataclass(frozen=True, slots=True)
class Entry:
    """One operation as the document shows it."""

    method: str
    path: str
    name: str
    tag: str
    summary: str
    answer: type[BaseModel] | None
    codes: frozenset[Code] = frozenset()
    body: type[BaseModel] | None = None
    query: type[BaseModel] | None = None
    streams: type[BaseModel] | None = None  # what each event of a stream holds
    status: int = 200
