"""`freehold key`, on a running gateway and on a resting home: the same words, the same
shapes, and a key that is shown once."""

import hashlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx2
import pytest
from typer.testing import CliRunner

from freehold.cli.main import app
from freehold.config.home import Home
from tests.cli.conftest import Run
from tests.installation import Installation, start, stock_tiny

_FIELDS = {
    "id", "name", "environment", "scopes", "models", "networks", "certificates", "state",
    "created_at", "expires_at", "revoked_at", "replaced_by", "on_departure", "restrained_at",
}  # fmt: skip


def _created(run: Run, *words: str) -> dict[str, Any]:
    ended = run("key", "create", *words, "--json")
    assert ended.exit_code == 0, ended.output
    found: dict[str, Any] = json.loads(ended.stdout)
    return found


def _listed(run: Run, *words: str) -> dict[str, dict[str, Any]]:
    return {key["id"]: key for key in json.loads(run("key", "list", *words, "--json").stdout)}


def _failed(ended: Any, code: str) -> str:
    assert ended.exit_code == 1, ended.output
    error = json.loads(ended.stdout)["error"]
    assert (set(error), error["code"]) == ({"message", "code"}, code)
    return str(error["message"])


def _status(gateway: Installation, key: str, path: str = "/v1/models") -> int:
    headers = {"authorization": f"Bearer {key}"}
    return httpx2.get(f"{gateway.url}{path}", headers=headers, trust_env=False).status_code


def test_a_key_lives_from_its_making_to_its_end(run: Run) -> None:
    created = _created(run, "for a test")
    assert set(created) == _FIELDS | {"key"}
    assert re.fullmatch(r"fh_dev_[0-9A-Z]{26}_[a-z2-7]{52}", created["key"])
    shown = {name: value for name, value in created.items() if name != "key"}
    assert (shown["name"], shown["state"]) == ("for a test", "active")
    assert (shown["scopes"], shown["models"]) == (["infer"], None)
    assert _listed(run)[created["id"]] == shown

    revoked = json.loads(run("key", "revoke", created["id"], "--json").stdout)
    assert set(revoked) == _FIELDS
    assert revoked["state"] == "revoked"
    assert datetime.fromisoformat(revoked["revoked_at"])
    assert json.loads(run("key", "revoke", created["id"], "--json").stdout) == revoked
    assert _listed(run)[created["id"]] == revoked


def test_the_key_itself_is_shown_once_and_in_no_list(run: Run) -> None:
    ended = run("key", "create", "spoken")
    (key,) = re.findall(r"fh_dev_\w+", ended.stdout)
    secret = key.rpartition("_")[2]
    assert "this once" in ended.stdout
    for listed in (run("key", "list"), run("key", "list", "--json")):
        assert "spoken" in listed.stdout
        assert secret not in listed.stdout


def test_what_a_key_may_do_is_as_it_was_asked_for(run: Run) -> None:
    created = _created(
        run, "narrow", "--scope", "infer", "--scope", "admin", "--model", "tiny",
        "--model", "other/model", "--days", "7",
    )  # fmt: skip
    assert created["scopes"] == ["admin", "infer"]
    assert created["models"] == ["other/model", "tiny"]
    lifetime = datetime.fromisoformat(created["expires_at"]) - datetime.fromisoformat(
        created["created_at"]
    )
    assert abs(lifetime - timedelta(days=7)) < timedelta(minutes=1)
    table = run("key", "list").stdout
    assert "admin, infer" in table
    assert "other/model, tiny" in table
    assert created["expires_at"][:19] in table


@pytest.mark.parametrize(
    "name", ["[/b] of [red]colour", "\\[/b]", "a :warning: b", "\u4e2d\u6587 \u00e9", "x" * 128,
             "100% 'quoted' \"twice\" `$(id)`"],
)  # fmt: skip
def test_a_name_is_shown_as_it_is_whatever_it_looks_like(run: Run, name: str) -> None:
    ended = run("key", "create", name)
    assert ended.exit_code == 0, ended.output
    assert f"({name})" in ended.stdout.replace("\n", "")
    (key_id,) = re.findall(r"key_\w+", ended.stdout)
    assert "fh_dev_" in ended.stdout, "the key is shown, for it is nowhere else"
    assert _listed(run)[key_id]["name"] == name
    assert name[:40] in run("key", "list").stdout
    assert f"({name})" in run("key", "revoke", key_id).stdout.replace("\n", "")


def test_what_follows_a_departure_is_chosen_for_one_key_and_left_to_others_again(
    run: Run,
) -> None:
    key = _created(run, "watched")
    assert (key["on_departure"], key["restrained_at"]) == ("default", None)
    for chosen in ("notify", "step-down", "suspend", "default"):
        words = ("key", "set", key["id"], "--on-departure", chosen)
        changed = json.loads(run(*words, "--json").stdout)
        assert changed["on_departure"] == chosen
        assert _listed(run)[key["id"]] == changed
        assert chosen in run(*words).stdout
    _failed(run("key", "set", "key_none", "--on-departure", "suspend", "--json"), "not_found")
    for wrong in ((), ("--on-departure", "shout")):
        assert run("key", "set", key["id"], *wrong).exit_code == 2


def test_a_name_cannot_steer_the_terminal(run: Run) -> None:
    for name in ("a\x1b[31m", "a\u009b31mb", "b\u202ec"):
        _failed(run("key", "create", name, "--json"), "invalid_value")
        assert name[1] not in run("key", "create", name).output


def test_a_key_of_another_gateway_is_taken_over_by_its_hash(run: Run) -> None:
    hashed = hashlib.sha256(b"sk-elsewhere").hexdigest()
    assert set(_created(run, "moved", "--sha256", hashed)) == _FIELDS, "and no key"
    _failed(run("key", "create", "again", "--sha256", hashed, "--json"), "conflict")
    told = run("key", "create", "moved", "--sha256", hashlib.sha256(b"sk-2").hexdigest().upper())
    assert "works from now on" in told.stdout
    assert hashed not in run("key", "list", "--json").stdout


@pytest.mark.parametrize(
    "words",
    [("create", "x", "--sha256", "zz"), ("create", ""), ("create", "x" * 129),
     ("create", "x", "--days", "99999")],
)  # fmt: skip
def test_what_cannot_be_is_told_and_changes_nothing(run: Run, words: tuple[str, ...]) -> None:
    before = _listed(run)
    _failed(run("key", *words, "--json"), "invalid_value")
    assert _listed(run) == before


def test_a_key_that_is_not_there_cannot_be_revoked(run: Run) -> None:
    message = _failed(run("key", "revoke", "key_none", "--json"), "not_found")
    ended = run("key", "revoke", "key_none")
    assert ended.exit_code == 1
    assert message in ended.stderr


@pytest.mark.parametrize(
    "words",
    [("create",), ("create", "x", "--scope", "everything"), ("create", "x", "--days", "0"),
     ("create", "x", "--environment", "home"), ("create", "x", "--what"), ("revoke",),
     ("list", "x"), ("remove", "x"), ()],
)  # fmt: skip
def test_wrong_use_ends_with_two(offline: Run, words: tuple[str, ...]) -> None:
    ended = offline("key", *words)
    assert ended.exit_code == 2
    assert "Usage" in ended.output


def test_with_the_gateway_running_a_key_works_at_once_and_ends_at_once(
    online: Run, served: Installation
) -> None:
    created = _created(online, "now")
    assert _status(served, created["key"]) == 200
    assert _status(served, created["key"], "/admin/v1/keys") == 403
    online("key", "revoke", created["id"])
    assert _status(served, created["key"]) == 401


def test_keys_of_any_environment_are_made_and_are_listed_there_only(run: Run) -> None:
    made = {}
    for environment in ("dev", "staging", "prod"):
        created = _created(run, "x", "--env", environment)
        assert created["environment"] == environment
        assert created["key"].startswith(f"fh_{environment}_")
        made[environment] = created["id"]
    for environment, key_id in made.items():
        listed = _listed(run, "--environment", environment)
        assert key_id in listed
        assert {key["environment"] for key in listed.values()} == {environment}
        for other in set(made) - {environment}:
            _failed(run("key", "revoke", key_id, "--env", other, "--json"), "not_found")
        assert run("key", "revoke", key_id, "--env", environment).exit_code == 0


def test_a_key_of_the_callers_own_acts_in_its_own_environment_only(
    online: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The owner of the home is let in everywhere; who comes with a key is not."""
    key = _created(online, "admin", "--env", "staging", "--scope", "admin", "--scope", "infer")

    def run(*words: str) -> Any:
        monkeypatch.setenv("FREEHOLD_API_KEY", key["key"])
        return CliRunner().invoke(app, words)

    assert _created(run, "made")["environment"] == "staging"
    for other in ("dev", "prod"):
        refused = run("key", "create", "x", "--env", other, "--json")
        assert "belongs to staging" in _failed(refused, "insufficient_permissions")
    _failed(run("key", "list", "--tenant", "nobody", "--json"), "not_found")
    assert run("key", "list", "--tenant", "default").exit_code == 0


def test_a_key_is_replaced_once_however_often_that_is_asked(run: Run) -> None:
    first = _created(run, "old", "--network", "127.0.0.0/8", "--model", "tiny")
    words = ("key", "rotate", first["id"], "--grace", "90m", "--token", "t1", "--json")
    new = json.loads(run(*words).stdout)
    assert set(new) == _FIELDS | {"key"}
    assert new["id"] != first["id"]
    assert (new["name"], new["networks"], new["models"]) == ("old", ["127.0.0.0/8"], ["tiny"])
    again = json.loads(run(*words).stdout)
    assert again == {name: value for name, value in new.items() if name != "key"}
    assert json.loads(run("key", "rotate", first["id"], "--json").stdout) == again
    other = ("key", "rotate", first["id"], "--token", "t2", "--json")
    assert new["id"] in _failed(run(*other), "conflict")
    assert "by an earlier call" in run("key", "rotate", first["id"]).stdout

    old = _listed(run)[first["id"]]
    assert old["replaced_by"] == new["id"]
    left = datetime.fromisoformat(old["expires_at"]) - datetime.now(UTC)
    assert timedelta(minutes=80) < left <= timedelta(minutes=90)
    assert [each["name"] for each in _listed(run).values()].count("old") == 2
    run("key", "revoke", new["id"])
    _failed(run("key", "rotate", new["id"], "--json"), "conflict")
    _failed(run("key", "rotate", "key_none", "--json"), "not_found")


def test_both_keys_work_for_the_grace_and_then_the_new_one(
    online: Run, served: Installation
) -> None:
    old = _created(online, "old")
    new = json.loads(online("key", "rotate", old["id"], "--json").stdout)
    assert [_status(served, key["key"]) for key in (old, new)] == [200, 200]
    last = json.loads(online("key", "rotate", new["id"], "--grace", "0", "--json").stdout)
    assert [_status(served, key["key"]) for key in (old, new, last)] == [200, 401, 200]


def test_a_key_is_bound_to_its_networks_whatever_a_header_says(
    online: Run, served: Installation
) -> None:
    for network, expected in (("127.0.0.0/8", 200), ("192.0.2.0/24", 403)):
        key = _created(online, "bound", "--network", network)["key"]
        headers = {"authorization": f"Bearer {key}", "x-forwarded-for": "192.0.2.7"}
        answer = httpx2.get(f"{served.url}/v1/models", headers=headers, trust_env=False)
        assert answer.status_code == expected


@pytest.mark.parametrize("grace", ["soon", "-1h", "1y", "1.5h", ""])
def test_a_grace_that_is_no_duration_is_wrong_use(offline: Run, grace: str) -> None:
    assert offline("key", "rotate", "key_x", f"--grace={grace}").exit_code == 2


@pytest.mark.parametrize("network", ["10.0.0.0/33", "home", "::1/129", "10.0.0"])
def test_a_network_that_is_none_is_told(run: Run, network: str) -> None:
    ended = run("key", "create", "x", "--network", network, "--json")
    assert "is no network" in _failed(ended, "invalid_value")


def test_a_new_home_has_no_keys_and_says_how_to_make_one(offline: Run, tmp_path: Path) -> None:
    assert _listed(offline) == {}
    assert "freehold key create" in offline("key", "list").stdout
    owner_only = {path for path in (tmp_path / "home").rglob("*") if path.is_dir()}
    assert {path.stat().st_mode & 0o077 for path in owner_only} == {0}


def test_two_commands_at_once_do_not_both_write(offline: Run, tmp_path: Path) -> None:
    with Home(tmp_path / "home").lock():
        _failed(offline("key", "create", "x", "--json"), "home_in_use")
    _created(offline, "x")


def test_a_key_made_before_the_first_start_works_and_the_admin_key_is_made_as_well(
    tmp_path: Path, commands: Callable[[Path], Run]
) -> None:
    run = commands(tmp_path)
    command = [sys.executable, "-m", "freehold.cli.main", "key", "create", "early", "--json"]
    ended = subprocess.run(
        command, env={**os.environ, "FREEHOLD_HOME": str(tmp_path)}, capture_output=True, check=True
    )
    early = json.loads(ended.stdout)
    stock_tiny(tmp_path)
    gateway = start(tmp_path, "--engine", "fake", "--model", "tiny")
    try:
        assert "shown this once" in gateway.printed
        assert _status(gateway, early["key"]) == 200
        assert _status(gateway, gateway.key, "/admin/v1/keys") == 200
        assert set(_listed(run)) > {early["id"]}
    finally:
        gateway.stop()
    for path in tmp_path.rglob("*"):
        if path.is_file() and path.suffix != ".gguf":
            assert path.stat().st_mode & 0o077 == 0, path
