"""What it costs to know who asks and to decide whether they may, with 10,000 tenants and
100,000 keys in the database.

`python bench/authorization.py` times both as a running gateway does them (a decision that is
remembered, and the first one of its kind), the start of a gateway on that database, its
memory, and the commands that list. A home with nothing in it stands beside as `empty`.
"""

import contextlib
import hashlib
import hmac
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import httpx2
import machine
import psutil
from sqlalchemy import insert, select

import freehold
from freehold.cli.reaching import reach
from freehold.config.home import Home
from freehold.core.action import Action
from freehold.core.binding import Environment, Route
from freehold.core.clock import SystemClock
from freehold.core.ids import new_id
from freehold.serve.policies import LivePolicies
from freehold.store.backend import EVERY_TENANT
from freehold.store.sql import SqlStore
from freehold.store.tables import api_keys, routes, tenants

_TENANTS, _KEYS_EACH, _CACHED, _UNCACHED = 10_000, 10, 200_000, 5_000
_KNOWN = 100
_PEER = "10.0.0.1"
_BIG, _SMALL = "10,000 tenants, 100,000 keys", "empty"


def main() -> None:
    rows: list[machine.Row] = []
    with tempfile.TemporaryDirectory() as folder:
        for case, count in ((_SMALL, 0), (_BIG, _TENANTS)):
            home = Home(Path(folder) / str(count))
            home.create()
            keys = _stock(home, count)
            rows += [_row(case, *each) for each in _of_a_gateway(home, keys)]
            if keys:
                rows += [_row(case, *each) for each in _of_decisions(home, keys)]
    machine.keep("authorization", rows)


def _row(case: str, metric: str, value: float) -> machine.Row:
    return machine.Row("freehold", freehold.__version__, case, metric, value)


def _stock(home: Home, count: int) -> list[str]:
    """Tenants with a route and ten keys each; returns the keys."""
    made: list[str] = []
    with reach.offline(home) as (store, _, _):
        if not count:
            return []
        pepper = (home.secrets / "pepper").read_bytes()
        of_tenants, of_keys, of_routes = [], [], []
        for number in range(count):
            tenant_id = new_id("ten")
            of_tenants.append({"id": tenant_id, "name": f"t{number}", "created_at_us": number})
            of_routes.append(_route(tenant_id))
            for place in range(_KEYS_EACH):
                key_id = new_id("key")
                key = f"fh_dev_{key_id.removeprefix('key_')}_{number:048d}{place:04d}"
                made.append(key)
                of_keys.append(_key(tenant_id, key_id, key, pepper))
        with store._writer.begin() as connection:
            for table, rows in ((tenants, of_tenants), (api_keys, of_keys), (routes, of_routes)):
                connection.execute(insert(table), rows)
    return made


def _key(tenant_id: str, key_id: str, key: str, pepper: bytes) -> dict[str, object]:
    hashed = hmac.digest(pepper, hashlib.sha256(key.encode()).digest(), "sha256")
    return {
        "id": key_id, "tenant_id": tenant_id, "environment": "dev", "name": "bench",
        "hash": hashed, "scopes": "admin infer", "created_at_us": 1,
    }  # fmt: skip


def _route(tenant_id: str) -> dict[str, object]:
    return {
        "id": new_id("rte"), "tenant_id": tenant_id, "environment": "dev", "alias": "bot",
        "engine": "fake", "pool": "none", "engine_model": "none", "created_at_us": 1,
        "managed": False,
    }  # fmt: skip


def _of_a_gateway(home: Home, keys: Sequence[str]) -> Iterator[tuple[str, float]]:
    with _up(home) as (process, url, started_s):
        yield "start, s", started_s
        yield "memory after the start, MB", _rss_mb(process)
        with httpx2.Client(base_url=url, timeout=60) as client:
            if keys:
                first = [_asked_ms(client, key) for key in keys[:: len(keys) // 2000]]
                again = [_asked_ms(client, keys[0]) for _ in range(2000)]
                for name, times in (("first", first), ("next", again)):
                    yield f"GET /v1/models, {name} of a key, p50 ms", statistics.median(times)
                    yield f"GET /v1/models, {name} of a key, p99 ms", _p99(times)
                yield "memory after 2,000 keys were used, MB", _rss_mb(process)
        for words in (("key", "list"), ("tenant", "list"), ("status",)):
            yield f"freehold {' '.join(words)}, s", _command_s(home, *words)


@contextlib.contextmanager
def _up(home: Home) -> Iterator[tuple[psutil.Process, str, float]]:
    begun = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-u", "-m", "freehold.cli.main", "up", "--port", "0", "--no-local-models"],
        env=_environment(home), stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    said = ""
    while "Ctrl-C stops it" not in said:
        line = process.stdout.readline()
        if not line:
            raise SystemExit(f"the gateway did not start: {said}")
        said += line
    started_s = time.perf_counter() - begun
    found = re.search(r"serves at (https?://\S+)/v1", said)
    assert found is not None
    try:
        yield psutil.Process(process.pid), found[1], started_s
    finally:
        process.terminate()
        process.wait()


def _environment(home: Home) -> dict[str, str]:
    return {**os.environ, "FREEHOLD_HOME": str(home.path)}


def _command_s(home: Home, *words: str) -> float:
    begun = time.perf_counter()
    subprocess.run(
        [sys.executable, "-m", "freehold.cli.main", *words, "--json"],
        env=_environment(home), stdout=subprocess.DEVNULL, check=True,
    )  # fmt: skip
    return time.perf_counter() - begun


def _asked_ms(client: httpx2.Client, key: str) -> float:
    begun = time.perf_counter()
    answer = client.get("/v1/models", headers={"authorization": f"Bearer {key}"})
    took = time.perf_counter() - begun
    assert answer.status_code == 200, answer.text
    return took * 1000


def _rss_mb(process: psutil.Process) -> float:
    return float(process.memory_info().rss / 1e6)


def _of_decisions(home: Home, keys: Sequence[str]) -> Iterator[tuple[str, float]]:
    """As `serve/admission.py` makes them: who holds the key, and whether they may use the
    route."""
    with reach.offline(home) as (store, keyring, _):
        policies = LivePolicies(store, SystemClock())
        chosen = keys[:: len(keys) // _UNCACHED][:_UNCACHED]
        by_key = {key: _first_route(store, tenant) for key, tenant in _tenants(store, chosen)}

        def decide(key: str) -> None:
            principal = keyring.cached(key, _PEER) or keyring.authenticate(key, _PEER)
            assert policies.decide(principal, Action.INFER, by_key[key], _PEER).is_allowed

        first = [_timed(decide, key) for key in chosen]
        again = [_timed(decide, chosen[at % _KNOWN]) for at in range(_CACHED)]
    for name, times in (("first of a key", first), ("remembered", again)):
        yield f"decision, {name}, p50 us", statistics.median(times)
        yield f"decision, {name}, p99 us", _p99(times)


def _tenants(store: SqlStore, keys: Sequence[str]) -> Iterator[tuple[str, str]]:
    by_id = {f"key_{key.split('_')[2]}": key for key in keys}
    with store._reading(EVERY_TENANT) as connection:
        for id, tenant_id in connection.execute(select(api_keys.c.id, api_keys.c.tenant_id)):
            if id in by_id:
                yield by_id[id], tenant_id


def _first_route(store: SqlStore, tenant_id: str) -> Route:
    return store.routes(tenant_id, Environment.DEV)[0]


def _timed(call: Callable[[str], None], key: str) -> float:
    begun = time.perf_counter_ns()
    call(key)
    return (time.perf_counter_ns() - begun) / 1000


def _p99(times: Sequence[float]) -> float:
    return sorted(times)[int(len(times) * 0.99)]


if __name__ == "__main__":
    main()
