"""What tests put into a store, and ways to look at and to hinder a database."""

import asyncio
import contextlib
import hashlib
import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event
from sqlalchemy.exc import OperationalError

from freehold.core.adapter import Adapter
from freehold.core.binding import Environment, Route, Scope
from freehold.core.dataset import Dataset, DatasetKind
from freehold.core.decision import Decision
from freehold.core.feedback import Feedback, Rating
from freehold.core.gate import Gate, Verdict
from freehold.core.job import Job, JobKind, JobState
from freehold.core.limit import Limit, Measure, Period
from freehold.core.policy import Policy
from freehold.core.promotion import Bundle, Promotion, PromotionState, Watch
from freehold.core.signature import Signature
from freehold.core.subject import SubjectKey
from freehold.core.usage import Outcome, Reservation, Settlement
from freehold.store import ledger
from freehold.store.backend import Backend
from freehold.store.base import Entries, KeyRecord
from freehold.store.postgres import Postgres
from freehold.store.sql import SqlStore
from freehold.store.sqlite import Sqlite
from tests import postgres

only_sqlite = pytest.mark.parametrize("kind", ["sqlite"], indirect=True)
only_postgres = pytest.mark.parametrize("kind", ["postgres"], indirect=True)


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


def a_signature(tenant_id: str, digest: str, **fields: Any) -> Signature:
    """Which nobody made: a store does not check them."""
    made = {
        "tenant_id": tenant_id, "digest": digest, "key": "ab" * 32, "bundle": f"of {tenant_id}",
        "manifest": None, "made_at_us": 7, "made_by": "key_1",
    }  # fmt: skip
    return Signature(**made | fields)  # type: ignore[arg-type]


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


def a_key(key_id: str = "key_1", tenant: str = "ten_a", **fields: Any) -> KeyRecord:
    made = KeyRecord(
        key_id, tenant, Environment.DEV, f"name of {tenant}", f"hash {key_id}".encode(),
        frozenset({Scope.INFER}), None, 5, None, None,
    )  # fmt: skip
    return replace(made, **fields)


def a_route(tenant: str, alias: str, environment: Environment = Environment.DEV) -> Route:
    return Route(
        f"rte_{tenant}_{alias}_{environment}", tenant, environment, alias, "fake", f"pool {tenant}",
        "sha256:b", None, "m", 1, managed=True,
    )  # fmt: skip


def entries_of(*made: list[Any]) -> Entries:
    entries = Entries()
    for entry in made:
        entries.add(entry)
    return entries


def used(store: SqlStore, request_id: str, tenant: str = "ten_a", **fields: Any) -> None:
    at_us = fields.pop("created_at_us", 1_000_000)
    asked = reservation(
        request_id, tenant_id=tenant, created_at_us=at_us,
        key_id=fields.pop("key_id", "key_1"), alias=fields.pop("alias", "m"),
        adapter_digest=fields.pop("adapter_digest", None),
        endpoint=fields.pop("endpoint", "chat/completions"),
    )  # fmt: skip
    ended = settlement(request_id, **fields)
    store.apply(entries_of(ledger._reserved(asked), ledger._settled(ended)))


def a_limit(tenant: str, **fields: Any) -> Limit:
    made = Limit(
        f"lim_{tenant}", tenant, None, None, Measure.TOKENS, Period.TOTAL, 9, False, 1, tenant
    )
    return replace(made, **fields)


def a_decision(decision_id: str, tenant: str = "ten_a", **fields: Any) -> Decision:
    made = Decision(
        decision_id, tenant, 5, f"key of {tenant}", f"of {tenant}", "0.1.0", {"option": tenant}
    )
    return replace(made, **fields)


def a_job(job_id: str, tenant: str = "ten_a", **fields: Any) -> Job:
    made = Job(
        job_id, tenant, Environment.DEV, JobKind.TUNE, f"of {tenant}", JobState.QUEUED,
        {"dataset": f"of {tenant}"}, {}, None, None, 5, f"key of {tenant}",
    )  # fmt: skip
    return replace(made, **fields)


def a_promotion(promotion_id: str, tenant: str = "ten_a", **fields: Any) -> Promotion:
    made = {
        "environment": Environment.DEV, "source": None, "alias": "promoted", "adapter": None,
        "bundle": Bundle("sha256:b", None), "gate": None, "forced": None, "overridden": (),
        "accepted": None, "share": 1.0, "watch": Watch(), "state": PromotionState.WHOLE,
        "before": None, "made_at_us": 5, "made_by": f"per of {tenant}",
    }  # fmt: skip
    return Promotion(promotion_id, tenant, **made | fields)


def a_gate(gate_id: str, tenant: str = "ten_a", **fields: Any) -> Gate:
    made = Gate(
        gate_id, tenant, Environment.DEV, "sha256:b", f"sha256:a of {tenant}", f"of {tenant}",
        "sha256:s", None, True, (Verdict("exact", "0.9 or more", "0.95", True),),
        f"job_{tenant}", 5, "local",
    )  # fmt: skip
    return replace(made, **fields)


def a_dataset(tenant_id: str, called: str = "x", **fields: Any) -> Dataset:
    """One whose digest is of its tenant and name."""
    digest = f"sha256:{hashlib.sha256(f'{tenant_id} {called}'.encode()).hexdigest()}"
    made = {
        "id": f"dat_{tenant_id}_{called}", "tenant_id": tenant_id, "environment": Environment.DEV,
        "name": called, "version": 1, "digest": digest, "kind": DatasetKind.CHAT, "train": 9,
        "held_out": 1, "licence": "LicenseRef-own", "origin": f"of {tenant_id}",
        "created_at_us": 1, "created_by": "local",
    }  # fmt: skip
    return Dataset(**made | fields)


def a_feedback(feedback_id: str, tenant: str = "ten_a", **fields: Any) -> Feedback:
    made = Feedback(
        feedback_id, tenant, Environment.DEV, f"req_{tenant}", f"alias of {tenant}", None,
        Rating.UP, 5, f"key_{tenant}", ("dk_1",), b"sealed",
    )  # fmt: skip
    return replace(made, **fields)


def furnish(store: SqlStore, tenant: str) -> None:
    store.add_tenant(tenant, f"house of {tenant}", 1)
    store.add_key(a_key(f"key_{tenant}", tenant))
    store.put_routes(tenant, Environment.DEV, [a_route(tenant, "m"), a_route(tenant, "n")])
    store.set_route(tenant, a_route(tenant, "a person's"))
    store.add_adapters(tenant, [adapter(tenant, f"a {tenant}", id=f"adp_{tenant}")])
    store.add_dataset(tenant, a_dataset(tenant, "tickets", id=f"dat_{tenant}"))
    store.put_policy(Policy("nights", f"of {tenant}", tenant))
    store.set_limit(tenant, a_limit(tenant))
    store.add_decision(tenant, a_decision(f"dec_{tenant}", tenant))
    store.add_job(tenant, a_job(f"job_{tenant}", tenant))
    store.add_gate(tenant, a_gate(f"gat_{tenant}", tenant))
    store.put_feedback(tenant, a_feedback(f"fbk_{tenant}", tenant))
    shared = {"alias": "n", "state": PromotionState.SHARING, "share": 0.5}
    candidate = replace(a_route(tenant, "n"), id=f"rte_candidate of {tenant}")
    store.promote(tenant, a_promotion(f"pro_{tenant}", tenant, **shared), candidate)
    store.add_subject_key(SubjectKey(f"dk_{tenant}", tenant, "somebody", b"wrapped", 1))
    used(store, f"req_{tenant}", tenant, key_id=f"key_{tenant}", alias=f"alias of {tenant}")


Row = tuple[str, str | None, int, int]


def rows(store: SqlStore) -> list[Row]:
    """Request, outcome, tokens in and out, of everything that the database has."""
    found = store.records("ten_a", 100_000)
    return sorted((row["id"], row["outcome"], row["tokens_in"], row["tokens_out"]) for row in found)


def next_start(where: Backend | Path, journal_folder: Path) -> list[Row]:
    """What a start after a crash makes of a database and a journal."""
    store = SqlStore(where)
    ledger.recover(store, journal_folder)
    store.settle_orphans(9_000_000)
    found = rows(store)
    store.close()
    return found


def place_of(where: Backend) -> str:
    """For another process, which gets the database back from it by `at`."""
    return where.url if isinstance(where, Postgres) else where.shown


def at(place: str) -> Backend:
    return Postgres(place) if "://" in place else Sqlite(Path(place))


@contextlib.contextmanager
def failing(store: SqlStore) -> Iterator[None]:
    """The database refuses records that the witness has heard of already."""

    def refuse(_connection: Any, _cursor: Any, statement: str, *_rest: Any) -> None:
        if statement.startswith("INSERT INTO audit "):
            raise OperationalError(statement, None, Exception("no room"))

    event.listen(store._writer, "before_cursor_execute", refuse)
    try:
        yield
    finally:
        event.remove(store._writer, "before_cursor_execute", refuse)


@contextlib.contextmanager
def locked(where: Backend | Path) -> Iterator[None]:
    """Another connection that keeps everybody from writing."""
    path = where.path if isinstance(where, Sqlite) else where
    if not isinstance(path, Path):
        with postgres.locked(where):
            yield
        return
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("BEGIN EXCLUSIVE")
        yield
        connection.execute("ROLLBACK")


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.005)
