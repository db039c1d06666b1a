import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from freehold.adapt.training import as_job
from freehold.adapt.training.recipe import LINEARS
from freehold.core import peft
from freehold.core.errors import Code, UserError
from freehold.core.safetensors import header_of
from freehold.engines import told_files
from tests.tune import told
from tests.tune.told import Told

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], bytes]:
    folder = tmp_path_factory.mktemp("undisturbed")
    return told.run(told.spec(folder), folder), told.weights(folder)


def test_it_learns_and_leaves_an_adapter_of_its_base(
    undisturbed: tuple[dict[str, Any], bytes],
) -> None:
    result, weights = undisturbed
    assert result["held_out_loss"] < 0.75 * result["held_out_loss_before"]
    assert {tensor.name.split(".")[-3] for tensor in header_of(weights, "")} == set(LINEARS)
    manifest = result["manifest"]
    assert manifest["base_digest"].startswith("sha256:")
    assert manifest["recipe"]["rank"] == 4
    assert {"tokenizer_digest", "template_digest", "dataset_digest"} <= manifest.keys()


def test_the_folder_is_complete_and_its_config_plain(tmp_path: Path) -> None:
    told.run(told.spec(tmp_path, epochs=1), tmp_path)
    folder = tmp_path / "work" / as_job.FOLDER
    config = json.loads((folder / peft.CONFIG).read_text())
    assert (config["peft_type"], config["r"]) == ("LORA", 4)
    kept = {path.name for path in (tmp_path / "work").iterdir()}
    assert kept == {as_job.FOLDER}


def test_the_same_seed_gives_the_same_bytes_and_another_others(
    undisturbed: tuple[dict[str, Any], bytes], tmp_path: Path
) -> None:
    found = []
    for seed in (0, 1):
        folder = tmp_path / str(seed)
        folder.mkdir()
        told.run(told.spec(folder, seed=seed), folder)
        found.append(told.weights(folder))
    assert found[0] == undisturbed[1]
    assert found[1] != undisturbed[1]


@pytest.mark.parametrize("step", [0, 1, 2, 3, 5])
def test_one_that_was_asked_to_end_goes_on_to_the_same_bytes(
    step: int, undisturbed: tuple[dict[str, Any], bytes], tmp_path: Path
) -> None:
    asked = told.spec(tmp_path)
    assert told.run(asked, tmp_path, Told(ends_at=step)) is None
    again = Told()
    result = told.run(asked, tmp_path, again)
    assert told.weights(tmp_path) == undisturbed[1]
    assert result["held_out_loss"] == undisturbed[0]["held_out_loss"]
    assert f"Goes on from step {step} of 6." in again.logs


_KILLED = """
import sys
from pathlib import Path
from freehold.adapt.training import loop
from tests.tune import told
loop._CHECKPOINT_EVERY_S = 0.0
class Slow(told.Told):
    def progress(self, **figures):
        print(figures["step"], flush=True)
asked = told.spec(Path(sys.argv[1]))
told.run(asked, Path(sys.argv[1]), Slow())
"""


def test_one_that_was_killed_goes_on_to_the_same_bytes(
    undisturbed: tuple[dict[str, Any], bytes], tmp_path: Path
) -> None:
    for after in (1, 3):
        process = subprocess.Popen(
            [sys.executable, "-c", _KILLED, str(tmp_path)], stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        for line in process.stdout:
            if int(line) >= after:
                time.sleep(0.02 * after)
                process.send_signal(signal.SIGKILL)
                break
        process.communicate()
    told.run(told.spec(tmp_path), tmp_path)
    assert told.weights(tmp_path) == undisturbed[1]


def test_a_checkpoint_of_another_spec_is_not_gone_on_from(tmp_path: Path) -> None:
    told.run(told.spec(tmp_path, seed=9), tmp_path, Told(ends_at=2))
    again = Told()
    told.run(told.spec(tmp_path, epochs=1), tmp_path, again)
    assert not [line for line in again.logs if "Goes on" in line]


@pytest.mark.parametrize("bits", [8, 4])
def test_a_base_in_fewer_bits_learns_as_well(
    bits: int, undisturbed: tuple[dict[str, Any], bytes], tmp_path: Path
) -> None:
    result = told.run(told.spec(tmp_path, bits=bits), tmp_path)
    assert result["held_out_loss"] < 1.1 * undisturbed[0]["held_out_loss"]
    assert result["manifest"]["recipe"]["bits"] == bits


def test_preferences_are_learned_from_the_base_without_the_adapter(tmp_path: Path) -> None:
    result = told.run(told.spec(tmp_path, kind="preference"), tmp_path)
    assert result["held_out_loss_before"] == pytest.approx(0.6931, abs=1e-3)
    assert result["held_out_loss"] < 0.5


def test_preferences_go_on_to_the_same_bytes_too(tmp_path: Path) -> None:
    found = []
    for name, ends_at in (("whole", None), ("cut", 3)):
        folder = tmp_path / name
        folder.mkdir()
        asked = told.spec(folder, kind="preference")
        if told.run(asked, folder, Told(ends_at=ends_at)) is None:
            told.run(asked, folder)
        found.append(told.weights(folder))
    assert found[0] == found[1]


def test_progress_says_how_far_it_is_and_how_long_it_will_take(tmp_path: Path) -> None:
    heard = Told()
    told.run(told.spec(tmp_path), tmp_path, heard)
    last = heard.progresses[-1]
    assert (last["step"], last["steps"], last["seconds_left"]) == (6, 6, 0.0)
    assert last["tokens_per_s"] > 0
    assert last["held_out_loss"] > 0


@pytest.mark.parametrize(
    ("more", "code", "says"),
    [
        ({"max_seconds": 0.0001}, Code.LIMIT_REACHED, "limit of 0.0001 s at step 1 of 6"),
        ({"max_memory_bytes": 2**20}, Code.LIMIT_REACHED, "and may use 1 MiB"),
        ({"max_tokens": 20}, Code.INVALID_VALUE, "longer than 20 tokens"),
        ({"base_path": "/nowhere"}, Code.MODEL_NOT_FOUND, "not there"),
        ({"base": f"sha256:{7:064x}"}, Code.DIGEST_MISMATCH, "was changed"),
        ({"objective": "dpo"}, Code.INVALID_VALUE, "choose the other objective"),
        ({"train": "/nowhere.jsonl"}, Code.NOT_FOUND, "is not there"),
    ],
)
def test_what_goes_wrong_ends_in_one_sentence_and_leaves_no_adapter(
    more: dict[str, Any], code: Code, says: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=says) as refused:
        told.run(told.spec(tmp_path, **more), tmp_path)
    assert refused.value.code is code
    assert not (tmp_path / "work" / as_job.FOLDER).exists()


def test_a_loss_that_is_no_number_ends_it(tmp_path: Path) -> None:
    asked = told.spec(tmp_path)
    base = Path(asked["base_path"]) / "model.safetensors"
    content = base.read_bytes()
    base.unlink()
    base.write_bytes(content[:-4096] + b"\xff\xff\xff\x7f" * 1024)
    asked["base"] = told_files.digest({each.name: each for each in base.parent.iterdir()})
    with pytest.raises(UserError, match="no number any more at step 1") as refused:
        told.run(asked, tmp_path)
    assert refused.value.code is Code.TRAINING_FAILED
    assert not (tmp_path / "work" / as_job.FOLDER).exists()


def test_one_that_ran_out_of_time_goes_on_with_more(
    undisturbed: tuple[dict[str, Any], bytes], tmp_path: Path
) -> None:
    with pytest.raises(UserError):
        told.run(told.spec(tmp_path, max_seconds=0.0001), tmp_path)
    told.run(told.spec(tmp_path), tmp_path)
    assert told.weights(tmp_path) == undisturbed[1]
