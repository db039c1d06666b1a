"""What every source takes and gives."""

from collections.abc import Callable
from dataclasses import dataclass

Progress = Callable[[str, int, int], None]  # what is being done, bytes done, bytes in all


@dataclass(frozen=True, slots=True)
class Fetched:
    """What the source itself says of the files that it put into the folder."""

    licence: str | None = None
    note: str | None = None
