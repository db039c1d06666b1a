"""What a training leaves on the disk."""

from pathlib import Path

import numpy as np
import pytest

from freehold.adapt.training import checkpoint, peft_folder
from freehold.adapt.training.checkpoint import State
from freehold.adapt.training.recipe import Sizes, recipe_of
from freehold.core import peft
from freehold.core.safetensors import header_of

_LINEARS = {"q_proj": (8, 8), "k_proj": (8, 4), "v_proj": (8, 4), "o_proj": (8, 8),
            "gate_proj": (8, 16), "up_proj": (8, 16), "down_proj": (16, 8)}  # fmt: skip


def _factors(seed: int) -> list[peft_folder.Factor]:
    chance = np.random.default_rng(seed)
    return [
        (
            layer,
            name,
            chance.random((4, inputs), np.float32),
            chance.random((outputs, 4), np.float32),
        )
        for layer in range(2)
        for name, (inputs, outputs) in _LINEARS.items()
    ]


def test_the_folder_is_an_adapter_as_the_store_takes_it(tmp_path: Path) -> None:
    made = recipe_of({"rank": 4}, Sizes(8, 64, 10, 100))
    peft_folder.write(tmp_path, made, _factors(1), {"base_digest": "sha256:0"})
    config = (tmp_path / peft.CONFIG).read_bytes()
    weights = (tmp_path / peft.WEIGHTS).read_bytes()
    found = peft.check(config, header_of(weights, "weights"), _LINEARS, 2, peft.RankLimit())
    assert (found.rank, len(found.factors), found.factors[0].scale) == (4, 14, 2.0)
    assert {path.name for path in tmp_path.iterdir()} == {
        peft.CONFIG, peft.WEIGHTS, peft_folder.MANIFEST,
    }  # fmt: skip


def test_the_same_values_make_the_same_bytes(tmp_path: Path) -> None:
    made = recipe_of({"rank": 4}, Sizes(8, 64, 10, 100))
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        peft_folder.write(tmp_path / name, made, _factors(seed), {})
    weights = [(tmp_path / name / peft.WEIGHTS).read_bytes() for name in "abc"]
    assert weights[0] == weights[1]
    assert weights[0] != weights[2]


def test_a_checkpoint_is_read_by_who_owns_it_and_only_whole(tmp_path: Path) -> None:
    values = {"values": np.arange(6, dtype=np.float32)}
    assert checkpoint.read(tmp_path, "mine") is None
    checkpoint.write(tmp_path, "mine", State(step=7, best_loss=0.5), values)
    found = checkpoint.read(tmp_path, "mine")
    assert found is not None
    assert (found[0].step, found[0].best_loss) == (7, 0.5)
    assert np.array_equal(found[1]["values"], values["values"])
    assert checkpoint.read(tmp_path, "another") is None


@pytest.mark.parametrize("length", [0, 5, 100, -4])
def test_a_checkpoint_that_was_cut_short_counts_as_none(length: int, tmp_path: Path) -> None:
    checkpoint.write(tmp_path, "mine", State(), {"values": np.ones(64, np.float32)})
    (file,) = tmp_path.iterdir()
    file.write_bytes(file.read_bytes()[:length])
    assert checkpoint.read(tmp_path, "mine") is None
