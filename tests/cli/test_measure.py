"""`freehold model measure`: what formats lose, on the card afterwards."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from freehold.catalog.pull import pull
from freehold.catalog.store import ModelStore
from freehold.core.model import Task
from tests.catalog.making import gguf_bytes, write
from tests.cli.conftest import Run
from tests.installation import Installation

TINY = Path(__file__).parents[1] / "engines/openvino/reference/tiny/llama/llama-Q8_0.gguf"
CHOICES = [
    ["float32", "f32"], ["int8", "u8"], ["int8", "bf16"], ["int4", "u8"], ["int4", "bf16"],
]  # fmt: skip


@pytest.fixture
def home(tmp_path: Path) -> Path:
    home = tmp_path / "home"
    pull(
        ModelStore(home),
        home,
        f"file:{TINY}",
        progress=lambda *_: None,
        name="tiny",
        accept_licence="made by this test",
    )
    return home


def test_the_loss_of_every_choice_is_measured_and_stays_on_the_card(
    home: Path, commands: Callable[[Path], Run], begin: Callable[..., Installation]
) -> None:
    run = commands(home)
    assert "`freehold model measure tiny`" in run("model", "show", "tiny").stdout

    ended = run("model", "measure", "tiny", "--tokens", "512", "--json")

    assert ended.exit_code == 0, ended.output
    told = json.loads(ended.stdout)
    assert [[each["weights"], each["kv_cache"]] for each in told["trials"]] == CHOICES
    assert told["engine"] == "openvino"
    assert told["scored_tokens"] == 448
    for trial in told["trials"]:
        beyond = trial["mean_kl_nats"] > told["quality_bound_kl_nats"]
        assert trial["exceeds_bound"] is beyond
    assert told["trials"][0]["mean_kl_nats"] == 0 < told["trials"][1]["mean_kl_nats"]
    assert told["trials"][3]["exceeds_bound"]  # four bits of noise are other noise
    assert json.loads(run("model", "show", "tiny", "--json").stdout)["quality"] == told
    shown = run("model", "show", "tiny").stdout
    assert "over 448 tokens" in shown
    assert "loses more than 0.05 nats" in shown
    assert "Warning: beyond the bound: int4 with u8, int4 with bf16." in shown
    four_bits = {"FREEHOLD_ENGINES__OPENVINO__WEIGHTS": "int4"}
    warned = begin(home, "--model", "tiny", variables=four_bits).printed
    lost = told["trials"][3]["mean_kl_nats"]
    assert f"int4 weights with kv_cache u8 lose {lost:.2f} nats, beyond the quality bound" in warned


def test_a_model_that_the_engine_cannot_compute_is_refused_in_a_sentence(
    tmp_path: Path, commands: Callable[[Path], Run]
) -> None:
    home = tmp_path / "home"
    source = write(tmp_path / "hollow.gguf", gguf_bytes())
    pull(ModelStore(home), home, f"file:{source}", progress=lambda *_: None)

    ended = commands(home)("model", "measure", "hollow", "--json")

    assert ended.exit_code == 1
    error = json.loads(ended.stdout)["error"]
    assert error["code"] in ("file_refused", "file_invalid")
    assert "Traceback" not in ended.output
    assert ModelStore(home).get("hollow").quality is None


def test_only_models_that_make_text_are_measured(
    home: Path, commands: Callable[[Path], Run]
) -> None:
    store = ModelStore(home)
    store.add(dataclasses.replace(store.get("tiny"), task=Task.EMBEDDINGS))

    ended = commands(home)("model", "measure", "tiny")

    assert ended.exit_code == 1
    assert "makes no text" in ended.stderr


def test_a_changed_file_is_not_measured(home: Path, commands: Callable[[Path], Run]) -> None:
    blob = next((home / "blobs" / "sha256").iterdir())
    blob.chmod(0o600)
    blob.write_bytes(blob.read_bytes()[:-1])

    ended = commands(home)("model", "measure", "tiny", "--json")

    assert json.loads(ended.stdout)["error"]["code"] == "digest_mismatch"


def test_too_few_tokens_are_wrong_use(home: Path, commands: Callable[[Path], Run]) -> None:
    assert commands(home)("model", "measure", "tiny", "--tokens", "127").exit_code == 2


@contextmanager
def _measuring(home: Path) -> Iterator["subprocess.Popen[str]"]:
    """The command, from when its measuring process has begun."""
    with subprocess.Popen(
        [sys.executable, "-m", "freehold.cli.main", "model", "measure", "tiny"],
        env={**os.environ, "FREEHOLD_HOME": str(home)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr is not None
        assert any("Preparing float32" in line for line in process.stderr)
        yield process


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_whatever_ends_the_command_ends_the_measuring_process(home: Path, number: int) -> None:
    with _measuring(home) as process:
        (child,) = psutil.Process(process.pid).children()

        process.send_signal(number)
        process.wait(60)

        assert psutil.wait_procs([child], timeout=60)[1] == []
    assert ModelStore(home).get("tiny").quality is None


def test_a_measuring_process_that_is_killed_is_told_in_a_sentence(home: Path) -> None:
    with _measuring(home) as process:
        (child,) = psutil.Process(process.pid).children()

        child.kill()
        _, told = process.communicate(timeout=60)

    assert process.returncode == 1
    assert "Error: The measuring process was killed" in told
    assert "Traceback" not in told
    assert ModelStore(home).get("tiny").quality is None


@pytest.mark.slow
def test_a_real_model_keeps_its_quality_in_eight_bits(installation: Installation) -> None:
    """A quick look: the first 128 tokens, beside the gateway that serves the model."""
    ended = subprocess.run(
        [sys.executable, "-m", "freehold.cli.main", "model", "measure", "smollm2-135m-instruct",
         "--tokens", "128", "--json"],
        env=installation.environment,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )  # fmt: skip
    shown = installation.run("model", "show", "smollm2-135m-instruct", "--json")

    assert ended.returncode == 0, ended.stderr
    told = json.loads(ended.stdout)
    assert json.loads(shown.stdout)["quality"] == told
    by_choice = {(each["weights"], each["kv_cache"]): each for each in told["trials"]}
    full = by_choice["float32", "f32"]
    assert 5 < full["perplexity"] < 100
    for kv_cache in ("u8", "bf16"):
        eight, four = by_choice["int8", kv_cache], by_choice["int4", kv_cache]
        assert not eight["exceeds_bound"]
        assert eight["top1_agreement"] > 0.85
        assert four["weights_bytes"] < eight["weights_bytes"] < 0.3 * full["weights_bytes"]
