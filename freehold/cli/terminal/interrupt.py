"""Ctrl-C and SIGTERM while something is under way that must be undone."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def once() -> Iterator[None]:
    """The first of them ends what runs inside as an exception does, so that everything
    is cleaned up; those that follow do not disturb that. One that is ignored stays so."""
    before = {number: signal.getsignal(number) for number in _SIGNALS}
    changed = [number for number in _SIGNALS if before[number] is not signal.SIG_IGN]
    for number in changed:
        signal.signal(number, _end)
    try:
        yield
    finally:
        for number in changed:
            if signal.getsignal(number) is _end:  # else there is nothing left but to end
                signal.signal(number, before[number])


def _end(number: int, _frame: FrameType | None) -> NoReturn:
    for each in _SIGNALS:
        signal.signal(each, signal.SIG_IGN)
    if number == signal.SIGINT:
        raise KeyboardInterrupt
    raise SystemExit(128 + number)
