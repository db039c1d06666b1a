"""What a dataset is: examples that one tenant trains on and measures by."""

from dataclasses import dataclass
from enum import StrEnum

from freehold.core.binding import Environment

TRAIN, HELD_OUT, REPORT = "train.jsonl", "held_out.jsonl", "report.json"


class DatasetKind(StrEnum):
    CHAT = "chat"
    PREFERENCE = "preference"


@dataclass(frozen=True, slots=True)
class Dataset:
    """A stored dataset. `digest` is that of its two files together. A name has versions,
    counted from 1; what a version stands for never changes."""

    id: str
    tenant_id: str
    environment: Environment
    name: str
    version: int
    digest: str
    kind: DatasetKind
    train: int
    held_out: int
    licence: str
    origin: str
    created_at_us: int
    created_by: str
    accepted: str | None = None  # why its findings were taken into account

    @property
    def place(self) -> str:
        """Of its files, below the home."""
        return f"data/{self.tenant_id}/{self.environment}/{self.digest.removeprefix('sha256:')}"
