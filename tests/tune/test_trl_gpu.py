"""What TRL and PEFT train in 8 and 4 bits, which bitsandbytes does on a GPU only."""

from pathlib import Path

import pytest

from tests.tune import others, told
from tests.tune.test_trl import check_of_all_linears, spec_of, whole_and_cut

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::FutureWarning"),  # of TRL about transformers' new names
]


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("family", others.MADE)
def test_a_base_in_fewer_bits_is_learned_on(family: str, bits: int, tmp_path: Path) -> None:
    asked = spec_of(tmp_path, family, bits=bits)
    result = told.run(asked, tmp_path)
    assert result["manifest"]["recipe"]["bits"] == bits
    assert result["held_out_loss"] < result["held_out_loss_before"]
    check_of_all_linears(asked, tmp_path)


@pytest.mark.parametrize("family", others.MADE)
def test_the_same_asked_for_twice_gives_the_same_bytes(family: str, tmp_path: Path) -> None:
    found = []
    for name in ("first", "second"):
        folder = tmp_path / name
        folder.mkdir()
        told.run(spec_of(folder, family), folder)
        found.append(told.weights(folder))
    assert found[0] == found[1]


@pytest.mark.parametrize("bits", [8, 4])
def test_one_that_was_asked_to_end_goes_on_to_the_same_bytes(bits: int, tmp_path: Path) -> None:
    whole, cut = whole_and_cut(tmp_path, 3, bits=bits)
    assert whole == cut


def test_preferences_are_learned_on_a_base_in_4_bits(tmp_path: Path) -> None:
    result = told.run(spec_of(tmp_path, kind="preference", bits=4), tmp_path)
    assert result["held_out_loss_before"] == pytest.approx(0.6931, abs=1e-3)
    assert result["held_out_loss"] < result["held_out_loss_before"]
