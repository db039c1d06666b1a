"""How a command finds the gateway of its home, or does without one."""

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import pytest

from freehold.cli.reaching import reach
from freehold.config.home import Home, write_private
from freehold.core.binding import Environment, Scope
from freehold.core.errors import Code, UserError
from freehold.core.tenant import DEFAULT_TENANT
from freehold.secure.keys import KeyRequest


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    monkeypatch.delenv("FREEHOLD_API_KEY", raising=False)
    made = Home(tmp_path / "home")
    made.create()
    write_private(made.admin_key, b"fh_dev_admin\n")
    return made


def _record(home: Home, url: str = "http://127.0.0.1:1", pid: int | None = None) -> None:
    write_private(home.gateway_record, json.dumps({"url": url, "pid": pid or os.getpid()}).encode())


@contextmanager
def _server(status: int, content: bytes) -> Iterator[tuple[str, list[str]]]:
    """Something that answers on a port; and the keys that it was sent."""
    sent: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            sent.append(str(self.headers["authorization"]))
            self.send_response(status)
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None: ...

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", sent
        server.shutdown()
        thread.join()


def _code(call: object) -> Code:
    with pytest.raises(UserError) as refused:
        call()  # type: ignore[operator]
    return refused.value.code


def test_a_gateway_is_found_by_its_record_while_it_holds_the_lock(home: Home) -> None:
    assert reach.running(home) is None
    _record(home)
    assert reach.running(home) is None, "a record without a lock is of a gateway that died"
    with home.lock():
        found = reach.running(home)
        assert found is not None
        assert (found.url, found.key, found.pid) == (
            "http://127.0.0.1:1", "fh_dev_admin", os.getpid(),
        )  # fmt: skip
    assert reach.running(home) is None
    assert _code(lambda: reach.require_running(home)) is Code.GATEWAY_NOT_RUNNING


def test_to_look_for_a_gateway_keeps_nobody_from_starting_one(home: Home) -> None:
    _record(home)
    for _ in range(20):
        assert reach.running(home) is None
        with home.lock():
            assert reach.running(home) is not None


def test_a_process_that_is_gone_is_no_gateway(home: Home) -> None:
    gone = subprocess.Popen(["true"])
    gone.wait()
    _record(home, pid=gone.pid)
    with home.lock():
        assert reach.running(home) is None


def test_the_key_comes_from_the_environment_or_from_the_home(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert reach.admin_key(home) == "fh_dev_admin"
    monkeypatch.setenv("FREEHOLD_API_KEY", "fh_dev_other")
    assert reach.admin_key(home) == "fh_dev_other"
    monkeypatch.setenv("FREEHOLD_API_KEY", "")
    home.admin_key.unlink()
    with pytest.raises(UserError, match="FREEHOLD_API_KEY") as missing:
        reach.admin_key(home)
    assert missing.value.code is Code.MISSING_API_KEY


def test_a_gateway_that_does_not_answer_is_told(home: Home) -> None:
    gateway = reach.RunningGateway("http://127.0.0.1:1", "k", 1)
    assert _code(lambda: gateway.call("GET", "/x")) is Code.GATEWAY_NOT_RUNNING


@pytest.mark.parametrize(
    ("status", "content"),
    [(200, b"<html>"), (200, b""), (404, b"<html>"), (500, b"[]"), (400, b'{"error": "x"}'),
     (400, b'{"error": {"code": "of_tomorrow", "message": "m", "param": null}}'),
     (400, b'{"error": {"code": "conflict"}}')],
)  # fmt: skip
def test_what_is_no_gateway_of_this_version_is_told(status: int, content: bytes) -> None:
    with _server(status, content) as (url, _):
        gateway = reach.RunningGateway(url, "k", 1)
        assert _code(lambda: gateway.call("GET", "/x")) is Code.GATEWAY_NOT_RUNNING


def test_the_gateways_own_sentence_is_passed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    error = {"code": "conflict", "message": "Just so.", "param": "x", "type": "t"}
    content = json.dumps({"error": error}).encode()
    with _server(409, content) as (url, sent), pytest.raises(UserError) as refused:
        reach.RunningGateway(url, "k-1", 1).call("GET", "/x")
    assert (refused.value.code, refused.value.message, refused.value.param) == (
        Code.CONFLICT, "Just so.", "x",
    )  # fmt: skip
    assert sent == ["Bearer k-1"]


def test_the_owner_of_the_home_administers_with_what_the_gateway_wrote_down_and_asks_with_a_key(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    def sent(path: str) -> str:
        with _server(200, b"{}") as (url, seen), home.lock():
            record = {"url": url, "pid": os.getpid(), "operator": "fh_local_x"}
            write_private(home.gateway_record, json.dumps(record).encode())
            gateway = reach.require_running(home)
            gateway.call("GET", path)
        return seen[0]

    assert sent("/admin/v1/keys") == "Bearer fh_local_x"
    assert sent("/v1/models") == "Bearer fh_dev_admin"
    home.admin_key.unlink()
    assert sent("/admin/v1/keys") == "Bearer fh_local_x"
    assert _code(lambda: sent("/v1/models")) is Code.MISSING_API_KEY
    monkeypatch.setenv("FREEHOLD_API_KEY", "fh_prod_mine")
    for path in ("/admin/v1/keys", "/v1/models"):
        assert sent(path) == "Bearer fh_prod_mine", "who names a key acts with that key"


def test_at_rest_the_store_the_keys_and_one_tenant_are_there(home: Home) -> None:
    with reach.offline(home) as (store, keyring, tenant_id):
        wanted = KeyRequest(tenant_id, Environment.DEV, "x", frozenset({Scope.INFER}))
        _, key = keyring.mint(wanted)
        assert home.is_locked()
    with reach.offline(home) as (store, keyring, again):
        assert again == tenant_id
        assert key is not None
        assert keyring.authenticate(key.reveal()).tenant_id == tenant_id
        assert store.tenant_named(DEFAULT_TENANT) == tenant_id
    assert (home.secrets / "pepper").stat().st_mode & 0o777 == 0o600


def test_an_error_at_rest_leaves_the_home_free(home: Home) -> None:
    with pytest.raises(ZeroDivisionError), reach.offline(home):
        raise ZeroDivisionError
    assert not home.is_locked()
    with reach.offline(home):
        pass
