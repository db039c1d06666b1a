"""`freehold route`, on a running gateway and on a resting home, and from one to the other."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import pytest

from freehold.catalog.pull import pull
from freehold.catalog.store import ModelStore
from freehold.engines import registry
from freehold.engines.fake import tokens_for
from tests.catalog.making import U32, decoder_bytes, key, peft_folder, write
from tests.cli.conftest import Run
from tests.cli.spoken import failed
from tests.cli.test_adapter import Place, place, resting
from tests.installation import Installation

__all__ = ["place"]  # the fixture
_FIELDS = {
    "id", "alias", "environment", "engine", "base", "base_digest", "adapter", "adapter_digest",
    "managed", "created_at", "passed_by", "promotion", "candidate",
}  # fmt: skip


def _answer(gateway: Installation, model: str) -> tuple[int, Any]:
    answer = httpx2.post(
        f"{gateway.url}/v1/chat/completions", timeout=60, trust_env=False,
        json={"model": model, "messages": [{"role": "user", "content": "hello"}]},
        headers={"authorization": f"Bearer {gateway.key}"},
    )  # fmt: skip
    body = answer.json()
    return answer.status_code, body["choices"][0]["message"]["content"] if "choices" in body else ""


def _said(adapter: str | None) -> str:
    return "".join(tokens_for("hello", 16, adapter))


@pytest.fixture
def adapter(place: Place, tmp_path: Path) -> Any:
    folder = str(peft_folder(tmp_path / "adapter", 21))
    added = place.said("adapter", "add", folder, "--base", "tiny", "--name", "routed")
    yield added["digest"]
    place.said("adapter", "rm", "routed")


def test_a_route_goes_through_its_whole_life(place: Place, adapter: str) -> None:
    words = ("route", "set", "live", "--base", "tiny")
    bare = place.said(*words)
    assert set(bare) == _FIELDS
    assert (bare["alias"], bare["base"], bare["adapter"], bare["managed"]) == (
        "live", "tiny", None, False
    )  # fmt: skip
    for reference in ("routed", adapter):
        moved = place.said(*words, "--adapter", reference)
        assert (moved["adapter"], moved["adapter_digest"]) == ("routed", adapter)
        assert place.said("route", "show", "live") == moved
    assert moved in place.said("route", "list")
    assert "routed" in place.run("route", "list").stdout
    assert adapter in place.run("route", "show", "live").stdout
    refused = failed(place.run("adapter", "rm", "routed", "--json"), "conflict")
    assert "these routes name: live" in refused

    assert place.said("route", "rm", "live") == {"removed": "live"}
    failed(place.run("route", "show", "live", "--json"), "not_found")
    failed(place.run("route", "rm", "live", "--json"), "not_found")


def test_what_is_refused_changes_nothing(place: Place, adapter: str) -> None:
    place.said("route", "set", "kept", "--base", "tiny")
    before = place.said("route", "list")
    for code, words in {
        "model_not_found": ("kept", "--base", "none"),
        "not_found": ("kept", "--base", "tiny", "--adapter", "no-such-one"),
        "invalid_value": ("not an alias!", "--base", "tiny"),
    }.items():
        failed(place.run("route", "set", *words, "--json"), code)
    for alias in ("../../v1/models", "..", "%2e%2e", "a/b", "none"):
        failed(place.run("route", "rm", alias, "--json"), "not_found")
    assert place.said("route", "list") == before
    place.said("route", "rm", "kept")


def test_a_running_gateway_follows_at_once(
    online: Run, served: Installation, tmp_path: Path
) -> None:
    place = Place(online, served.home)
    folder = str(peft_folder(tmp_path / "adapter", 22))
    digest = place.said("adapter", "add", folder, "--base", "tiny", "--name", "at-once")["digest"]
    assert _answer(served, "org/alias:1")[0] == 404
    place.said("route", "set", "org/alias:1", "--base", "tiny", "--adapter", "at-once")
    assert _answer(served, "org/alias:1") == (200, _said(digest))
    place.said("route", "set", "org/alias:1", "--base", "tiny")
    assert _answer(served, "org/alias:1") == (200, _said(None))
    place.said("route", "rm", "org/alias:1")
    assert _answer(served, "org/alias:1")[0] == 404

    # The name of a served model is an alias like any other, and comes back.
    place.said("route", "set", "tiny", "--base", "tiny", "--adapter", "at-once")
    assert _answer(served, "tiny") == (200, _said(digest))
    place.said("route", "rm", "tiny")
    assert _answer(served, "tiny") == (200, _said(None))
    assert "is served" in failed(place.run("route", "rm", "tiny", "--json"), "conflict")
    place.said("adapter", "rm", "at-once")


def test_routes_that_were_set_at_rest_are_served_by_the_next_start(
    tmp_path: Path, commands: Callable[[Path], Run], begin: Callable[..., Installation]
) -> None:
    place = resting(tmp_path / "home", commands)
    folder = str(peft_folder(tmp_path / "adapter", 23))
    digest = place.said("adapter", "add", folder, "--base", "tiny", "--name", "a")["digest"]
    place.said("route", "set", "live", "--base", "tiny", "--adapter", "a")
    for _ in range(2):
        gateway = begin(place.home, "--engine", "fake", "--model", "tiny")
        assert _answer(gateway, "live") == (200, _said(digest))
        assert _answer(gateway, "tiny") == (200, _said(None))
        assert {each["alias"] for each in place.said("route", "list")} == {"live", "tiny"}
        gateway.stop()


def test_an_engine_without_adapters_refuses_and_names_those_with(
    tmp_path: Path, commands: Callable[[Path], Run]
) -> None:
    place = resting(tmp_path / "home", commands)
    embeds = decoder_bytes(key("llama.pooling_type", U32, 1))  # the fake has no adapters then
    file = write(tmp_path / "embeds.gguf", embeds)
    pull(ModelStore(place.home), place.home, f"file:{file}", progress=lambda *_: None)
    folder = str(peft_folder(tmp_path / "adapter", 24))
    place.said("adapter", "add", folder, "--base", "embeds", "--name", "a")
    words = ("route", "set", "live", "--base", "embeds", "--adapter", "a", "--json")
    said = failed(place.run(*words), "unsupported_parameter")
    assert "The engine fake cannot" in said
    assert ", ".join(registry.with_adapters()) in said
    place.said("route", "set", "live", "--base", "embeds")
