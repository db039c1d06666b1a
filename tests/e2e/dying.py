"""`freehold`, but it kills itself outright at a chosen step of its work, as soon as the
file `die` is in its home: `python -m tests.e2e.dying STEP up ...`."""

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from freehold.cli.main import main
from freehold.config import load
from freehold.engines.openai_http import OpenAIHttp
from freehold.secure.checkpoints import Checkpoints
from freehold.serve.request.exchange import Exchange
from freehold.store.journal import Journal
from freehold.store.ledger import Ledger
from freehold.store.sql import SqlStore


def _die() -> None:
    if (load.home().path / "die").exists():
        os.kill(os.getpid(), signal.SIGKILL)


def _reserved() -> None:
    original = Ledger.reserve

    async def reserve(*arguments: Any) -> Any:
        state = await original(*arguments)
        _die()
        return state

    Ledger.reserve = reserve  # type: ignore[method-assign]


def _dispatched() -> None:
    original = OpenAIHttp._request

    async def request(self: OpenAIHttp, method: str, path: str, content: Any) -> Any:
        response = await original(self, method, path, content)
        if path == "chat/completions":
            _die()
        return response

    OpenAIHttp._request = request  # type: ignore[method-assign]


def _streaming() -> None:
    """Just after it was noted how far the request came."""
    original = Ledger.mark

    def mark(*arguments: Any) -> None:
        original(*arguments)
        _die()

    Ledger.mark = mark  # type: ignore[method-assign]


def _answered() -> None:
    original = Exchange._finish

    async def finish(*arguments: Any) -> None:
        _die()
        await original(*arguments)

    Exchange._finish = finish  # type: ignore[method-assign]


def _written() -> None:
    """The settlement is in the journal, the disk has not confirmed it."""
    original = Journal.sync

    def sync(self: Journal) -> None:
        _die()
        original(self)

    Journal.sync = sync  # type: ignore[method-assign]


def _settled() -> None:
    """The client waits for its last bytes."""
    original = Exchange._finish

    async def finish(*arguments: Any) -> None:
        await original(*arguments)
        _die()

    Exchange._finish = finish  # type: ignore[method-assign]


def _applying() -> None:
    """In the middle of a transaction of the database."""
    original = SqlStore._applying

    @contextmanager
    def applying(self: SqlStore) -> Iterator[Any]:
        with original(self) as connection:
            yield connection
            _die()

    SqlStore._applying = applying  # type: ignore[method-assign]


def _applied() -> None:
    """The database has the entries, and the journal has them still."""
    original = SqlStore.apply

    def apply(*arguments: Any) -> None:
        original(*arguments)
        _die()

    SqlStore.apply = apply  # type: ignore[method-assign]


def _signed() -> None:
    """The checkpoints have the audit record, the database does not."""
    original = Checkpoints.add

    def add(*arguments: Any, **named: Any) -> None:
        original(*arguments, **named)
        _die()

    Checkpoints.add = add  # type: ignore[method-assign]


STEPS: dict[str, Callable[[], None]] = {
    "reserved": _reserved,
    "dispatched": _dispatched,
    "streaming": _streaming,
    "answered": _answered,
    "written": _written,
    "settled": _settled,
    "signed": _signed,
    "applying": _applying,
    "applied": _applied,
}

if __name__ == "__main__":
    STEPS[sys.argv.pop(1)]()
    main()
