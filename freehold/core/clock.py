"""Time, as a seam: wall time for records, monotonic time for every timer."""

import time
from datetime import UTC, datetime
from typing import Protocol, overload


class Clock(Protocol):
    def wall_us(self) -> int:
        """Microseconds since the epoch, UTC; may jump."""
        ...

    def monotonic_s(self) -> float:
        """Seconds that never run backwards; only differences mean anything."""
        ...


class SystemClock:
    def wall_us(self) -> int:
        return time.time_ns() // 1000

    def monotonic_s(self) -> float:
        return time.monotonic()


@overload
def rfc3339(at_us: int) -> str: ...
@overload
def rfc3339(at_us: None) -> None: ...
@overload
def rfc3339(at_us: int | None) -> str | None: ...
def rfc3339(at_us: int | None) -> str | None:
    if at_us is None:
        return None
    return datetime.fromtimestamp(at_us / 1e6, UTC).isoformat().replace("+00:00", "Z")
