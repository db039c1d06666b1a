"""What is measured of formats, against direct computations, on tiny models."""

import json
from pathlib import Path

import numpy as np
import pytest

from freehold.core.errors import UserError
from freehold.engines.openvino.measure import (
    CHOICES,
    WINDOW,
    Measured,
    compare,
    log_softmax,
    measure,
    score,
    scored,
    windows_of,
)
from freehold.engines.openvino.prepared import prepare
from freehold.engines.openvino.runner import Options, Part, Runner
from freehold.engines.openvino.slots import Slots

LLAMA = Path(__file__).parent / "reference" / "tiny" / "llama"
_FILES = {path.name: path for path in LLAMA.iterdir() if path.suffix == ".gguf"}
_EXACT = Options(threads=1, kv_cache="f32", exact=True, factors="f32")


def _text(length: int) -> list[int]:
    """What the prompts of the reference hold, over and over."""
    prompts = json.loads((LLAMA / "reference.json").read_text())["prompts"]
    tokens = [token for prompt in prompts for token in prompt["ids"]]
    return [tokens[at % len(tokens)] for at in range(length)]


@pytest.fixture(scope="module")
def measured() -> list[Measured]:
    return list(measure(_FILES, _text(300), None, 1, lambda *_: None))


def test_all_choices_are_measured_and_the_reference_loses_nothing(measured: list[Measured]) -> None:
    reference, *others = measured

    assert [(each.weights, each.kv_cache) for each in measured] == list(CHOICES)
    assert reference.loss.mean_kl_nats == reference.loss.p99_kl_nats == 0
    assert reference.loss.top1_agreement == 1
    for other in others:
        assert 0 < other.loss.mean_kl_nats < other.loss.p99_kl_nats
        assert other.loss.top1_agreement <= 1
    assert {each.scored_tokens for each in measured} == {300 - 300 // 8}
    assert all(each.decode_tokens_per_s > 0 < each.decode_tokens_per_s_of_8 for each in measured)


def test_fewer_bits_lose_more_and_take_less(measured: list[Measured]) -> None:
    by_choice = {(each.weights, each.kv_cache): each for each in measured}
    eight, four = by_choice["int8", "bf16"], by_choice["int4", "bf16"]

    assert four.loss.mean_kl_nats > 4 * eight.loss.mean_kl_nats
    assert four.weights_bytes < eight.weights_bytes < measured[0].weights_bytes
    assert by_choice["int8", "u8"].kv_bytes_per_token < eight.kv_bytes_per_token
    assert eight.kv_bytes_per_token < measured[0].kv_bytes_per_token


def test_perplexity_is_what_the_logits_of_one_whole_step_give(measured: list[Measured]) -> None:
    tokens = _text(300)
    prepared = prepare("", _FILES, "float32", None)
    runner = Runner(prepared, _EXACT, 1 << 20)
    runner.set_factors(Slots(prepared.shape, "f32", 1).arrange([None]).tensors)
    whole = runner.step([Part(tokens, 0, range(10), 0, False)], every_row=True)
    logits = whole.astype(np.float64)
    odds = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    told = [odds[at - 1, tokens[at]] for at in range(300 // 8, 300)]

    expected = np.exp(-np.mean(np.log(told)))

    assert measured[0].loss.perplexity == pytest.approx(expected, rel=1e-5)
    rows = score(runner, tokens)
    np.testing.assert_allclose(np.exp(rows), odds[300 // 8 - 1 : -1], atol=1e-6)


def test_divergence_agreement_and_perplexity_by_hand() -> None:
    wanted = np.log(np.array([[0.5, 0.25, 0.25], [0.1, 0.8, 0.1]], np.float32))
    found = np.log(np.array([[0.25, 0.5, 0.25], [0.1, 0.8, 0.1]], np.float32))

    loss = compare([wanted[:1], wanted[1:]], [found[:1], found[1:]], [1, 2])

    first = 0.5 * np.log(0.5 / 0.25) + 0.25 * np.log(0.25 / 0.5)
    assert loss.mean_kl_nats == pytest.approx(first / 2, rel=1e-5)
    assert loss.p99_kl_nats == pytest.approx(0.99 * first, rel=1e-5)
    assert loss.top1_agreement == 0.5
    assert loss.perplexity == pytest.approx((0.5 * 0.1) ** -0.5, rel=1e-5)


def test_log_probabilities_of_large_logits_are_finite() -> None:
    rows = log_softmax(np.array([[3e4, -3e4, 2.9e4]], np.float32))

    assert np.isfinite(rows).all()
    assert rows[0, 0] == 0


@pytest.mark.parametrize(
    ("length", "most", "expected"),
    [
        (2330, None, [WINDOW] * 4),
        (2330, 1024, [WINDOW] * 2),
        (2330, 128, [128]),
        (200, None, [200]),
    ],
)
def test_a_text_is_cut_into_whole_windows(
    length: int, most: int | None, expected: list[int]
) -> None:
    windows = windows_of(range(length), most)

    assert [len(window) for window in windows] == expected
    assert windows[-1][-1] == sum(expected) - 1
    assert scored(windows[0])[0] == expected[0] // 8


def test_too_short_a_text_is_refused() -> None:
    with pytest.raises(UserError, match="128 tokens or more"):
        next(measure(_FILES, _text(100), None, 1, lambda *_: None))
