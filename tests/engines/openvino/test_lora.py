"""Adapters in the graph: what PEFT computes, for each row its own, and nobody else's."""

import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from freehold.core import peft
from freehold.core.engine import AdapterFiles
from freehold.engines.openvino.adapters import Adapter, read_adapter
from freehold.engines.openvino.prepared import prepare
from freehold.engines.openvino.runner import BLOCK, Options, Part, Runner
from freehold.engines.openvino.slots import Slots

TINY = Path(__file__).parent / "reference" / "tiny"
NAMES = sorted(path.name for path in TINY.iterdir())
_EXACT = Options(threads=1, kv_cache="f32", exact=True, factors="f32")
_FAST = Options(threads=1)
_BOUND = 2e-4  # float32 sums in another order
_BLOCKS = 5  # of each sequence

Logits = npt.NDArray[np.float32]


class Model:
    """A tiny model with its adapters, in sequences that each have blocks of their own."""

    def __init__(self, name: str, options: Options, format: str = "float32") -> None:
        folder = TINY / name
        files = {path.name: path for path in folder.iterdir() if path.suffix != ".gguf"}
        self.reference = json.loads((folder / "reference.json").read_text())
        self.prompts = [prompt["ids"] for prompt in self.reference["prompts"]]
        prepared = prepare("", files, format, None)  # type: ignore[arg-type]
        self._runner = Runner(prepared, options, 4 * 1024 * 1024)
        self.slots = Slots(prepared.shape, options.factors, 8)
        self.adapters: dict[str, Adapter | None] = {"base": None}
        for path in sorted((folder / "adapters").iterdir()):
            config, weights = path / peft.CONFIG, path / peft.WEIGHTS
            digest = peft.digest_of(config.read_bytes(), weights.read_bytes())
            files_ = AdapterFiles(digest, config, weights)
            self.adapters[path.name] = read_adapter(files_, prepared.shape, 16, options.factors)

    def step(self, rows: Sequence[tuple[str, int, Sequence[int], int]]) -> Logits:
        """Rows of (adapter, sequence, tokens, start); the logits of each last token."""
        arrangement = self.slots.arrange([self.adapters[name] for name, *_ in rows])
        self._runner.set_factors(arrangement.tensors)
        parts = [
            Part(tokens, start, range(place * _BLOCKS, (place + 1) * _BLOCKS), slot, True)
            for (_, place, tokens, start), slot in zip(rows, arrangement.slots, strict=True)
        ]
        return self._runner.step(parts).copy()


@cache
def _exact(name: str) -> Model:
    return Model(name, _EXACT)


@cache
def _fast() -> Model:
    return Model("llama", _FAST, "int8")


@pytest.mark.parametrize("name", NAMES)
def test_all_adapters_in_one_batch_choose_the_tokens_that_peft_chooses(name: str) -> None:
    model = _exact(name)
    expected = {
        (adapter, place): answer
        for adapter, answers in model.reference["answers"].items()
        for place, answer in enumerate(answers)
    }
    rows = [(adapter, model.prompts[place]) for adapter, place in expected]
    said: list[list[int]] = [[] for _ in rows]
    texts = [list(tokens) for _, tokens in rows]
    first = model.step(
        [(adapter, place, texts[place], 0) for place, (adapter, _) in enumerate(rows)]
    )
    for logits, answer in zip(first, expected.values(), strict=True):
        assert np.abs(logits - np.array(answer["logits"])).max() < _BOUND
    logits = first
    for _ in next(iter(expected.values()))["greedy"]:
        for place, token in enumerate(logits.argmax(1).tolist()):
            said[place].append(token)
            texts[place].append(token)
        logits = model.step(
            [
                (adapter, place, texts[place][-1:], len(texts[place]) - 1)
                for place, (adapter, _) in enumerate(rows)
            ]
        )
    assert said == [answer["greedy"] for answer in expected.values()]


@pytest.mark.parametrize("model", [_exact, lambda name: _fast()], ids=["float32", "int8"])
def test_logits_do_not_depend_on_which_other_adapters_are_in_the_batch(model: object) -> None:
    """Bit for bit, as long as the batch has the same shape."""
    tiny: Model = model("llama")  # type: ignore[operator]
    mine, *others = [name for name in tiny.adapters if name != "base"]
    prompt, other_prompt = tiny.prompts[1], tiny.prompts[2]

    def beside(other: str, tokens: Sequence[int]) -> list[Logits]:
        rows = [(mine, 0, prompt, 0), (other, 1, tokens, 0)]
        found = [tiny.step(rows)[0]]
        for turn in range(4):
            at = len(prompt) + turn
            later = [(mine, 0, [7 + turn], at), (other, 1, [9 + turn], len(tokens) + turn)]
            found.append(tiny.step(later)[0])
        return found

    alone = beside(others[0], other_prompt)
    for other in (*others, "base"):
        other_text = [token + 1 for token in other_prompt]
        for one, another in zip(alone, beside(other, other_text), strict=True):
            np.testing.assert_array_equal(one, another)


def test_an_adapter_whose_numbers_overflow_reaches_nobody_else(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Neither in the batch nor through blocks that it wrote and another gets next."""
    tiny = _fast()
    mine, other = [name for name in tiny.adapters if name != "base"][:2]
    hot = tiny.adapters[other]
    assert hot is not None
    factors = {
        place: tuple(np.full_like(part, 0x7F00) for part in both)  # 1.7e38
        for place, both in hot.factors.items()
    }
    wild = Adapter("sha256:wild", hot.rank, factors, hot.size_bytes)  # type: ignore[arg-type]
    prompt = tiny.prompts[2]
    rows = [(mine, 0, prompt, 0), ("base", 1, prompt, 0), ("wild", 2, prompt, 0)]
    expected = tiny.step([(mine, 0, prompt, 0), ("base", 1, prompt, 0), (other, 2, prompt, 0)])
    monkeypatch.setitem(tiny.adapters, "wild", wild)
    found = tiny.step(rows)
    assert not np.isfinite(found[2]).all()
    np.testing.assert_array_equal(found[:2], expected[:2])
    after = tiny.step([(mine, 2, prompt, 0), ("base", 0, prompt, 0), (other, 1, prompt, 0)])
    np.testing.assert_array_equal(after[0], expected[0])
    one_token = tiny.step([(mine, 2, prompt[:1], 0)])
    np.testing.assert_array_equal(one_token, tiny.step([(mine, 4, prompt[:1], 0)]))
    assert len(prompt) > BLOCK


def test_nothing_stays_of_an_adapter_that_was_in_a_slot_before() -> None:
    """A, B, A, and then the base."""
    tiny = _exact("llama")
    names = [*tiny.adapters, *tiny.adapters]
    first: dict[str, Logits] = {}
    for name in [*names, *reversed(names)]:
        logits = tiny.step([(name, 0, tiny.prompts[1], 0)])[0]
        np.testing.assert_array_equal(first.setdefault(name, logits), logits)
    assert len({logits.tobytes() for logits in first.values()}) == len(first)
