"""What is computed, beside Transformers and PEFT."""

import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

from freehold.adapt.training import batches, peft_folder, rows
from freehold.adapt.training.adapter import Adapter
from freehold.adapt.training.as_job import base_files
from freehold.adapt.training.base import Base, Frozen, load
from freehold.adapt.training.decoder import Decoder
from freehold.adapt.training.recipe import LINEARS, Sizes, recipe_of
from freehold.adapt.training.rows import Encoder, Row
from freehold.engines.openvino.prompt import prompts_of
from freehold.engines.openvino.quantize import quantize
from tests.tune import told

with warnings.catch_warnings():  # theirs
    warnings.simplefilter("ignore")
    import peft
    import transformers

pytestmark = pytest.mark.slow


def _rows(asked: dict[str, object]) -> list[Row]:
    tokenizer, _, prompts = prompts_of(base_files(asked))
    read = rows.read(Path(str(asked["train"])), "chat", Encoder(tokenizer, prompts), 512)
    return read.rows[:5]


def _ours(asked: dict[str, object], bits: int | None = None) -> tuple[Base, Adapter, Decoder]:
    base = load(str(asked["base"]), base_files(asked), bits, None, torch.float32, "cpu")
    adapter = Adapter(base.shape, 4, 8.0, LINEARS, 3, "cpu")
    chance = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for _, _, _, b in adapter.factors(adapter.values):
            b.normal_(0, 0.1, generator=chance)
    return base, adapter, Decoder(base, adapter)


def _theirs(asked: dict[str, object], adapter: Adapter, folder: Path) -> torch.nn.Module:
    made = recipe_of({"rank": 4, "alpha": 8.0}, Sizes(64, 512, 5, 500))
    factors = [
        (layer, name, a.detach().numpy(), b.detach().numpy())
        for layer, name, a, b in adapter.factors(adapter.values)
    ]
    peft_folder.write(folder / "adapter", made, factors, {})
    base = transformers.AutoModelForCausalLM.from_pretrained(
        str(asked["base_path"]), dtype=torch.float32
    )
    return peft.PeftModel.from_pretrained(base, folder / "adapter", is_trainable=True)


def _their_sums(model: torch.nn.Module, some: list[Row]) -> list[torch.Tensor]:
    sums = []
    for row in some:
        logits = model(input_ids=torch.tensor([row.ids])).logits[0].float()
        places = row.targets
        logprobs = torch.log_softmax(logits, -1)
        sums.append(logprobs[[at - 1 for at in places], [row.ids[at] for at in places]].sum())
    return sums


def _parts(some: list[Row], most: int) -> list[batches.Part]:
    firsts = [row.learned[0][0] for row in some]
    return batches.parts([row.ids for row in some], firsts, [[i] for i in range(len(some))], most)


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")
@pytest.mark.parametrize("family", told.FAMILIES)
def test_loss_and_every_gradient_are_those_of_transformers_and_peft(
    family: str, tmp_path: Path
) -> None:
    asked = told.spec(tmp_path, family)
    some = _rows(asked)
    _, adapter, decoder = _ours(asked)
    model = _theirs(asked, adapter, tmp_path)
    ours = 0.0
    parts = _parts(some, 100_000)
    assert parts[0].shared > 10
    for part in parts:
        found, _ = decoder.logprobs(some, part, learns=True)
        (-found.sum()).backward()
        ours += float(found.detach().sum())
    theirs = torch.stack(_their_sums(model, some)).sum()
    (-theirs).backward()
    assert ours == pytest.approx(float(theirs.detach()), rel=1e-4)
    named = dict(model.named_parameters())
    for layer, name, a, b in adapter.factors(adapter.grads):
        block = "self_attn" if name[0] in "qkvo" else "mlp"
        module = f"base_model.model.model.layers.{layer}.{block}.{name}"
        for side, grad in (("A", a), ("B", b)):
            expected = named[f"{module}.lora_{side}.default.weight"].grad
            assert torch.allclose(grad, expected, rtol=1e-3, atol=1e-4 * float(expected.norm()))


def test_how_a_step_is_parted_changes_nothing(tmp_path: Path) -> None:
    some = _rows(told.spec(tmp_path))
    _, adapter, decoder = _ours(told.spec(tmp_path))
    found = []
    for most in (1, 200, 100_000):
        adapter.grads.zero_()
        for part in _parts(some, most):
            (-decoder.logprobs(some, part, learns=True)[0].sum()).backward()
        found.append(adapter.grads.clone())
    assert torch.allclose(found[0], found[1], atol=1e-3)
    assert torch.allclose(found[0], found[2], atol=1e-3)


def test_without_the_adapter_it_is_the_base(tmp_path: Path) -> None:
    some = _rows(told.spec(tmp_path))
    _, adapter, decoder = _ours(told.spec(tmp_path))
    (part,) = _parts(some, 100_000)
    bare, _ = decoder.logprobs(some, part, adapted=False)
    with torch.no_grad():
        for _, _, _, b in adapter.factors(adapter.values):
            b.zero_()
    untrained, _ = decoder.logprobs(some, part)
    assert torch.equal(bare, untrained)


def test_a_base_in_fewer_bits_is_smaller_and_near_the_whole_one(tmp_path: Path) -> None:
    asked = told.spec(tmp_path)
    some = _rows(asked)
    (part,) = _parts(some, 100_000)
    whole, _, decoder = _ours(asked)
    expected, _ = decoder.logprobs(some, part)
    size = sum(matrix.nbytes for matrix in whole.matrices.values())
    errors = []
    for bits, most in ((8, 0.3), (4, 0.25)):
        small, _, fewer = _ours(asked, bits)
        found, _ = fewer.logprobs(some, part)
        errors.append(float((expected - found).abs().mean()))
        assert sum(matrix.nbytes for matrix in small.matrices.values()) < size * most
    assert 0 < errors[0] < errors[1] / 4


@pytest.mark.parametrize("steps", [False, True])
def test_a_matrix_in_fewer_bits_is_the_very_one_that_serves(steps: bool) -> None:
    weights = np.random.default_rng(1).normal(size=(6, 64)).astype(np.float32)
    if steps:  # as of a file in four bits, whose zero points are kept as fractions
        weights = np.rint(weights * 2) / 2 + np.float32(0.21)
    eight = quantize(weights, "int8")
    assert eight.scales is not None
    dense = Frozen(eight, torch.float32, "cpu").dense().numpy()
    assert np.array_equal(dense, eight.values.astype(np.float32) * eight.scales.astype(np.float32))
    four = quantize(weights, "int4")
    assert four.scales is not None
    assert four.zeros is not None
    nibbles = np.stack([four.values & 15, four.values >> 4], -1).reshape(6, 2, 32)
    shifted = nibbles.astype(np.float32) - four.zeros.astype(np.float32)
    expected = (shifted * four.scales.astype(np.float32)).reshape(6, 64)
    dense = Frozen(four, torch.float32, "cpu").dense().numpy()
    assert np.allclose(dense, expected, atol=1e-6)
