"""The base alone: what transformers computes, however the work is cut up."""

import json
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import openvino as ov
import pytest

from freehold.engines.openvino import runner
from freehold.engines.openvino.prepared import Prepared, prepare
from freehold.engines.openvino.quantize import Format
from freehold.engines.openvino.runner import BLOCK, Options, Part, Runner, by_slot
from freehold.engines.openvino.slots import Slots
from tests.engines.tiny import tiny

TINY = Path(__file__).parent / "reference" / "tiny"
# Each with the file that transformers' answers lie in: a folder's and its GGUF twins'.
MODELS = {
    **{path.parent.name: path for path in sorted(TINY.glob("*/reference.json"))},
    **{path.stem: path for path in sorted(TINY.glob("*/*-*.json"))},
}
_EXACT = Options(threads=1, kv_cache="f32", exact=True, factors="f32")
_BOUND = 1e-4  # of logits up to about 10: float32 sums in another order
_BLOCKS = 5  # of each sequence

Logits = npt.NDArray[np.float32]


class Model:
    """A tiny model without adapters, in sequences that each have blocks of their own."""

    def __init__(self, name: str) -> None:
        answers = MODELS[name]
        if answers.name == "reference.json":
            folder = answers.parent
            files = {path.name: path for path in folder.iterdir() if path.suffix != ".gguf"}
        else:
            path = answers.with_suffix(".gguf")
            files = {path.name: path}
        self.reference: dict[str, Any] = json.loads(answers.read_text())
        self.prompts: list[list[int]] = [each["ids"] for each in self.reference["prompts"]]
        self.answers: list[dict[str, Any]] = self.reference["answers"]["base"]
        prepared = prepare("", files, "float32", None)
        self.runner = Runner(prepared, _EXACT, 4 * 1024 * 1024)
        self.runner.set_factors(Slots(prepared.shape, "f32", 1).arrange([None]).tensors)

    def step(self, rows: Sequence[tuple[int, Sequence[int], int]], is_bare: bool = False) -> Logits:
        """Rows of (sequence, tokens, start); the logits of each last token."""
        parts = [
            Part(tokens, start, range(place * _BLOCKS, (place + 1) * _BLOCKS), 0, True)
            for place, tokens, start in rows
        ]
        return self.runner.step(parts, is_bare=is_bare).copy()


@cache
def _model(name: str) -> Model:
    return Model(name)


def test_every_family_and_both_kinds_of_file_are_there() -> None:
    assert {"llama", "llama3", "mistral", "qwen2", "qwen3"} <= MODELS.keys()
    assert len(MODELS) == 9


def test_a_file_in_full_precision_is_computed_where_it_lies(tmp_path: Path) -> None:
    path = tiny("qwen3", tmp_path).model.path
    prepared = prepare("", {path.name: path}, "float32", None)
    found = Runner(prepared, _EXACT, 4 * 1024 * 1024)
    found.set_factors(Slots(prepared.shape, "f32", 1).arrange([None]).tensors)
    model = _model("qwen3")
    for prompt, answer in zip(model.prompts, model.answers, strict=True):
        logits = found.step([Part(prompt, 0, range(_BLOCKS), 0, True)])
        assert np.abs(logits[0] - np.array(answer["logits"])).max() < _BOUND


@pytest.mark.parametrize("name", MODELS)
def test_logits_and_greedy_tokens_are_those_of_transformers(name: str) -> None:
    model = _model(name)
    for prompt, answer in zip(model.prompts, model.answers, strict=True):
        logits = first = model.step([(0, prompt, 0)])
        text = list(prompt)
        for _ in answer["greedy"]:
            text.append(int(logits[0].argmax()))
            logits = model.step([(0, text[-1:], len(text) - 1)])

        assert np.abs(first[0] - np.array(answer["logits"])).max() < _BOUND
        assert text[len(prompt) :] == answer["greedy"]


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("first", [True, False])
def test_steps_with_and_without_the_sites_of_adapters_go_on_from_each_other(
    name: str, first: bool
) -> None:
    """Both graphs of a small model read and write one cache."""
    model = _model(name)
    prompt, answer = model.prompts[0], model.answers[0]
    is_bare = first
    logits = model.step([(0, prompt, 0)], is_bare)
    assert np.abs(logits[0] - np.array(answer["logits"])).max() < _BOUND

    text = list(prompt)
    for _ in answer["greedy"]:
        text.append(int(logits[0].argmax()))
        is_bare = not is_bare
        logits = model.step([(0, text[-1:], len(text) - 1)], is_bare)

    assert text[len(prompt) :] == answer["greedy"]


def test_a_model_that_is_too_large_for_a_second_graph_answers_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(runner, "_SMALL_BYTES", 0)
    model = Model("llama")

    logits = model.step([(0, model.prompts[0], 0)], is_bare=True)

    assert np.abs(logits[0] - np.array(model.answers[0]["logits"])).max() < _BOUND


@pytest.mark.parametrize("name", MODELS)
def test_sequences_in_one_batch_get_what_they_get_alone(name: str) -> None:
    model = _model(name)

    together = model.step([(at, prompt, 0) for at, prompt in enumerate(model.prompts)])

    for logits, answer in zip(together, model.answers, strict=True):
        assert np.abs(logits - np.array(answer["logits"])).max() < _BOUND


@pytest.mark.parametrize("size", [1, 7, BLOCK, BLOCK + 1])
def test_a_prompt_in_pieces_is_as_good_as_whole(size: int) -> None:
    """Also beside another sequence that is some way ahead."""
    model = _model("llama3")
    prompt, other = model.prompts[-1], model.prompts[1]
    model.step([(1, other, 0)])
    for start in range(0, len(prompt), size):
        rows = [(0, prompt[start : start + size], start)]
        if start == 0:
            rows.append((1, [5], len(other)))
        logits = model.step(rows)[0]

    assert np.abs(logits - np.array(model.answers[-1]["logits"])).max() < _BOUND


def test_every_row_tells_what_each_prefix_tells() -> None:
    model = _model("llama3")
    prompt = model.prompts[1]
    blocks = range(_BLOCKS)

    rows = model.runner.step([Part(prompt, 0, blocks, 0, False)], every_row=True).copy()

    assert rows.shape == (len(prompt), model.runner.shape.vocab)
    for end in (1, len(prompt) // 2, len(prompt)):
        np.testing.assert_allclose(model.step([(1, prompt[:end], 0)])[0], rows[end - 1], atol=1e-4)


def test_blocks_may_lie_anywhere_in_the_cache() -> None:
    model = _model("llama")
    prompt = model.prompts[-1]
    assert len(prompt) > 3 * BLOCK
    scattered = [17, 3, 29, 8]

    logits = model.runner.step([Part(prompt, 0, scattered, 0, True)])[0]

    assert np.abs(logits - np.array(model.answers[-1]["logits"])).max() < _BOUND


def test_what_lay_in_a_block_before_is_not_read() -> None:
    model = _model("llama")
    short, long = model.prompts[0], model.prompts[-1]
    model.step([(0, long, 0)])

    logits = model.step([(0, short, 0)])[0]

    assert np.abs(logits - np.array(model.answers[0]["logits"])).max() < _BOUND


def test_a_cache_holds_as_many_blocks_as_its_bytes_allow() -> None:
    prepared = prepare("", {"m.gguf": next(TINY.glob("llama/*.gguf"))}, "int8", None)
    shape = prepared.shape
    a_token = 2 * shape.layers * shape.kv_heads * shape.head_dim * 2  # bytes in bfloat16
    runner = Runner(prepared, Options(1, kv_cache="bf16"), 10 * BLOCK * a_token + 1)

    assert runner.blocks == 10
    assert runner.bytes_per_token == a_token


def test_factors_live_as_long_as_the_runner_reads_them() -> None:
    """The runtime does not keep the memory of a tensor that it was given."""
    model = _model("llama")
    shape = model.runner.shape
    layers = range(shape.layers)
    names = [(f"A.{layer}.o", (1, shape.heads * shape.head_dim, 1)) for layer in layers]
    names += [(f"B.{layer}.o_proj", (1, 1, shape.hidden)) for layer in layers]
    model.runner.set_factors(
        (name, ov.Tensor(np.zeros(size, np.float32), list(size), ov.Type.f32))
        for name, size in names
    )
    taken = [np.full(size, np.nan, np.float32) for _, size in names for _ in range(8)]

    logits = model.step([(0, model.prompts[1], 0)])[0]

    assert len(taken) == 8 * len(names)
    assert np.abs(logits - np.array(model.answers[1]["logits"])).max() < _BOUND


@pytest.mark.parametrize("format", ["float32", "int8", "int4"])
def test_weights_live_as_long_as_the_runner_reads_them(format: Format) -> None:
    files = {"m.gguf": next(TINY.glob("llama/*.gguf"))}

    def logits(prepared: Prepared) -> Iterator[Logits]:
        runner = Runner(prepared, Options(1, kv_cache="bf16"), 1024 * 1024)
        slots = Slots(prepared.shape, "bf16", 1)
        runner.set_factors(slots.arrange([None]).tensors)
        sizes = {each.values.nbytes for each in prepared.matrices.values()}
        del prepared
        yield np.empty(0, np.float32)
        taken = [np.full(size, 0x55, np.uint8) for size in sizes for _ in range(100)]
        yield runner.step([Part([5, 6, 7, 8], 0, [0], 0, True)])[0].copy()
        taken.clear()

    kept = prepare("", files, format, None)
    *_, expected = logits(kept)
    lent = [prepare("", files, format, None)]
    reading = logits(lent[0])
    next(reading)
    lent.clear()

    np.testing.assert_array_equal(next(reading), expected)


def test_rows_are_gathered_by_slot_and_find_their_way_back() -> None:
    rows, back = by_slot([(2, 3), (0, 1), (2, 2)])

    assert rows.shape == (3, 5)
    assert rows[2].tolist() == [0, 1, 2, 4, 5]
    assert set(rows[0]) == {3}
    np.testing.assert_array_equal(rows.reshape(-1)[back], np.arange(6))
