"""`freehold model` as a person or a script runs it: words, JSON and exit codes."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from freehold.cli.model import app
from tests.catalog.making import gguf_bytes, keys, write
from tests.cli.spoken import failed, said

Run = Callable[..., Result]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setenv("FREEHOLD_HOME", str(tmp_path / "home"))

    def run(*words: str) -> Result:
        return CliRunner().invoke(app, words)

    return run


def _file(tmp_path: Path, licence: str | None = "apache-2.0") -> str:
    return f"file:{write(tmp_path / 'tiny.gguf', gguf_bytes(keys(licence=licence)))}"


def test_a_model_goes_through_its_whole_life(run: Run, tmp_path: Path) -> None:
    pulled = run("pull", _file(tmp_path), "--keep-format", "--json")
    card = json.loads(pulled.stdout)
    listed = json.loads(run("list", "--json").stdout)
    shown = json.loads(run("show", card["digest"], "--json").stdout)
    verified = run("verify", "--json")
    removed = run("rm", "tiny", "--json")

    assert pulled.exit_code == verified.exit_code == removed.exit_code == 0
    assert listed == [card]
    assert shown == card
    assert json.loads(verified.stdout) == {"verified": ["tiny"]}
    assert json.loads(removed.stdout) == {"removed": "tiny"}
    assert json.loads(run("list", "--json").stdout) == []
    assert not list((tmp_path / "home" / "blobs" / "sha256").iterdir())


def test_a_model_that_is_served_stays(online: Run) -> None:
    card = said(online, "model", "list")[0]
    sentence = failed(online("model", "rm", card["name"], "--json"), "conflict")
    assert f"{card['name']} is being served: take it out of `models`" in sentence
    assert online("model", "verify").exit_code == 0


def test_people_see_the_licence_the_digest_and_the_reason(run: Run, tmp_path: Path) -> None:
    refused = run("pull", _file(tmp_path, "cc-by-nc-4.0"), "--keep-format")
    assert refused.exit_code == 1
    assert "CC-BY-NC-4.0, which forbids commercial use" in refused.stderr
    assert "Traceback" not in refused.stderr

    pulled = run(
        "pull", _file(tmp_path, "cc-by-nc-4.0"), "--keep-format", "--accept-licence", "a study"
    )
    assert pulled.exit_code == 0
    assert "CC-BY-NC-4.0, accepted: a study" in pulled.stdout
    assert "sha256:" in pulled.stdout
    assert "CC-BY-NC-4.0" in run("list").stdout


def test_a_changed_file_fails_verification(run: Run, tmp_path: Path) -> None:
    run("pull", _file(tmp_path), "--keep-format")
    blob = next((tmp_path / "home" / "blobs" / "sha256").iterdir())
    blob.chmod(0o600)
    content = bytearray(blob.read_bytes())
    content[-5] ^= 4
    blob.write_bytes(content)

    ended = run("verify", "tiny", "--json")

    assert ended.exit_code == 1
    assert json.loads(ended.stdout)["error"]["code"] == "digest_mismatch"


@pytest.mark.parametrize(
    ("words", "code"),
    [(("show", "none"), 1), (("rm", "../x"), 1), (("pull", "nonsense"), 1), (("pull",), 2),
     (("show", "a", "--what"), 2), (("unknown",), 2), (("pull", "file:/none.gguf"), 1)],
)  # fmt: skip
def test_exit_codes_tell_failure_from_wrong_use(
    words: tuple[str, ...], code: int, run: Run
) -> None:
    ended = run(*words)

    assert ended.exit_code == code
    assert "Traceback" not in ended.stderr


def test_the_catalog_is_listed_with_licences_and_sources(run: Run) -> None:
    models = json.loads(run("list", "--known", "--json").stdout)

    assert any(model["name"] == "smollm2-135m-instruct" and model["smoke"] for model in models)
    table = run("list", "--known").stdout
    assert "LicenseRef-Llama-3.1" in table
    assert "hf:Qwen/" in table


def test_help_names_every_verb(run: Run) -> None:
    text = run("--help").stdout
    for verb in ("pull", "list", "show", "rm", "verify"):
        assert verb in text
