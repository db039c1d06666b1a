"""`freehold login` at a gateway elsewhere, and commands that act there as who logged in."""

import asyncio
import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest
from click.testing import Result
from typer.testing import CliRunner

from freehold.cli import login as command
from freehold.cli.main import app
from tests.cli.conftest import Run
from tests.cli.spoken import failed, said
from tests.harness import Running
from tests.issuer import Issuer
from tests.serve.people import people


@dataclass
class There:
    """A gateway and its provider on a thread of their own: commands do not await."""

    world: Running
    issuer: Issuer


@pytest.fixture(scope="module")
def there(tmp_path_factory: pytest.TempPathFactory) -> Iterator[There]:
    begun, found = threading.Event(), []
    ended: list[Callable[[], Any]] = []

    async def serve() -> None:
        end, loop = asyncio.Event(), asyncio.get_running_loop()
        async with people(tmp_path_factory.mktemp("there")) as (world, issuer):
            found.append(There(world, issuer))
            ended.append(lambda: loop.call_soon_threadsafe(end.set))
            begun.set()
            await end.wait()

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    assert begun.wait(60)
    yield found[0]
    ended[0]()
    thread.join()


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """On a machine that has no home, and logins of its own."""
    monkeypatch.setenv("FREEHOLD_HOME", str(tmp_path / "none"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    for name in ("FREEHOLD_API_KEY", "FREEHOLD_URL"):
        monkeypatch.delenv(name, raising=False)

    def run(*words: str, **options: object) -> Result:
        return CliRunner().invoke(app, words, **options)  # type: ignore[arg-type]

    return run


@pytest.fixture
def waits(there: There, monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """How long it waited between polls. After the first wait somebody says yes."""
    found: list[float] = []

    def sleep(seconds: float) -> None:
        found.append(seconds)
        if len(found) == 1:
            httpx2.get(f"{there.issuer.url}/activate")

    monkeypatch.setattr(command.time, "sleep", sleep)
    return found


def _file(tmp_path: Path) -> Path:
    return tmp_path / "config" / "freehold" / "logins.json"


def test_somebody_logs_in_with_a_code_acts_elsewhere_and_logs_out(
    there: There, run: Run, waits: list[float], tmp_path: Path
) -> None:
    url = there.world.url
    there.issuer.who = {"groups": ["boss"], "sub": "grace"}
    ended = run("login", "--url", url)
    assert ended.exit_code == 0, ended.output
    assert f"Open {there.issuer.url}/activate" in ended.stdout
    assert "WDJB-MJHT" in ended.stdout
    assert waits == [1.0, 6.0], "five seconds more after slow_down"
    assert _file(tmp_path).stat().st_mode & 0o777 == 0o600
    assert _file(tmp_path).parent.stat().st_mode & 0o777 == 0o700
    me = said(run, "--url", url, "whoami")
    assert (me["kind"], me["roles"]) == ("person", ["admin", "user"])
    made = said(run, "--url", url, "key", "create", "mine")
    assert made["id"] in [each["id"] for each in said(run, "--url", url, "key", "list")]
    listed = said(run, "--url", url, "session", "list", "--person", me["id"])
    assert [(each["id"], each["kind"]) for each in listed] == [(me["session"], "command")]
    failed(run("--url", url, "status", "--json"), "insufficient_permissions")
    assert run("logout", "--url", url).exit_code == 0
    assert json.loads(_file(tmp_path).read_text()) == {}
    failed(run("logout", "--url", url, "--json"), "invalid_session")
    store = there.world.gateway.store
    assert not store.living_sessions([me["session"]])


def test_somebody_logs_in_with_a_browser_on_this_machine(
    there: There, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    there.issuer.who = {"sub": "hopper"}

    def browse(url: str) -> None:
        threading.Thread(target=lambda: httpx2.get(url, follow_redirects=True)).start()

    monkeypatch.setattr(command.webbrowser, "open", browse)
    ended = run("login", "--url", there.world.url, "--browser")
    assert ended.exit_code == 0, ended.output
    assert said(run, "--url", there.world.url, "whoami")["roles"] == ["user"]

    def elsewhere(url: str) -> None:
        browse(url.replace("state=", "state=x"))

    monkeypatch.setattr(command.webbrowser, "open", elsewhere)
    words = ("login", "--url", there.world.url, "--browser", "--json")
    assert "another login" in failed(run(*words), "login_failed")
    monkeypatch.setattr(command.webbrowser, "open", browse)
    there.issuer.who = {"nonce": "of-another"}
    assert "another login" in failed(run(*words), "login_failed")


def test_a_login_that_ended_by_itself_is_renewed_and_a_revoked_one_is_not(
    there: There, run: Run, waits: list[float], tmp_path: Path
) -> None:
    url, file = there.world.url, _file(tmp_path)
    there.issuer.who = {"sub": "lovelace"}
    assert run("login", "--url", url).exit_code == 0
    first = json.loads(file.read_text())[url]
    file.write_text(json.dumps({url: {**first, "ends_s": int(time.time())}}))
    me = said(run, "--url", url, "whoami")
    second = json.loads(file.read_text())[url]
    assert second["secret"] != first["secret"]
    assert second["refresh_token"] != first["refresh_token"]
    there.world.gateway.store.end_session(there.world.tenant_id, me["session"], 1, "admin")
    deadline = time.monotonic() + 20
    while run("--url", url, "whoami").exit_code == 0 and time.monotonic() < deadline:
        pass
    failed(run("--url", url, "whoami", "--json"), "invalid_session")
    assert json.loads(file.read_text())[url] == second, "nothing was renewed"
    file.write_text(json.dumps({url: {**second, "used_s": 0, "refresh_token": "spent"}}))
    assert "has ended" in failed(run("--url", url, "whoami", "--json"), "invalid_session")


def test_what_cannot_be_is_said_in_a_sentence(
    there: There, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = there.world.url
    assert "freehold login --url" in failed(
        run("--url", url, "whoami", "--json"), "missing_api_key"
    )
    for wrong in ("http://llm.example.com", "ftp://127.0.0.1", f"{url}/path", "nonsense"):
        assert "is no gateway" in run("--url", wrong, "whoami").output
        failed(run("login", "--url", wrong, "--json"), "config_invalid")
    assert "corp" in failed(
        run("login", "--url", url, "--provider", "other", "--json"), "not_found"
    )
    monkeypatch.setenv("FREEHOLD_API_KEY", there.world.key)
    assert said(run, "--url", url, "whoami")["kind"] == "key"
    for words in (("down",), ("adapter", "add", ".", "--base", "x")):
        told = failed(run("--url", url, *words, "--json"), "config_invalid")
        assert "on the machine of the gateway" in told
    file = _file(tmp_path)
    file.parent.mkdir(parents=True)
    file.write_text("{}")
    file.chmod(0o644)
    monkeypatch.delenv("FREEHOLD_API_KEY")
    assert "chmod 600" in failed(run("--url", url, "whoami", "--json"), "config_invalid")


def test_a_provider_that_says_no_is_quoted(
    there: There, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: float) -> None:
        there.issuer.devices = dict.fromkeys(there.issuer.devices, "denied")

    monkeypatch.setattr(command.time, "sleep", refuse)
    ended = run("login", "--url", there.world.url, "--json")
    assert "access_denied" in failed(ended, "login_failed")
    there.issuer.about = {"device_authorization_endpoint": ..., "authorization_endpoint": ...}
    try:
        ended = run("login", "--url", there.world.url, "--json")
    finally:
        there.issuer.about = {}
    assert "where people log in" in failed(ended, "login_failed")
