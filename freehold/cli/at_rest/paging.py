"""Whole lists of a home at rest, which its stores give in pages."""

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

_T = TypeVar("_T")
_PAGE = 1000


def every(
    page: Callable[[int, str | None], Sequence[_T]], key: Callable[[_T], str]
) -> Iterator[_T]:
    """`page` gives at most so many of those behind the one with this key; the first: None."""
    last = None
    while found := page(_PAGE, last):
        yield from found
        last = key(found[-1])
