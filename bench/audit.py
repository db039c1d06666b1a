"""How long the audit trail takes, with many records.

`python bench/audit.py` writes records straight into a SQLite database, as a gateway would
have over thirty days, and asks what a start and an auditor ask. A day of a million records is
signed and verified apart from that. With `--short` there are a hundred million, whose names are
short and whose bodies are empty, so that they fit on a small disk: what is looked up is the same.
"""

import argparse
import hashlib
import sqlite3
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import machine
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

import freehold
from freehold.core.audit import Head, Record, Sought, chained, link
from freehold.secure import audit, checkpoints
from freehold.secure.checkpoints import Checkpoints
from freehold.store.sql import SqlStore

_RECORDS, _DAY = 10_000_000, 1_000_000
_STREAMS, _PRINCIPALS, _MODELS = 4, 400, 20
_SPAN_US, _FIRST_US = 30 * 86_400_000_000, 1_795_000_000_000_000
_AT_ONCE, _LINE = 50_000, 2000
_TRIES = 5
_INSERT = (
    "INSERT INTO audit (stream, number, body, hash, at_us, kind, principal, model) "
    "VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
)
# A thirty-second of a second between two records, on the average; four streams take turns.
_SHORT_RECORDS = 100_000_000
_INSERT_SHORT = (
    "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?1) "
    "INSERT INTO audit (stream, number, body, hash, at_us, kind, principal, model) "
    "SELECT ?2, i, '{}', randomblob(32), ?3 + (i * 4 + ?4) * 25920, 'request', "
    "'key_' || (i * 7919 % 400), 'm' || (i * 104729 % 20) FROM n"
)
_BODY = (
    '{"v":3,"kind":"request","id":"req_%026d","at_us":%d,"began_at_us":%d,"principal":"%s",'
    '"endpoint":"chat/completions","model":"%s","engine":"openvino","base":"sha256:%064d",'
    '"adapter":"sha256:%064d","policies":["freehold/users-use-models"],"outcome":"ok",'
    '"error":null,"tokens_in":321,"tokens_out":123,"tokens_cached":0,"estimated":false,'
    '"cost":null,"personal":{"keys":["dk_%026d"],"sealed":"%s"}}'
)
_SEALED = "x" * 108


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--short", action="store_true")
    rows: list[machine.Row] = []
    if parser.parse_args().short:
        with tempfile.TemporaryDirectory(prefix="freehold-audit-") as folder:
            machine.keep("audit", _short(Path(folder)), merge=True)
        return
    with tempfile.TemporaryDirectory(prefix="freehold-audit-") as folder:
        rows += _many(Path(folder))
        rows += _a_day(Path(folder))
    machine.keep("audit", rows)


def _body(number: int) -> tuple[str, int, str, str]:
    at_us = _FIRST_US + number * (_SPAN_US // _RECORDS)
    mixed = int.from_bytes(hashlib.blake2b(b"%d" % number, digest_size=4).digest())
    principal = f"key_{mixed % _PRINCIPALS:026d}"
    model = f"model-{mixed // 1000 % _MODELS}"
    body = _BODY % (number, at_us, at_us - 900_000, principal, model, 1, 2, mixed, _SEALED)
    return body, at_us, principal, model


def _rows(stream: str, numbers: range) -> Iterator[tuple[Any, ...]]:
    previous = bytes(32)
    for place, number in enumerate(numbers, 1):
        body, at_us, principal, model = _body(number)
        previous = link(previous, stream, place, body.encode())
        yield stream, place, body, previous, at_us, "request", principal, model


def _many(folder: Path) -> list[machine.Row]:
    path = folder / "freehold.db"
    print(f"writing {_RECORDS:,} records ...", flush=True)
    with _written(path) as database:
        for each in range(_STREAMS):
            numbers = range(each, _RECORDS, _STREAMS)
            database.execute("BEGIN")
            database.executemany(_INSERT, _rows(f"ten_{each:026d}/prod", numbers))
            database.execute("COMMIT")
    middle = _FIRST_US + _SPAN_US // 2
    principal = _body(_RECORDS // 2 + 1)[2]
    return _asked(path, _RECORDS, f"ten_{1:026d}/prod", middle, principal, "model-7")


def _short(folder: Path) -> list[machine.Row]:
    path = folder / "freehold.db"
    print(f"writing {_SHORT_RECORDS:,} short records ...", flush=True)
    with _written(path) as database:
        for each in range(_STREAMS):
            begun = time.monotonic()
            given = (_SHORT_RECORDS // _STREAMS, f"ten_{each}/prod", _FIRST_US, each)
            database.execute(_INSERT_SHORT, given)
            print(f"stream {each}: {time.monotonic() - begun:.0f} s", flush=True)
    middle = _FIRST_US + _SPAN_US // 2
    return _asked(path, _SHORT_RECORDS, "ten_1/prod", middle, "key_7", "m7")


@contextmanager
def _written(path: Path) -> Iterator[sqlite3.Connection]:
    """Indexes are made afterwards, sooner than keeping them meanwhile."""
    SqlStore(path).close()
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        database.execute("PRAGMA synchronous=OFF")
        indexes = database.execute(
            "SELECT name, sql FROM sqlite_master "
            "WHERE tbl_name = 'audit' AND sql LIKE 'CREATE INDEX%'"
        ).fetchall()
        for name, _ in indexes:
            database.execute(f"DROP INDEX {name}")
        yield database
        for name, sql in indexes:
            print(f"index {name} ...", flush=True)
            database.execute(sql)
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def _asked(
    path: Path, records: int, stream: str, middle: int, principal: str, model: str
) -> list[machine.Row]:
    hour = Sought(since_us=middle, until_us=middle + 3_600_000_000)
    case = f"{records:,} records in SQLite"
    rows = [_row("database", "bytes a record", path.stat().st_size / records, case)]
    opened, store = _timed(lambda: SqlStore(path), tries=1)
    rows.append(_row("open, and where all streams end", "ms", opened, case))
    try:
        asked: dict[str, Callable[[], object]] = {
            "where all streams end": store.audit_heads,
            "first 100 of a chain": lambda: store.audit_page(stream, 100),
            "100 from the middle of a chain": lambda: store.audit_page(stream, 100, 1_000_000),
            "100 of an hour": lambda: store.audit_found(stream, hour, 100),
            "100 of a principal": lambda: store.audit_found(
                stream, Sought(principal=principal, since_us=middle), 100
            ),
            "100 of a model": lambda: store.audit_found(
                stream, Sought(model=model, since_us=middle), 100
            ),
            "100 of a principal and a model": lambda: store.audit_found(
                stream, Sought(principal=principal, model=model, since_us=middle), 100
            ),
            "the acts, of which there are none": lambda: store.audit_found(
                stream, Sought(kind="act"), 100
            ),
        }
        for name, call in asked.items():
            rows.append(_row(name, "ms", _timed(call)[0], case))
    finally:
        store.close()
    return rows


def _a_day(folder: Path) -> list[machine.Row]:
    """One stream, one file of checkpoints with a line for each two thousand records."""
    key, stream = Ed25519PrivateKey.generate(), "ten_a/prod"
    where = folder / "checkpoints"
    path = folder / "day.db"
    store = SqlStore(path)
    signing = Checkpoints(where, key)
    head = Head()
    print(f"signing {_DAY:,} records ...", flush=True)
    with closing(sqlite3.connect(path)) as database:
        for first in range(0, _DAY, _LINE):
            made = [_body(number) for number in range(first, first + _LINE)]
            records = chained(stream, head, [body.encode() for body, *_ in made])
            head = Head(records[-1].number, records[-1].hash)
            signing.add(records, _FIRST_US)
            database.executemany(
                _INSERT,
                [
                    (r.stream, r.number, r.body.decode(), r.hash, at_us, "request", who, model)
                    for r, (_, at_us, who, model) in zip(records, made, strict=True)
                ],
            )
        database.commit()
    signing.close()
    case = f"a day of {_DAY:,} records"
    opened, _ = _timed(lambda: Checkpoints(where, key))

    def verified() -> None:
        signed = checkpoints.signed(where, key.public_key())
        trail: Iterator[Record] = store.audit_trail(stream)
        keys = audit.DataKeys([], ())
        keys.known = _Every()
        assert audit.verify(stream, trail, signed.hashes[stream], otherwise=keys.wrong) == (
            _DAY,
            None,
        )

    begun = time.process_time()
    taken_ms, _ = _timed(verified, tries=1)
    on_processor = time.process_time() - begun
    store.close()
    return [
        _row("open the checkpoints", "ms", opened, case),
        _row("verify", "s", taken_ms / 1000, case),
        _row("verify, on the processor", "s", on_processor, case),
    ]


class _Every(dict[bytes, str | None]):
    """Each data key is there and as it should be."""

    def get(self, name: bytes, default: object = None) -> None:  # type: ignore[override]
        return None


def _row(what: str, unit: str, value: float, case: str) -> machine.Row:
    return machine.Row("freehold", freehold.__version__, case, f"{what} ({unit})", value)


def _timed(call: Callable[[], Any], tries: int = _TRIES) -> tuple[float, Any]:
    """Milliseconds, the median."""
    taken = []
    result = None
    for _ in range(tries):
        begun = time.perf_counter()
        result = call()
        taken.append((time.perf_counter() - begun) * 1000)
    return sorted(taken)[len(taken) // 2], result


if __name__ == "__main__":
    main()
