"""`freehold tenant`, on a running gateway and on a resting home."""

import json
from collections.abc import Callable
from pathlib import Path
from uuid import uuid4

import httpx2
import pytest

from tests.catalog.making import peft_folder
from tests.cli.conftest import Run
from tests.cli.spoken import failed, said
from tests.cli.test_adapter import Place, place, resting
from tests.installation import Installation

__all__ = ["place"]  # the fixture
_FIELDS = {
    "id", "name", "isolation", "state", "created_at", "disabled_at", "audit_content",
    "feedback", "on_departure",
}  # fmt: skip


@pytest.fixture
def name() -> str:
    return f"acme-{uuid4().hex[:8]}"


def _status(gateway: Installation, key: str) -> tuple[int, str]:
    answer = httpx2.get(
        f"{gateway.url}/v1/models", headers={"authorization": f"Bearer {key}"}, trust_env=False
    )
    body = answer.json()
    return answer.status_code, body["error"]["code"] if "error" in body else ""


def test_a_tenant_lives_from_its_making_to_its_end(run: Run, name: str) -> None:
    made = said(run, "tenant", "create", name)
    assert set(made) == _FIELDS
    assert made["id"].startswith("ten_")
    assert (made["isolation"], made["state"], made["disabled_at"]) == ("shared", "active", None)
    assert made in said(run, "tenant", "list")
    for reference in (name, made["id"]):
        assert said(run, "tenant", "show", reference) == made | {"holdings": []}
    assert "choose another" in failed(run("tenant", "create", name, "--json"), "conflict")

    changed = said(run, "tenant", "set", name, "--isolation", "dedicated")
    assert changed == made | {"isolation": "dedicated"}
    chosen = said(run, "tenant", "set", name, "--on-departure", "suspend")
    assert chosen == changed | {"on_departure": "suspend"}
    assert "suspend" in run("tenant", "show", name).stdout
    assert said(run, "tenant", "set", name, "--on-departure", "default") == changed
    rated = said(run, "tenant", "set", name, "--feedback", "on")
    assert rated == changed | {"feedback": True}
    assert said(run, "tenant", "set", name, "--feedback", "off") == changed
    disabled = said(run, "tenant", "disable", name)
    assert disabled["state"] == "disabled"
    assert said(run, "tenant", "disable", name) == disabled
    assert said(run, "tenant", "enable", name) == changed
    assert name in run("tenant", "list").stdout
    assert "dedicated" in run("tenant", "show", name).stdout

    assert said(run, "tenant", "rm", name) == changed | {"holdings": []}
    failed(run("tenant", "show", name, "--json"), "not_found")
    assert name not in {each["name"] for each in said(run, "tenant", "list")}


def test_a_tenant_with_something_left_goes_only_by_force_and_says_what_goes(
    place: Place, tmp_path: Path, name: str
) -> None:
    run = place.run
    said(run, "tenant", "create", name)
    blobs = place.blobs
    mine = ("--tenant", name, "--env", "prod")
    folder = str(peft_folder(tmp_path / "adapter", 31))
    place.said("adapter", "add", folder, "--base", "tiny", "--name", "own", *mine)
    forced = ("--force", "a test", "--accept-licence", "made for it")
    place.said("route", "set", "bot", "--base", "tiny", "--adapter", "own", *forced, *mine)
    key = place.said("key", "create", "a key", *mine)
    assert [each["name"] for each in place.said("adapter", "list", *mine)] == ["own"]
    assert place.said("route", "show", "bot", *mine)["adapter"] == "own"
    for elsewhere in (("--tenant", name), ("--env", "prod"), ()):
        assert "own" not in {each["name"] for each in place.said("adapter", "list", *elsewhere)}
        failed(run("route", "show", "bot", *elsewhere, "--json"), "not_found")
        assert key["id"] not in {each["id"] for each in place.said("key", "list", *elsewhere)}
    assert place.said("usage", *mine) == []

    refused = failed(run("tenant", "rm", name, "--json"), "conflict")
    assert "1 adapters, 1 keys, 1 routes" in refused
    ended = run("tenant", "rm", name)
    assert ended.exit_code == 1
    for shown in ("own", "bot", "a key", "prod"):
        assert shown in ended.stdout, "listed first"
    removed = said(run, "tenant", "rm", name, "--force")
    told = {(each["kind"], each["name"], each["environment"]) for each in removed["holdings"]}
    assert told == {("adapter", "own", "prod"), ("route", "bot", "prod"), ("key", "a key", "prod")}
    assert place.blobs == blobs, "the files went with their last adapter"
    failed(run("route", "list", *mine, "--json"), "not_found")


def test_a_running_gateway_lets_a_disabled_tenant_in_no_more(
    online: Run, served: Installation, name: str
) -> None:
    said(online, "tenant", "create", name)
    key = said(online, "key", "create", "k", "--tenant", name)["key"]
    assert _status(served, key) == (200, "")
    said(online, "tenant", "disable", name)
    assert _status(served, key) == (403, "tenant_disabled")
    said(online, "tenant", "enable", name)
    assert _status(served, key) == (200, "")
    said(online, "tenant", "rm", name, "--force")
    assert _status(served, key) == (401, "invalid_api_key")


def test_the_tenant_of_the_operators_stays(run: Run) -> None:
    for words in (("disable", "default"), ("rm", "default"), ("rm", "default", "--force")):
        assert "operate" in failed(run("tenant", *words, "--json"), "conflict")
    assert said(run, "tenant", "show", "default")["state"] == "active"


@pytest.mark.parametrize(
    "bad", ["", "Acme", "ten_01M8A67BRP21BRZ4513N1GB647", "a b", "x" * 64, "-a"]
)
def test_what_cannot_be_a_name_is_told(offline: Run, bad: str) -> None:
    failed(offline("tenant", "create", "--json", "--", bad), "invalid_value")


@pytest.mark.parametrize("noun", ["key", "route", "adapter"])
def test_a_tenant_that_is_not_there_is_told(run: Run, noun: str) -> None:
    message = failed(run(noun, "list", "--tenant", "nobody", "--json"), "not_found")
    assert "nobody" in message
    failed(run("tenant", "set", "nobody", "--isolation", "weights", "--json"), "not_found")
    failed(run("tenant", "rm", "nobody", "--json"), "not_found")


@pytest.mark.parametrize(
    "words",
    [("create",), ("set", "default"), ("set", "default", "--isolation", "far"), ("rm",), ()],
)
def test_wrong_use_ends_with_two(offline: Run, words: tuple[str, ...]) -> None:
    ended = offline("tenant", *words)
    assert ended.exit_code == 2
    assert "Usage" in ended.output


def test_what_was_set_at_rest_is_served_by_the_next_start(
    tmp_path: Path, commands: Callable[[Path], Run], begin: Callable[..., Installation]
) -> None:
    """A tenant with an engine process of its own, beside the one that the others share."""
    at_rest = resting(tmp_path / "home", commands)
    at_rest.said("tenant", "create", "acme", "--isolation", "weights")
    at_rest.said("route", "set", "bot", "--base", "tiny", "--tenant", "acme", "--env", "prod")
    key = at_rest.said("key", "create", "k", "--tenant", "acme", "--env", "prod")["key"]
    left = at_rest.home / "cache" / "tenants" / "ten_of_before" / "weights"
    left.mkdir(parents=True)
    gateway = begin(at_rest.home, "--engine", "fake", "--model", "tiny")
    assert not left.parent.exists(), "of a gateway that was killed"
    body = {"model": "bot", "messages": [{"role": "user", "content": "hello"}]}
    answer = httpx2.post(
        f"{gateway.url}/v1/chat/completions", json=body, timeout=60, trust_env=False,
        headers={"authorization": f"Bearer {key}"},
    )  # fmt: skip
    assert answer.status_code == 200, answer.text
    pools = json.loads(at_rest.run("status", "--json").stdout)["pools"]
    own = [pool["name"] for pool in pools if "@ten_" in pool["name"]]
    assert [name.endswith("+weights") for name in own] == [True]
    at_rest.said("tenant", "rm", "acme", "--force")
    pools = json.loads(at_rest.run("status", "--json").stdout)["pools"]
    assert [pool["name"] for pool in pools] == ["tiny"]
    assert not list((at_rest.home / "cache" / "tenants").iterdir())
