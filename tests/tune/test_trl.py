"""Bases that our own decoder does not compute, trained by TRL and PEFT, on tiny checkpoints."""

import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from freehold.adapt.training import as_job, trl_checkpoint
from freehold.catalog import checkpoint
from freehold.core import peft
from freehold.core.errors import Code, UserError
from freehold.core.safetensors import header_of
from freehold.engines import told_files
from tests.tune import others, told
from tests.tune.told import Told

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::FutureWarning"),  # of TRL about transformers' new names
]


def spec_of(
    folder: Path, family: str = "gemma2", kind: str = "chat", **more: Any
) -> dict[str, Any]:
    asked = told.spec(folder, kind=kind)
    base = folder / f"base-{family}"
    if not base.exists():
        base.mkdir()
        others.make(family, base)
    digest = told_files.digest({each.name: each for each in base.iterdir()})
    return {**asked, "base": digest, "base_path": str(base), "learning_rate": 2e-2, **more}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], bytes]:
    folder = tmp_path_factory.mktemp("undisturbed")
    return told.run(spec_of(folder), folder), told.weights(folder)


def test_each_family_that_our_own_does_not_compute_is_tried_here() -> None:
    assert set(others.MADE) == checkpoint.KINDS - checkpoint.SHARED_BASE


@pytest.mark.parametrize("family", others.MADE)
def test_it_is_chosen_by_itself_and_leaves_an_adapter_of_its_base(
    family: str, tmp_path: Path
) -> None:
    asked = spec_of(tmp_path, family)
    result = told.run(asked, tmp_path)
    assert result["manifest"]["recipe"]["trainer"] == "trl"
    assert result["held_out_loss"] < result["held_out_loss_before"]
    assert {path.name for path in (tmp_path / "work").iterdir()} == {as_job.FOLDER}
    check_of_all_linears(asked, tmp_path)


def check_of_all_linears(asked: dict[str, Any], folder: Path) -> None:
    base = checkpoint.read({each.name: each for each in Path(asked["base_path"]).iterdir()})
    assert base is not None
    config = (folder / "work" / as_job.FOLDER / peft.CONFIG).read_bytes()
    tensors = header_of(told.weights(folder), "")
    lora = peft.check(config, tensors, base.linears, base.layers, peft.RankLimit())
    assert {each.linear for each in lora.factors} == set(base.linears)


@pytest.mark.parametrize("kind", ["chat", "preference"])
def test_both_trainers_learn_alike(kind: str, tmp_path: Path) -> None:
    losses = {}
    for trainer in ("freehold", "trl"):
        folder = tmp_path / trainer
        folder.mkdir()
        result = told.run(told.spec(folder, kind=kind, trainer=trainer), folder)
        assert result["manifest"]["recipe"]["trainer"] == trainer
        losses[f"{trainer} before"] = result["held_out_loss_before"]
        losses[trainer] = result["held_out_loss"]
    assert losses["trl"] == pytest.approx(losses["freehold"], rel=0.15)
    assert losses["trl before"] == pytest.approx(losses["freehold before"], rel=0.01)


@pytest.mark.parametrize("kind", ["chat", "preference"])
@pytest.mark.parametrize("step", [0, 3])
def test_one_that_was_asked_to_end_goes_on_to_the_same_bytes(
    kind: str, step: int, tmp_path: Path
) -> None:
    whole, cut = whole_and_cut(tmp_path, step, kind=kind)
    assert whole == cut


def whole_and_cut(folder: Path, step: int, **more: Any) -> list[bytes]:
    """What one leaves that was not disturbed, and one that was asked to end before that step."""
    found = []
    for name, ends_at in (("whole", None), ("cut", step)):
        place = folder / name
        place.mkdir()
        asked = spec_of(place, **more)
        if told.run(asked, place, Told(ends_at=ends_at)) is None:
            told.run(asked, place)
        found.append(told.weights(place))
    return found


_KILLED = """
import sys
from pathlib import Path
from freehold.adapt.training import with_trl
from tests.tune import told
from tests.tune.test_trl import spec_of
with_trl._CHECKPOINT_EVERY_S = 0.0
class Slow(told.Told):
    def progress(self, **figures):
        print(figures["step"], flush=True)
told.run(spec_of(Path(sys.argv[1])), Path(sys.argv[1]), Slow())
"""


def test_one_that_was_killed_goes_on_to_the_same_bytes(
    undisturbed: tuple[dict[str, Any], bytes], tmp_path: Path
) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", _KILLED, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    for line in process.stdout:
        if line.strip() == "3":
            process.send_signal(signal.SIGKILL)
            break
    process.communicate()
    # What a kill in the middle of its writing leaves, which has no mark.
    half = tmp_path / "work" / trl_checkpoint.FOLDER / "checkpoint-5"
    half.mkdir()
    (half / "trainer_state.json").write_text("{")
    again = Told()
    told.run(spec_of(tmp_path), tmp_path, again)
    assert any("Goes on from step" in line for line in again.logs)
    assert told.weights(tmp_path) == undisturbed[1]


def test_preferences_are_learned_from_the_base_without_the_adapter(tmp_path: Path) -> None:
    result = told.run(told.spec(tmp_path, kind="preference", trainer="trl"), tmp_path)
    assert result["held_out_loss_before"] == pytest.approx(0.6931, abs=1e-3)
    assert result["held_out_loss"] < 0.5


def test_progress_says_how_far_it_is_and_how_long_it_will_take(tmp_path: Path) -> None:
    heard = Told()
    told.run(spec_of(tmp_path), tmp_path, heard)
    last = heard.progresses[-1]
    assert (last["step"], last["steps"], last["seconds_left"]) == (6, 6, 0.0)
    assert last["tokens_per_s"] > 0
    assert last["held_out_loss"] > 0


_OF_CPUS = [({"bits": 4}, Code.UNSUPPORTED_PARAMETER, "on a GPU only")][torch.cuda.is_available() :]


@pytest.mark.parametrize(
    ("more", "code", "says"),
    [
        ({"max_seconds": 0.0001}, Code.LIMIT_REACHED, "limit of 0.0001 s at step 1 of 6"),
        ({"max_memory_bytes": 2**20}, Code.LIMIT_REACHED, "and may use 1 MiB"),
        *_OF_CPUS,
        ({"trainer": "freehold"}, Code.FILE_REFUSED, "its architecture is 'gemma2'"),
        ({"trainer": "other"}, Code.INVALID_VALUE, "freehold, trl"),
        ({"learning_rate": 1.0, "epochs": 40}, Code.TRAINING_FAILED, "no number any more"),
    ],
)
def test_what_goes_wrong_ends_in_one_sentence_and_leaves_no_adapter(
    more: dict[str, Any], code: Code, says: str, tmp_path: Path
) -> None:
    if code is Code.TRAINING_FAILED:
        _spoil(tmp_path)
    with pytest.raises(UserError, match=says) as refused:
        told.run(spec_of(tmp_path, **more), tmp_path)
    assert refused.value.code is code
    assert not (tmp_path / "work" / as_job.FOLDER).exists()


def _spoil(folder: Path) -> None:
    """Its last weights are no numbers."""
    spec_of(folder)
    base = folder / "base-gemma2" / "model.safetensors"
    base.write_bytes(base.read_bytes()[:-4096] + b"\xff\xff\xff\x7f" * 1024)


def test_a_base_that_lacks_a_tensor_is_not_trained_on_chance(tmp_path: Path) -> None:
    import json

    from safetensors.torch import load_file, save_file

    asked = spec_of(tmp_path)
    base = Path(asked["base_path"])
    tensors = load_file(base / "model.safetensors")
    del tensors["model.norm.weight"]
    save_file(tensors, base / "model.safetensors", {"format": "pt"})
    asked["base"] = told_files.digest({each.name: each for each in base.iterdir()})
    with pytest.raises(UserError, match=r"lacks the tensor model\.norm\.weight"):
        told.run(asked, tmp_path)
    assert json.loads((base / "config.json").read_text())["model_type"] == "gemma2"


def test_a_gguf_file_is_no_base_of_trl(tmp_path: Path) -> None:
    file = next((told.TINY / "llama").glob("*.gguf"))
    asked = told.spec(tmp_path, trainer="trl")
    asked |= {"base": told_files.digest({"": file}), "base_path": str(file)}
    with pytest.raises(UserError, match="this one is a GGUF file"):
        told.run(asked, tmp_path)
