"""The next token of each request of a batch.

Every row is worked on by itself: what a request gets depends on its own logits, its own
parameters and its own random numbers, bit for bit, whoever else is in the batch. Only
the argmax and the minimum, which round nothing, run over all rows at once.

Log probabilities are the model's own, at temperature 1 and before `logit_bias`,
penalties and a schema's mask, which is what OpenAI's, vLLM's and llama.cpp's mean.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import numpy as np
import numpy.typing as npt

from freehold.core.errors import Code, UserError

Floats = npt.NDArray[np.float32]
Ids = npt.NDArray[np.int64]
Bits = npt.NDArray[np.int32]  # a token's bit is bit `id % 32` of word `id // 32`

_GREEDY_BELOW = 1e-5  # colder than this divides by next to nothing
_BANNED = np.float32(-np.inf)
_BLOCK = 256


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """OpenAI's fields, with OpenAI's defaults. `alternatives` is how many of the
    likeliest tokens are told beside the one taken; None tells no log probabilities."""

    temperature: float = 1.0
    top_p: float = 1.0
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    seed: int | None = None
    alternatives: int | None = None

    @classmethod
    def of(cls, body: Mapping[str, Any], vocab: int) -> "SamplingParams":
        """From a chat or completions body whose types and ranges have been checked.
        Raises `INVALID_VALUE` for a bias on what is no token of the model."""
        names = ("temperature", "top_p", "frequency_penalty", "presence_penalty", "seed")
        return cls(
            **{name: body[name] for name in names if body.get(name) is not None},
            logit_bias=_biases(body.get("logit_bias") or {}, vocab),
            alternatives=_alternatives(body),
        )

    @property
    def is_greedy(self) -> bool:
        return self.temperature < _GREEDY_BELOW

    @property
    def has_penalties(self) -> bool:
        return bool(self.frequency_penalty or self.presence_penalty)


def _biases(given: Mapping[str, float], vocab: int) -> dict[int, float]:
    for name in given:
        # `int` reads more than a plain number, and takes its time for a long one
        if not (name.isascii() and name.isdigit() and len(name) < 10 and int(name) < vocab):
            raise UserError(
                Code.INVALID_VALUE,
                f"logit_bias must name tokens by their number, 0 to {vocab - 1}.",
                param="logit_bias",
            )
    return {int(name): bias for name, bias in given.items()}


def _alternatives(body: Mapping[str, Any]) -> int | None:
    """Chat says `logprobs: true` and a number beside it, completions the number."""
    asked = body.get("logprobs")
    if asked is True:
        return body.get("top_logprobs") or 0
    return None if asked is None or asked is False else int(asked)


class Sampler:
    """What one request's choices depend on beside the logits. It lives as long as the
    request does; one whose cache was dropped goes on with the same sampler."""

    def __init__(self, params: SamplingParams) -> None:
        self.params = params
        seed = None if params.seed is None else params.seed % 2**64
        self.random = np.random.Generator(np.random.PCG64(seed))
        self._taken: dict[int, int] = {}
        self._biased = np.fromiter(params.logit_bias.keys(), np.int64)
        self._bias = np.fromiter(params.logit_bias.values(), np.float32)

    @property
    def changes_logits(self) -> bool:
        return bool(self._biased.size or self._taken)

    def change(self, row: Floats) -> None:
        """Adds the bias and takes off OpenAI's penalties: for a token that was sampled
        `count` times, `count * frequency_penalty + presence_penalty`."""
        row[self._biased] += self._bias
        if self._taken:
            ids = np.fromiter(self._taken.keys(), np.int64)
            counts = np.fromiter(self._taken.values(), np.float32)
            row[ids] -= (
                counts * np.float32(self.params.frequency_penalty)
                + np.float32(self.params.presence_penalty)
            )  # fmt: skip

    def take(self, token: int) -> None:
        if self.params.has_penalties:
            self._taken[token] = self._taken.get(token, 0) + 1


@dataclass(frozen=True, slots=True)
class Drawn:
    """`logprob` is None and `likeliest` empty for a request that did not ask."""

    token: int
    logprob: float | None = None
    likeliest: tuple[tuple[int, float], ...] = ()  # the likeliest first


class Unusable(StrEnum):
    """Why a row gave no token. Its request has failed, and no other."""

    NOT_FINITE = "the model's output is not finite"
    NOTHING_ALLOWED = "no token is allowed"


def sample(
    logits: Floats, samplers: Sequence[Sampler], masks: Sequence[Bits | None] | None = None
) -> list[Drawn | Unusable]:
    """One token for each row of `logits`, which is not changed. A row's mask has a bit
    set for each token that it may become."""
    best = logits.argmax(axis=1)  # the first of equals, or the first NaN
    least = logits.min(axis=1)
    drawn: list[Drawn | Unusable] = []
    for place, sampler in enumerate(samplers):
        row, token = logits[place], int(best[place])
        if not (np.isfinite(row[token]) and np.isfinite(least[place])):
            drawn.append(Unusable.NOT_FINITE)
            continue
        mask = None if masks is None else masks[place]
        if mask is not None or sampler.changes_logits or not sampler.params.is_greedy:
            chosen = _choose(row, sampler, mask)
            if chosen is None:
                drawn.append(Unusable.NOTHING_ALLOWED)
                continue
            token = chosen
        sampler.take(token)
        drawn.append(_told(row, token, sampler.params.alternatives))
    return drawn


def _choose(row: Floats, sampler: Sampler, mask: Bits | None) -> int | None:
    if sampler.changes_logits:
        row = row.copy()
        sampler.change(row)
    if mask is not None:
        allowed = np.unpackbits(mask.view(np.uint8), bitorder="little")[: len(row)]
        row = np.where(allowed.view(np.bool_), row, _BANNED)
    best = int(row.argmax())
    if row[best] == _BANNED:
        return None
    return best if sampler.params.is_greedy else _draw(row, row[best], sampler)


def _draw(row: Floats, best: np.float32, sampler: Sampler) -> int:
    """A token with the probability that temperature and `top_p` give it, sorting nothing.

    A token belongs to the nucleus when those before it (likelier, or as likely with a
    lower number) weigh less than `top_p` of the whole. So one is drawn from all and
    weighed; one that does not belong shows that none behind it does either, and the
    next is drawn from those before it. Among the nucleus each stays as likely as it was.
    """
    top_p = sampler.params.top_p
    weights = np.exp((row - best) / np.float32(sampler.params.temperature))
    if top_p == 1:
        return _pick(weights, sampler.random)
    whole = float(weights.sum())
    # All that weigh less than this weigh less than 1 - top_p together: none belongs.
    ids = np.flatnonzero(weights > whole * (1 - top_p) / len(weights) / 2)
    weights = weights[ids]
    while True:
        place = _pick(weights, sampler.random)
        before = weights > weights[place]
        before[:place] |= weights[:place] == weights[place]
        if (weights * before).sum() < whole * top_p:
            return int(ids[place])
        left = np.flatnonzero(before)
        weights, ids = weights[left], ids[left]


def _pick(weights: Floats, random: np.random.Generator) -> int:
    """A place, each as likely as its weight says: first a block, then a place in it,
    which spares the running sum of all."""
    if len(weights) <= _BLOCK:
        start = 0
    else:
        starts = np.arange(0, len(weights), _BLOCK)
        start = _BLOCK * _place(np.add.reduceat(weights, starts), random)
    return start + _place(weights[start : start + _BLOCK], random)


def _place(weights: Floats, random: np.random.Generator) -> int:
    sums = np.cumsum(weights, dtype=np.float64)
    # A float below 1, times the whole, is below the whole: a weight of 0 is never taken.
    return int(sums.searchsorted(random.random() * sums[-1], side="right"))


def _told(row: Floats, token: int, alternatives: int | None) -> Drawn:
    if alternatives is None:
        return Drawn(token)
    top = row.max()
    whole = float(top) + float(np.log(np.exp(row - top).sum(dtype=np.float64)))
    likeliest = tuple((int(id), float(row[id]) - whole) for id in _likeliest(row, alternatives))
    return Drawn(token, float(row[token]) - whole, likeliest)


def _likeliest(row: Floats, count: int) -> Ids:
    """The `count` highest, the highest first and of equals the lowest number."""
    if count == 0:
        return np.empty(0, np.int64)
    # The best of as many blocks are as many tokens: none of the highest is below them.
    heads = np.maximum.reduceat(row, np.arange(0, len(row), _BLOCK))
    least = np.partition(heads, -count)[-count] if count <= len(heads) else row.min()
    ids = np.flatnonzero(row >= least)
    return ids[np.argsort(-row[ids], kind="stable")[:count]]
