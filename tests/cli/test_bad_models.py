"""`freehold model pull` of files that are no models, and onto disks that are full: one
sentence, code 1, and a store that holds what it held."""

import json
import os
import random
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from freehold.catalog.store import ModelStore
from freehold.cli.main import app
from tests.catalog.making import gguf_bytes, tensor, write

Run = Callable[..., Result]
_MIB = 2**20


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


@pytest.fixture
def run(home: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setenv("FREEHOLD_HOME", str(home))

    def run(*words: str) -> Result:
        return CliRunner().invoke(app, words)

    return run


def _stored(home: Path) -> set[str]:
    """Every file of models and of what was on the way to be one."""
    return {
        path.name
        for folder in ("models", "blobs", "cache")
        for path in (home / folder).rglob("*")
        if path.is_file() and path.name != ".lock"
    }


def _told(ended: Result) -> str:
    assert isinstance(ended.exception, SystemExit), ended.exception
    assert ended.exit_code == 1
    assert ended.stdout == ""
    said = [line for line in ended.stderr.splitlines() if "Error:" in line]
    assert len(said) == 1
    assert "Traceback" not in ended.stderr
    return said[0]


GOOD = gguf_bytes()
BAD = {
    "nothing": (b"", "it is cut short"),
    "its magic alone": (b"GGUF", "it is cut short"),
    "half of it": (GOOD[: len(GOOD) // 2], "it is cut short"),
    "all but a byte": (GOOD[:-1], "cut short"),
    "a zip": (b"PK\3\4" + bytes(200), "it does not begin with GGUF"),
    "a script": (b"#!/bin/sh\ntouch pwned\n", "it does not begin with GGUF"),
    "a billion keys": (gguf_bytes(key_count=10**9), "is not a sound GGUF file"),
    "a tensor past the end": (
        gguf_bytes(tensors=[tensor("t", [64], 0, 2**40)]), "is not a sound GGUF file"
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", BAD)
def test_a_file_that_is_no_model_is_refused(what: str, run: Run, home: Path) -> None:
    content, sentence = BAD[what]
    reference = f"file:{write(home.parent / 'm.gguf', content)}"
    for keeps in ([], ["--keep-format"]):
        assert sentence in _told(run("model", "pull", reference, *keeps))
    asked = run("model", "pull", reference, "--json")
    error = json.loads(asked.stdout)["error"]
    assert (asked.exit_code, error["code"]) == (1, "file_invalid")
    assert sentence in error["message"]
    assert _stored(home) == set()


def test_any_bit_of_a_header_may_flip(run: Run, home: Path) -> None:
    """What comes of it is a sound header or a refusal, and never anything else."""
    chance = random.Random(7)
    refused = 0
    header = len(GOOD) - 256 - 128
    for number in range(120):
        content = bytearray(GOOD)
        content[chance.randrange(header)] ^= 1 << chance.randrange(8)
        file = write(home.parent / f"flip-{number}.gguf", bytes(content))
        ended = run("model", "pull", f"file:{file}", "--keep-format", "--accept-licence", "a test")
        assert ended.exit_code in (0, 1), ended.exception
        if ended.exit_code:
            assert f"flip-{number}.gguf" in _told(ended)
            refused += 1
    cards = ModelStore(home).list()
    assert refused > 60
    assert len(cards) == 120 - refused
    assert {path.name for path in (home / "blobs" / "sha256").iterdir()} == {
        card.digest.removeprefix("sha256:") for card in cards
    }


def test_a_file_that_the_engine_cannot_load_is_refused(run: Run, home: Path) -> None:
    reference = f"file:{write(home.parent / 'm.gguf', GOOD)}"
    assert "cannot load this model: pull another file" in _told(run("model", "pull", reference))
    assert _stored(home) == set()


@pytest.fixture
def small_disk(home: Path) -> Iterator[Callable[[], None] | None]:
    """A disk of 3 MiB below the home. Who may not mount one gets a bound on the size of
    files instead, which makes the same calls fail, to be set in the child."""
    home.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=3m,mode=700", "tmpfs", str(home)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        yield lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (_MIB, _MIB))
        return
    with ExitStack() as stack:
        stack.callback(subprocess.run, ["umount", str(home)], check=True)
        yield None


def test_a_full_disk_ends_a_pull_and_harms_nothing(
    small_disk: Callable[[], None] | None, home: Path, tmp_path: Path
) -> None:
    def pull(name: str, *more: str) -> "subprocess.CompletedProcess[str]":
        words = ["model", "pull", f"file:{tmp_path / name}", "--keep-format", *more]
        return subprocess.run(
            [sys.executable, "-m", "freehold.cli.main", *words],
            env={**os.environ, "FREEHOLD_HOME": str(home)},
            preexec_fn=small_disk,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    write(tmp_path / "small.gguf", GOOD)
    big = [tensor("t", [_MIB], 0, 0)]
    write(tmp_path / "big.gguf", gguf_bytes(tensors=big, data_bytes=4 * _MIB))
    assert pull("small.gguf").returncode == 0
    before = _stored(home)

    told = pull("big.gguf")
    asked = pull("big.gguf", "--json")

    assert (told.returncode, asked.returncode) == (1, 1)
    assert "is full: free some space and try again" in told.stderr
    assert "Traceback" not in told.stderr
    assert json.loads(asked.stdout)["error"]["code"] == "disk_full"
    assert _stored(home) == before
    (card,) = ModelStore(home).list()
    ModelStore(home).verify(card, lambda *_: None)
    assert pull("small.gguf", "--name", "another").returncode == 0
