"""Requests to be counted, and ways to look at and to hinder a database."""

import asyncio
import contextlib
import hashlib
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from freehold.core.adapter import Adapter
from freehold.core.binding import Environment
from freehold.core.usage import Outcome, Reservation, Settlement
from freehold.store.ledger import recover
from freehold.store.sql import SqlStore


def reservation(request_id: str, **fields: Any) -> Reservation:
    made = {
        "request_id": request_id, "tenant_id": "ten_a", "environment": "dev", "key_id": "key_1",
        "alias": "m", "endpoint": "chat/completions", "engine": "fake", "base_digest": None,
        "adapter_digest": None, "conversation_id": None, "priority": "interactive",
        "stream": True, "created_at_us": 1_000_000,
    }  # fmt: skip
    return Reservation(**made | fields)


def settlement(request_id: str, tokens_out: int = 7, **fields: Any) -> Settlement:
    made = {
        "request_id": request_id, "outcome": Outcome.OK, "tokens_in": 3, "tokens_out": tokens_out,
        "tokens_cached": 1, "estimated": False, "ttft_us": 10, "duration_us": 20,
        "settled_at_us": 2_000_000,
    }  # fmt: skip
    return Settlement(**made | fields)


def adapter(tenant_id: str, called: str = "x", **fields: Any) -> Adapter:
    """One whose digests are of its tenant and name."""
    digest = f"sha256:{hashlib.sha256(f'{tenant_id} {called}'.encode()).hexdigest()}"
    made = {
        "id": f"adp_{tenant_id}_{called}", "tenant_id": tenant_id, "environment": Environment.DEV,
        "name": called, "digest": digest, "config_digest": f"{digest}c",
        "weights_digest": f"{digest}w", "base_digest": "sha256:b", "rank": 4, "scaling": "2",
        "target_modules": ("k_proj", "q_proj"), "size_bytes": 9, "source": "", "added_at_us": 1,
    }  # fmt: skip
    return Adapter(**made | fields)  # type: ignore[arg-type]


Row = tuple[str, str | None, int, int]


def rows(store: SqlStore) -> list[Row]:
    """Request, outcome, tokens in and out, of everything that the database has."""
    found = store.records("ten_a", 100_000)
    return sorted((row["id"], row["outcome"], row["tokens_in"], row["tokens_out"]) for row in found)


def next_start(folder: Path, journal_folder: Path) -> list[Row]:
    """What a start after a crash makes of a database and a journal."""
    store = SqlStore(folder / "freehold.db")
    recover(store, journal_folder)
    store.settle_orphans(9_000_000)
    found = rows(store)
    store.close()
    return found


@contextlib.contextmanager
def locked(database: Path) -> Iterator[None]:
    """Another connection that keeps everybody from writing."""
    with contextlib.closing(sqlite3.connect(database, isolation_level=None)) as connection:
        connection.execute("BEGIN EXCLUSIVE")
        yield
        connection.execute("ROLLBACK")


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.005)
