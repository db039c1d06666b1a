"""`freehold status`: what runs, for people and for machines."""

import json
from typing import Any

import pytest

from freehold.cli import status
from freehold.cli.reaching import reach
from tests.cli.conftest import Run
from tests.installation import Installation


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(status, "_INTERVAL_S", 0.05)


def test_machines_get_everything(online: Run, served: Installation) -> None:
    ended = online("status", "--json")
    assert ended.exit_code == 0
    now = json.loads(ended.stdout)
    assert set(now) == {
        "version", "url", "pid", "rss_bytes", "in_flight", "tokens_out", "ledger_writable",
        "draining", "pools", "tokens_per_s",
    }  # fmt: skip
    assert (now["url"], now["pid"]) == (served.url, served.process.pid)
    assert (now["in_flight"], now["draining"], now["ledger_writable"]) == (0, False, True)
    assert now["tokens_per_s"] >= 0
    (pool,) = now["pools"]
    assert set(pool) == {"name", "queued", "refused_adapters", "replicas"}
    (replica,) = pool["replicas"]
    assert set(replica) == {
        "name", "state", "pid", "in_flight", "restarts", "rss_bytes", "last_error",
    }  # fmt: skip
    assert (pool["name"], pool["queued"], replica["state"]) == ("tiny", 0, "ready")
    assert replica["pid"] not in (None, served.process.pid)


def test_people_see_where_it_serves_and_how_each_engine_is(
    online: Run, served: Installation
) -> None:
    shown = online("status").stdout
    for expected in (served.url, str(served.process.pid), "tiny", "ready", "in flight", "MB"):
        assert expected in shown
    assert "no request is served" not in shown


def test_trouble_is_told(online: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    call = reach.RunningGateway.call

    def in_trouble(self: reach.RunningGateway, method: str, path: str, *rest: Any) -> Any:
        found = call(self, method, path, *rest)
        found |= {"draining": True, "ledger_writable": False}
        replica = found["pools"][0]["replicas"][0]
        replica |= {"state": "backoff", "pid": None, "rss_bytes": None, "restarts": 1234,
                    "last_error": "it ended [/b] with \x1b[31m status -9"}  # fmt: skip
        return found

    monkeypatch.setattr(reach.RunningGateway, "call", in_trouble)
    shown = online("status").stdout
    for expected in ("draining", "no request is served", "backoff", "1,234", "ended [/b] with"):
        assert expected in shown
    assert "\x1b[31m" not in shown


def test_without_a_gateway_it_fails_and_says_how_to_start_one(offline: Run) -> None:
    ended = offline("status")
    assert ended.exit_code == 1
    assert "freehold up" in ended.stderr
    asked = offline("status", "--json")
    assert asked.exit_code == 1
    assert json.loads(asked.stdout)["error"]["code"] == "gateway_not_running"
    assert offline("status", "extra").exit_code == 2
