"""`freehold adapter`, on a running gateway and on a resting home: the same words, the same
checks, and files that go with their last adapter."""

import json
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from freehold.catalog.bundle import new_key, signed
from freehold.catalog.parity import tokenizer_digest
from freehold.catalog.store import ModelStore
from freehold.cli.main import app
from freehold.core.manifest import MANIFEST
from tests.catalog.making import peft_folder
from tests.cli.conftest import Run
from tests.cli.spoken import failed
from tests.installation import Installation, stock_tiny

_FIELDS = {
    "id", "name", "environment", "digest", "base", "base_digest", "rank", "scaling",
    "target_modules", "size_bytes", "source", "added_at", "manifest",
}  # fmt: skip


@dataclass
class Place:
    run: Run
    home: Path

    @property
    def blobs(self) -> set[str]:
        return {path.name for path in (self.home / "blobs" / "sha256").iterdir()}

    def said(self, *words: str) -> Any:
        ended = self.run(*words, "--json")
        assert ended.exit_code == 0, ended.output
        return json.loads(ended.stdout)


@pytest.fixture(params=["online", "offline"])
def place(request: pytest.FixtureRequest, tmp_path: Path, commands: Callable[[Path], Run]) -> Place:
    """A home with the model `tiny`, which a gateway serves or nobody does."""
    if request.param == "online":
        served: Installation = request.getfixturevalue("served")
        return Place(commands(served.home), served.home)
    return resting(tmp_path / "home", commands)


def resting(home: Path, commands: Callable[[Path], Run]) -> Place:
    home.mkdir()
    stock_tiny(home)
    (home / "freehold.yaml").write_text("engines: {default: fake}\n")
    return Place(commands(home), home)


def _sha256(content: bytes) -> str:
    """By a tool that everybody has."""
    ended = subprocess.run(["sha256sum"], input=content, capture_output=True, check=True)
    return ended.stdout.decode().split()[0]


def test_an_adapter_goes_through_its_whole_life(place: Place, tmp_path: Path) -> None:
    before = place.blobs
    folder = peft_folder(tmp_path / "support-v1", 11)

    added = place.said("adapter", "add", str(folder), "--base", "tiny")
    assert set(added) == _FIELDS
    assert (added["name"], added["environment"], added["base"]) == ("support-v1", "dev", "tiny")
    assert (added["rank"], added["scaling"]) == (2, "2")
    assert added["target_modules"] == ["q_proj", "v_proj"]
    assert len(place.blobs - before) == 2
    assert folder.exists(), "it was copied"
    assert place.said("adapter", "add", str(folder), "--base", "tiny") == added
    assert added in place.said("adapter", "list")
    for reference in ("support-v1", added["digest"]):
        assert place.said("adapter", "show", reference) == added
    table = place.run("adapter", "list").stdout
    assert "support-v1" in table
    assert "q, v" in table
    assert added["digest"] in place.run("adapter", "show", "support-v1").stdout

    removed = place.said("adapter", "rm", "support-v1")
    assert removed == {"removed": "support-v1", "digest": added["digest"]}
    assert place.blobs == before
    assert place.said("adapter", "list") == []
    failed(place.run("adapter", "show", "support-v1", "--json"), "not_found")
    failed(place.run("adapter", "rm", added["digest"], "--json"), "not_found")


def _with_manifest(place: Place, folder: Path, **says: Any) -> Path:
    (card,) = (each for each in ModelStore(place.home).list() if each.name == "tiny")
    manifest = {
        "base_digest": card.digest, "tokenizer_digest": tokenizer_digest(card),
        "template_digest": card.chat_template_digest, "dataset_digest": "sha256:" + "d" * 64,
        "recipe": {"rank": 2}, "licences": {"dataset": "CC0-1.0"}, "made_with": {}, "job": "job_x",
    }  # fmt: skip
    (folder / MANIFEST).write_text(json.dumps(manifest | says))
    return folder


def test_an_adapter_with_a_manifest_says_where_it_comes_from_and_one_without_does_not(
    place: Place, tmp_path: Path
) -> None:
    folder = _with_manifest(place, peft_folder(tmp_path / "tuned", 21))
    added = place.said("adapter", "add", str(folder), "--base", "tiny")
    assert added["manifest"]["dataset_digest"] == "sha256:" + "d" * 64
    assert added["manifest"]["job"] is None, "nobody but a job here says that it made it"
    shown = place.run("adapter", "show", "tuned").stdout
    assert "dataset: CC0-1.0" in shown
    place.said("adapter", "add", str(peft_folder(tmp_path / "brought", 22)), "--base", "tiny")
    assert "unknown" in place.run("adapter", "show", "brought").stdout
    for name in ("tuned", "brought"):
        place.said("adapter", "rm", name)


@pytest.mark.parametrize(
    ("says", "code", "what"),
    [
        ({"base_digest": "sha256:" + "e" * 64}, "adapter_mismatch", "with the base sha256:eee"),
        ({"tokenizer_digest": "sha256:" + "e" * 64}, "adapter_mismatch", "with the tokenizer"),
        ({"template_digest": "sha256:" + "e" * 64}, "adapter_mismatch", "with the chat template"),
        ({"dataset_digest": "yes"}, "file_refused", "dataset_digest is no digest"),
        ({"recipe": []}, "file_refused", "recipe is no object"),
        ({"made_with": {"x": "y" * 70_000}}, "file_refused", "longer than 64 KiB"),
    ],
)
def test_an_adapter_of_another_base_tokenizer_or_template_is_refused(
    place: Place, tmp_path: Path, says: dict[str, Any], code: str, what: str
) -> None:
    folder = _with_manifest(place, peft_folder(tmp_path / "tuned", 23), **says)
    told = place.run("adapter", "add", str(folder), "--base", "tiny", "--json")
    failed(told, code)
    assert what in json.loads(told.stdout)["error"]["message"]
    assert place.said("adapter", "list") == []


def test_the_digest_is_the_one_that_any_tool_computes(place: Place, tmp_path: Path) -> None:
    folder = peft_folder(tmp_path / "by-hand", 12)
    names = ("adapter_config.json", "adapter_model.safetensors")
    lines = "".join(f"{name} sha256:{_sha256((folder / name).read_bytes())}\n" for name in names)
    added = place.said("adapter", "add", str(folder), "--base", "tiny", "--name", "by.hand")
    assert added["digest"] == f"sha256:{_sha256(lines.encode())}"
    place.said("adapter", "rm", "by.hand")


def test_the_rank_is_limited_by_the_engine_that_will_serve_the_base(
    tmp_path: Path, commands: Callable[[Path], Run]
) -> None:
    place = resting(tmp_path / "home", commands)
    folder = peft_folder(tmp_path / "rank-2", 14)
    words = ("adapter", "add", str(folder), "--base", "tiny", "--json")
    settings = place.home / "freehold.yaml"
    for engine, other in (("vllm", "openvino"), ("openvino", "vllm")):
        limits = f"{engine}: {{max_rank: 1}}, {other}: {{max_rank: 8}}"
        settings.write_text(f"engines: {{default: {engine}, {limits}}}\n")
        assert f"`engines.{engine}.max_rank`" in failed(place.run(*words), "file_refused")
    settings.write_text(f"engines: {{default: llama_cpp, {limits}}}\n")
    assert place.said(*words[:-1])["rank"] == 2


def test_what_is_refused_leaves_nothing_and_says_why(place: Place, tmp_path: Path) -> None:
    before = place.blobs

    def refused(code: str, *words: str, base: str = "tiny") -> str:
        said = failed(place.run("adapter", "add", *words, "--base", base, "--json"), code)
        assert place.blobs == before
        assert not list((place.home / "cache" / "adapters").glob("*"))
        return said

    good = peft_folder(tmp_path / "good", 13)
    refused("model_not_found", str(good), base="no-such-model")
    refused("source_not_found", str(tmp_path / "none"))
    refused("invalid_value", str(good), "--name", "../up")
    empty = tmp_path / "empty"
    empty.mkdir()
    assert "adapter_config.json" in refused("source_not_found", str(empty))
    for name in ("adapter_model.bin", "modeling_x.py", "weights.pt"):
        folder = peft_folder(tmp_path / f"with {name}", 13)
        (folder / name).write_bytes(b"\x80\x02}q\x00.")
        assert name in refused("file_refused", str(folder), "--name", "x")
    wide = peft_folder(tmp_path / "wide", 13, width=48)
    assert "should be" in refused("file_refused", str(wide))
    broken = peft_folder(tmp_path / "broken", 13)
    (broken / "adapter_model.safetensors").write_bytes(b"\xff" * 64)
    refused("file_invalid", str(broken))


def test_a_name_never_changes_what_it_stands_for(place: Place, tmp_path: Path) -> None:
    first, second = (str(peft_folder(tmp_path / str(seed), seed)) for seed in (14, 15))
    place.said("adapter", "add", first, "--base", "tiny", "--name", "mine")
    words = ("adapter", "add", second, "--base", "tiny", "--name", "mine", "--json")
    assert "mine is another adapter" in failed(place.run(*words), "conflict")
    words = ("adapter", "add", first, "--base", "tiny", "--name", "again", "--json")
    assert "stored already, as mine" in failed(place.run(*words), "conflict")
    place.said("adapter", "rm", "mine")


def test_an_environments_adapters_are_its_own(
    tmp_path: Path, commands: Callable[[Path], Run]
) -> None:
    place = resting(tmp_path / "home", commands)
    folder = str(peft_folder(tmp_path / "a", 16))
    for environment in ("prod", "staging"):
        words = ("--base", "tiny", "--environment", environment)
        assert place.said("adapter", "add", folder, *words)["environment"] == environment
    assert place.said("adapter", "list") == []
    assert len(place.said("adapter", "list", "--environment", "prod")) == 1
    place.said("adapter", "rm", "a", "--environment", "prod")
    assert len(place.blobs) == 3, "staging needs the files"
    place.said("adapter", "rm", "a", "--environment", "staging")
    assert len(place.blobs) == 1


def test_a_running_gateway_takes_them_for_a_keys_own_environment_and_for_its_owner_for_any(
    online: Run, served: Installation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = str(peft_folder(tmp_path / "a", 17))
    words = ("adapter", "add", folder, "--base", "tiny", "--env", "prod", "--json")
    monkeypatch.setenv("FREEHOLD_HOME", str(served.home))
    monkeypatch.setenv("FREEHOLD_API_KEY", served.key)
    refused = CliRunner().invoke(app, words)
    assert "belongs to dev" in failed(refused, "insufficient_permissions")
    assert online(*words).exit_code == 0
    assert online("adapter", "rm", "a", "--env", "prod").exit_code == 0


def test_an_adapter_is_signed_and_verified_in_the_terminal(place: Place, tmp_path: Path) -> None:
    place.said("adapter", "add", str(peft_folder(tmp_path / "plain", 31)), "--base", "tiny")
    unsigned = place.run("adapter", "verify", "plain")
    assert unsigned.exit_code == 1
    assert "plain does not hold: it is not signed." in unsigned.stdout
    signed = place.said("adapter", "sign", "plain")
    assert (signed["holds"], [each["by"] for each in signed["signatures"]]) == (
        True, ["this installation"]
    )  # fmt: skip
    shown = place.run("adapter", "verify", "plain")
    assert shown.exit_code == 0
    assert "signed by this installation" in shown.stdout
    assert "plain holds." in shown.stdout
    new = place.said("adapter", "rotate-key")
    listed = {each["id"]: each["signs"] for each in place.said("adapter", "keys")}
    assert listed[new["id"]]
    assert not listed[signed["signatures"][0]["key"]]
    assert place.run("adapter", "verify", "plain").exit_code == 0
    _revoked(place, signed["signatures"][0]["key"], new["id"])
    place.said("adapter", "rm", "plain")


def _revoked(place: Place, key: str, now: str) -> None:
    failed(place.run("adapter", "revoke-key", now, "--json"), "conflict")
    failed(place.run("adapter", "revoke-key", "ab" * 32, "--json"), "not_found")
    ahead = ("--since", "2999-01-31T12:00:00Z")
    failed(place.run("adapter", "revoke-key", key, *ahead, "--json"), "invalid_value")
    kept = place.run("adapter", "revoke-key", key[:16], "--since", "0s")
    assert f"The key {key[:16]} is revoked for what was recorded from" in kept.stdout
    assert "No adapter is kept out by that." in kept.stdout
    told = place.run("adapter", "revoke-key", key[:16])
    assert f"The key {key[:16]} is revoked." in told.stdout
    assert "answer 503: plain of default in dev (1 in all)" in told.stdout
    assert "`freehold adapter sign NAME`" in told.stdout
    failed(place.run("adapter", "revoke-key", key, "--since", "1h", "--json"), "conflict")
    assert "revoked" in place.run("adapter", "keys").stdout
    assert "which was revoked here" in place.run("adapter", "verify", "plain").stdout
    assert place.said("adapter", "sign", "plain")["holds"]


def test_a_signature_that_nobody_trusts_here_is_not_taken_in(place: Place, tmp_path: Path) -> None:
    folder = peft_folder(tmp_path / "theirs", 32)
    made = signed("theirs", {"adapter_config.json": "sha256:" + "0" * 64}, new_key())
    (tmp_path / "elsewhere.sig").write_text(made)
    words = ("adapter", "add", str(folder), "--base", "tiny", "--json")
    failed(place.run(*words, "--signature", str(tmp_path / "elsewhere.sig")), "file_refused")
    failed(place.run(*words, "--signature", str(tmp_path / "absent.sig")), "source_not_found")


def test_where_an_alias_leads_is_explained_in_a_breath_and_as_a_bom(
    place: Place, tmp_path: Path
) -> None:
    place.said("adapter", "add", str(peft_folder(tmp_path / "brought", 33)), "--base", "tiny")
    place.said("route", "set", "told", "--base", "tiny", "--adapter", "brought")
    shown = place.run("lineage", "told")
    assert shown.exit_code == 0, shown.output
    assert len(shown.stdout.splitlines()) < 20
    for words in ("brought sha256:", "signed by", "not known: added from outside", "tiny sha256:"):
        assert words in shown.stdout
    file = tmp_path / "bom.json"
    found = place.said("lineage", "told", "--bom", str(file))
    assert json.loads(file.read_bytes())["metadata"]["component"]["name"] == "brought"
    assert found["adapter"]["name"] == "brought"
    before = file.read_bytes()
    assert place.run("lineage", "told", "--bom", str(file)).exit_code == 0
    assert file.read_bytes() == before
    failed(place.run("lineage", "told", "--at", "2020-01-01", "--json"), "not_found")
    failed(place.run("lineage", "--json"), "invalid_value")
    failed(place.run("lineage", "told", "--bom", str(tmp_path), "--json"), "invalid_value")
    place.said("route", "rm", "told")
    place.said("adapter", "rm", "brought")
    failed(place.run("lineage", "told", "--json"), "not_found")
