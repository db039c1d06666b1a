"""What each choice of `weights` and `kv_cache` makes of a model.

A text is cut into windows, and every choice is given the same tokens, so that what
differs is the formats alone. A window's first eighth is read and not scored: with next
to no context, every model is about as bad. The text goes through in short steps, so that
keys and values are read back from the cache in its own format, as they are when an
answer is made.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from freehold.core.errors import Code, UserError
from freehold.engines.openvino.prepared import Prepared, prepare
from freehold.engines.openvino.quantize import Format
from freehold.engines.openvino.runner import BLOCK, Options, Part, Runner
from freehold.engines.openvino.slots import Slots

KvCache = Literal["u8", "bf16", "f32"]
Rows = npt.NDArray[np.float32]  # log probabilities: [scored tokens, vocabulary]
Told = Callable[[str, int, int], None]

# The first is full precision, which the others are compared with.
CHOICES: tuple[tuple[Format, KvCache], ...] = (
    ("float32", "f32"), ("int8", "u8"), ("int8", "bf16"), ("int4", "u8"), ("int4", "bf16"),
)  # fmt: skip
WINDOW = 512
_STEP = 64
_PROMPT, _TOKENS, _ROUNDS = 128, 8, 3  # of a measurement of speed
_STREAMS = 8


@dataclass(frozen=True, slots=True)
class Loss:
    """In nats; against `Rows` of full precision."""

    perplexity: float
    mean_kl_nats: float
    p99_kl_nats: float
    top1_agreement: float


@dataclass(frozen=True, slots=True)
class Measured:
    weights: Format
    kv_cache: KvCache
    loss: Loss
    scored_tokens: int
    weights_bytes: int
    kv_bytes_per_token: int
    decode_tokens_per_s: float
    decode_tokens_per_s_of_8: float


def windows_of(tokens: Sequence[int], most: int | None) -> list[Sequence[int]]:
    """All whole windows, or one of what there is when that is less than a window."""
    tokens = tokens[: len(tokens) if most is None else most]
    if len(tokens) < WINDOW:
        return [tokens]
    whole = len(tokens) // WINDOW * WINDOW
    return [tokens[at : at + WINDOW] for at in range(0, whole, WINDOW)]


def scored(window: Sequence[int]) -> Sequence[int]:
    """The tokens of a window whose prediction counts."""
    return window[_unscored(window) :]


def score(runner: Runner, window: Sequence[int]) -> Rows:
    """The log probabilities before each token of `scored`."""
    begin = _unscored(window) - 1
    rows = np.empty((len(window) - 1 - begin, runner.shape.vocab), np.float32)
    blocks = range(-(-len(window) // BLOCK))
    for start in range(0, len(window) - 1, _STEP):
        part = window[start : min(start + _STEP, len(window) - 1)]
        logits = runner.step([Part(part, start, blocks, 0, False)], every_row=True, is_bare=True)
        skipped = max(0, begin - start)
        at = start + skipped - begin
        if skipped < len(part):
            rows[at : at + len(part) - skipped] = log_softmax(logits[skipped:])
    return rows


def log_softmax(logits: Rows) -> Rows:
    shifted = logits - logits.max(1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(1, keepdims=True)), np.float32)


def compare(wanted: Sequence[Rows], found: Sequence[Rows], following: Sequence[int]) -> Loss:
    """`wanted` and `found` by window, `following` the tokens that came."""
    divergence = np.concatenate([_divergence(*each) for each in zip(wanted, found, strict=True)])
    pairs = zip(wanted, found, strict=True)
    same = np.concatenate([p.argmax(1) == q.argmax(1) for p, q in pairs])
    at = np.cumsum([0, *(len(rows) for rows in found)])
    told = [
        rows[np.arange(len(rows)), following[begin : begin + len(rows)]]
        for rows, begin in zip(found, at[:-1], strict=True)
    ]
    return Loss(
        perplexity=float(np.exp(-np.concatenate(told).mean(dtype=np.float64))),
        mean_kl_nats=float(divergence.mean()),
        p99_kl_nats=float(np.quantile(divergence, 0.99)),
        top1_agreement=float(same.mean()),
    )


def measure(
    files: Mapping[str, Path], tokens: Sequence[int], most: int | None, threads: int, told: Told
) -> Iterator[Measured]:
    """In the order of `CHOICES`; at most `most` tokens of the text."""
    windows = windows_of(tokens, most)
    if len(windows[0]) < _PROMPT:
        raise UserError(Code.INVALID_VALUE, f"Measure with {_PROMPT} tokens or more.")
    following = [token for window in windows for token in scored(window)]
    wanted: list[Rows] = []
    prepared: Prepared | None = None
    before: Format | None = None
    for number, (weights, kv_cache) in enumerate(CHOICES):
        name = f"{weights} with {kv_cache}"
        if prepared is None or weights != before:
            prepared = None  # one at a time in memory
            told(f"Preparing {weights}", 0, 0)
            prepared, before = prepare("", files, weights, None), weights
        told(f"Measuring {name}", number, len(CHOICES))
        runner = _runner(prepared, weights, kv_cache, threads)
        found = [score(runner, window) for window in windows]
        wanted = wanted or found
        yield Measured(
            weights=weights,
            kv_cache=kv_cache,
            loss=compare(wanted, found, following),
            scored_tokens=len(following),
            weights_bytes=_weights_bytes(prepared),
            kv_bytes_per_token=round(runner.bytes_per_token),
            decode_tokens_per_s=_speed(runner, windows[0], 1),
            decode_tokens_per_s_of_8=_speed(runner, windows[0], _STREAMS),
        )


def _unscored(window: Sequence[int]) -> int:
    return len(window) // 8


def _divergence(wanted: Rows, found: Rows) -> npt.NDArray[np.float64]:
    total = (np.exp(wanted) * (wanted - found)).sum(1, dtype=np.float64)
    return np.asarray(np.maximum(total, 0.0), np.float64)  # what lies below is rounding


def _runner(prepared: Prepared, weights: Format, kv_cache: KvCache, threads: int) -> Runner:
    """As the engine runs that choice."""
    exact = weights == "float32"
    kind: Literal["f32", "bf16"] = "f32" if exact else "bf16"
    shape = prepared.shape
    tokens = max(WINDOW, _STREAMS * _blocks_of_stream() * BLOCK)
    most = tokens * shape.layers * shape.kv_heads * shape.head_dim * 2 * 4  # in float32
    runner = Runner(prepared, Options(threads, kv_cache, exact, kind), most)
    runner.set_factors(Slots(prepared.shape, kind, 1).arrange([None]).tensors)
    return runner


def _weights_bytes(prepared: Prepared) -> int:
    matrices = [part for each in prepared.matrices.values() for part in each.parts().values()]
    return sum(part.nbytes for part in (*matrices, *prepared.vectors.values()))


def _blocks_of_stream() -> int:
    return -(-(_PROMPT + _ROUNDS * _TOKENS) // BLOCK)


def _speed(runner: Runner, text: Sequence[int], streams: int) -> float:
    """Tokens a second of all streams together; the best of the rounds counts, because
    noise only ever slows."""
    each = _blocks_of_stream()
    blocks = [range(number * each, (number + 1) * each) for number in range(streams)]
    prompt, token = text[:_PROMPT], text[0]
    runner.step([Part(prompt, 0, held, 0, True) for held in blocks], is_bare=True)
    best = 0.0
    for number in range(_ROUNDS):
        begun = time.perf_counter()
        for at in range(_TOKENS):
            position = _PROMPT + number * _TOKENS + at
            runner.step([Part([token], position, held, 0, True) for held in blocks], is_bare=True)
        best = max(best, streams * _TOKENS / (time.perf_counter() - begun))
    return best
