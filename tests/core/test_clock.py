"""The system's clock: wall time in microseconds, and time that never runs back."""

import time

import pytest

from freehold.core.clock import SystemClock


def test_wall_time_is_microseconds_since_the_epoch() -> None:
    before = int(time.time() * 1e6) - 1
    found = SystemClock().wall_us()
    assert isinstance(found, int)
    assert before <= found <= int(time.time() * 1e6) + 1


def test_timers_do_not_follow_the_wall(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = SystemClock()
    first = clock.monotonic_s()
    monkeypatch.setattr(time, "time_ns", lambda: 0)
    monkeypatch.setattr(time, "time", lambda: 0.0)

    assert clock.wall_us() == 0, "the wall was set back"
    assert clock.monotonic_s() >= first
    readings = [clock.monotonic_s() for _ in range(1000)]
    assert readings == sorted(readings)
