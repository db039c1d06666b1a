"""Sampling: each row by itself, as OpenAI's fields say."""

from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from freehold.core.errors import Code, UserError
from freehold.engines.openvino.sample import (
    Drawn,
    Floats,
    Sampler,
    SamplingParams,
    Unusable,
    sample,
)

_VOCAB = 1003  # rows that begin at any alignment, in four blocks, the last one short


def _logits(rows: int, seed: int = 0, vocab: int = _VOCAB) -> Floats:
    made = np.random.default_rng(seed).normal(0, 3, (rows, vocab)).astype(np.float32)
    made.flags.writeable = False
    return made


def _one(logits: Floats, sampler: Sampler | None = None, **params: Any) -> Drawn:
    drawn = sample(logits, [sampler or Sampler(SamplingParams(**params))])[0]
    assert isinstance(drawn, Drawn)
    return drawn


def _row(*values: float) -> Floats:
    return np.array([values], np.float32)


def _frequencies(row: Floats, draws: int, **params: Any) -> Counter[int]:
    sampler = Sampler(SamplingParams(seed=5, **params))
    return Counter(_one(row, sampler).token for _ in range(draws))


def _mask(allowed: list[int], vocab: int) -> Any:
    bits = np.zeros(-(-vocab // 32) * 32, np.uint8)
    bits[allowed] = 1
    return np.packbits(bits, bitorder="little").view(np.int32)


def _nucleus(row: Floats, temperature: float, top_p: float) -> tuple[list[int], list[int]]:
    """By the book: the shortest run of the likeliest that weighs `top_p`. With it, those
    that rounding could put in or out."""
    weights = np.exp((row - row.max()).astype(np.float64) / temperature)
    order = np.argsort(-row, kind="stable")
    sums = np.cumsum(weights[order]) / weights.sum()
    surely, perhaps = (
        [int(id) for id, before in zip(order, [0, *sums[:-1]], strict=True) if before < limit]
        for limit in (top_p * (1 - 1e-5), top_p * (1 + 1e-5))
    )
    return surely, perhaps


_MIXED = [
    {"temperature": 0},
    {"temperature": 0, "alternatives": 3},
    {"temperature": 0, "logit_bias": {7: 4.5}, "frequency_penalty": 0.3},
    {"seed": 1},
    {"seed": 2, "temperature": 0.7, "top_p": 0.9, "alternatives": 20},
    {"seed": 3, "temperature": 1.9, "top_p": 0.4, "presence_penalty": 1.1},
    {"seed": 4, "top_p": 1e-6, "alternatives": 0},
]


def test_cold_sampling_takes_the_highest_and_of_equals_the_first() -> None:
    logits = np.array([[1, 5, 5, 2], [9, 0, 0, 9]], np.float32)
    for temperature in (0, 0, 0, 0, 1e-6, 1e-6, 1e-6, 1e-6):
        cold = [Sampler(SamplingParams(temperature=temperature, seed=seed)) for seed in (4, 5)]
        assert sample(logits, cold) == [Drawn(1), Drawn(0)]


@settings(max_examples=30, deadline=None)
@given(order=st.permutations(range(len(_MIXED) * 2)), size=st.integers(1, 14))
def test_a_row_is_drawn_alike_alone_and_in_any_batch(order: list[int], size: int) -> None:
    """To the last bit, over several steps, with logits at any alignment."""
    params = [SamplingParams(**_MIXED[place % len(_MIXED)]) for place in range(len(order))]
    alone, batched = ([Sampler(one) for one in params] for _ in range(2))
    for step in range(3):
        logits = _logits(len(order), seed=step)
        expected = [sample(logits[[place]], [alone[place]])[0] for place in order[:size]]
        assert sample(logits[order[:size]], [batched[p] for p in order[:size]]) == expected


def test_a_seed_gives_the_same_tokens_again_and_another_one_others() -> None:
    def tokens(seed: int | None) -> list[int]:
        sampler = Sampler(SamplingParams(seed=seed))
        return [_one(_logits(1, step), sampler).token for step in range(12)]

    assert tokens(7) == tokens(7)
    assert tokens(-(2**63)) == tokens(-(2**63))
    assert len({tuple(tokens(seed)) for seed in (7, 8, -7, None, None)}) == 5


def test_a_seed_means_the_same_after_a_restart() -> None:
    sampler = Sampler(SamplingParams(seed=7, temperature=0.8, top_p=0.9))
    assert [_one(_logits(1, step), sampler).token for step in range(4)] == SEEDED


SEEDED = [270, 860, 429, 9]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("params", _MIXED)
def test_a_row_that_is_not_finite_fails_alone(bad: float, params: dict[str, Any]) -> None:
    logits = _logits(3)
    broken = logits.copy()
    broken[1, 800] = bad

    def drawn(of: Floats) -> list[Drawn | Unusable]:
        return sample(of, [Sampler(SamplingParams(**params)) for _ in range(3)])

    first, failed, last = drawn(broken)
    assert failed is Unusable.NOT_FINITE
    assert [first, last] == drawn(logits)[::2]


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    spread=st.floats(0.0, 6.0),
    temperature=st.floats(0.05, 2.0),
    top_p=st.floats(1e-9, 0.999),
    vocab=st.sampled_from([1, 2, 255, 256, 257, _VOCAB]),
)
def test_only_tokens_of_the_nucleus_are_drawn(
    seed: int, spread: float, temperature: float, top_p: float, vocab: int
) -> None:
    row = np.random.default_rng(seed).normal(0, spread, vocab).astype(np.float32).round(1)
    _, perhaps = _nucleus(row, temperature, top_p)
    drawn = _frequencies(row[None], 12, temperature=temperature, top_p=top_p)
    assert set(drawn) <= set(perhaps)


@pytest.mark.parametrize("top_p", [1.0, 0.8, 0.3])
@pytest.mark.parametrize("temperature", [0.6, 1.0, 1.7])
def test_tokens_come_as_often_as_their_probability_says(temperature: float, top_p: float) -> None:
    """Over a vocabulary of several blocks, its likely tokens far from each other."""
    row = np.full(_VOCAB, -2.0, np.float32)
    row[[3, 255, 256, 700, 1002]] = 5, 4.5, 4, 3.5, 3
    inside, _ = _nucleus(row, temperature, top_p)
    weights = np.exp(row[inside].astype(np.float64) / temperature)
    expected = dict(zip(inside, weights / weights.sum(), strict=True))
    draws = 3000
    found = _frequencies(row[None], draws, temperature=temperature, top_p=top_p)
    assert set(found) <= set(inside)
    for token in (3, 255, 256, 700, 1002):
        share = expected.get(token, 0)
        assert abs(found[token] / draws - share) <= 4 * np.sqrt(share * (1 - share) / draws)


def test_of_many_equals_the_first_belong_to_the_nucleus() -> None:
    row = np.zeros((1, _VOCAB), np.float32)
    found = _frequencies(row, 200, top_p=10.5 / _VOCAB)
    assert set(found) == set(range(11))


def test_a_token_without_any_weight_is_never_drawn() -> None:
    row = np.full((1, _VOCAB), -200.0, np.float32)
    row[0, 500] = 0
    assert set(_frequencies(row, 50)) == {500}


def test_penalties_are_openai_s_formula_over_the_tokens_sampled_so_far() -> None:
    row = _row(3.0, 2.0, 0.0)
    for field, value, expected in (
        # 0: 3.0 2.6 2.2 1.8 ..., 1: 2.0 1.6: it takes three of the first to prefer the second
        ("frequency_penalty", 0.4, [0, 0, 0, 1, 0, 1]),
        ("presence_penalty", 1.5, [0, 1, 0, 0, 0, 0]),
        ("frequency_penalty", -1.0, [0, 0, 0, 0, 0, 0]),
    ):
        sampler = Sampler(SamplingParams(temperature=0, **{field: value}))
        assert [_one(row, sampler).token for _ in expected] == expected


def test_a_bias_is_added_before_anything_is_chosen() -> None:
    row = _row(3.0, 2.0, 0.0)
    assert _one(row, temperature=0, logit_bias={1: 0.9}).token == 0
    assert _one(row, temperature=0, logit_bias={1: 1.1}).token == 1
    assert set(_frequencies(row, 100, logit_bias={0: -100, 2: -100.0})) == {1}
    assert set(_frequencies(row, 100, logit_bias={2: 100})) == {2}


def test_log_probabilities_are_the_model_s_own() -> None:
    logits = _logits(1)
    exact = logits[0].astype(np.float64)
    exact -= np.log(np.exp(exact).sum())
    for changed in ({}, {"temperature": 0.1}, {"top_p": 0.1}, {"logit_bias": {1: 5, 2: -5}}):
        drawn = _one(logits, seed=1, alternatives=4, **changed)
        assert drawn.logprob == pytest.approx(exact[drawn.token], abs=1e-5)
        assert [id for id, _ in drawn.likeliest] == [*np.argsort(-exact)[:4]]
        for id, logprob in drawn.likeliest:
            assert logprob == pytest.approx(exact[id], abs=1e-5)


def test_the_taken_and_the_likeliest_have_the_same_number_and_none_is_above_0() -> None:
    drawn = _one(_row(50.0, 0.0, -50.0), temperature=0, alternatives=20)
    assert drawn.likeliest[0] == (drawn.token, drawn.logprob)
    assert len(drawn.likeliest) == 3
    assert all(logprob <= 0 for _, logprob in drawn.likeliest)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32), count=st.integers(1, 20), vocab=st.sampled_from([5, 700, 6000]))
def test_the_likeliest_come_in_order_and_equals_by_number(
    seed: int, count: int, vocab: int
) -> None:
    row = np.random.default_rng(seed).integers(0, 40, vocab).astype(np.float32)
    drawn = _one(row[None], temperature=0, alternatives=count)
    order = np.argsort(-row, kind="stable")[:count]
    assert [id for id, _ in drawn.likeliest] == [*order]


def test_probabilities_are_told_to_those_who_ask() -> None:
    logits = _logits(1)
    assert _one(logits, temperature=0) == Drawn(_one(logits, temperature=0).token)
    asked = _one(logits, temperature=0, alternatives=0)
    assert asked.logprob is not None
    assert asked.likeliest == ()


@pytest.mark.parametrize("params", _MIXED)
def test_a_mask_lets_only_its_tokens_through(params: dict[str, Any]) -> None:
    logits, allowed = _logits(3), [31, 32, 999, 1002]
    mask = _mask(allowed, _VOCAB)
    for _ in range(20):
        samplers = [Sampler(SamplingParams(**params)) for _ in range(3)]
        free, bound, again = sample(logits, samplers, [None, mask, None])
        assert isinstance(bound, Drawn)
        assert bound.token in allowed
        unmasked = sample(logits, [Sampler(SamplingParams(**params)) for _ in range(3)])
        assert [free, again] == unmasked[::2]


def test_under_a_mask_the_best_of_the_allowed_is_taken_whatever_its_bias() -> None:
    row = _row(9.0, 1.0, 2.0)
    sampler = Sampler(SamplingParams(temperature=0, logit_bias={1: -100, 2: -100}))
    drawn = sample(row, [sampler], [_mask([1, 2], 3)])[0]
    assert isinstance(drawn, Drawn)
    assert drawn.token == 2


@pytest.mark.parametrize("params", _MIXED)
def test_a_mask_without_tokens_fails_its_row_alone(params: dict[str, Any]) -> None:
    samplers = [Sampler(SamplingParams(**params)) for _ in range(2)]
    free, bound = sample(_logits(2), samplers, [None, _mask([], _VOCAB)])
    assert isinstance(free, Drawn)
    assert bound is Unusable.NOTHING_ALLOWED


def test_a_body_says_how_to_sample_and_what_is_left_out_is_openai_s_default() -> None:
    assert SamplingParams.of({}, 10) == SamplingParams(1.0, 1.0, 0.0, 0.0, {}, None, None)
    body = {
        "temperature": 0,
        "top_p": 0.5,
        "frequency_penalty": 1,
        "presence_penalty": -1,
        "seed": 3,
        "logit_bias": {"9": 5, "0": -100},
        "logprobs": True,
        "top_logprobs": 4,
        "messages": [],
    }
    expected = SamplingParams(0, 0.5, 1, -1, {9: 5, 0: -100}, 3, 4)
    assert SamplingParams.of(body, 10) == expected


@pytest.mark.parametrize(
    ("fields", "alternatives"),
    [
        ({"logprobs": True}, 0),
        ({"logprobs": False}, None),
        ({"logprobs": True, "top_logprobs": 2}, 2),
        ({"logprobs": 0}, 0),  # completions
        ({"logprobs": 5}, 5),
    ],
)
def test_logprobs_are_read_as_chat_and_completions_say_it(
    fields: dict[str, Any], alternatives: int | None
) -> None:
    assert SamplingParams.of(fields, 10).alternatives == alternatives


@pytest.mark.parametrize("name", ["10", "-1", "a", "", " 1", "1_0", "1.0", "٣", "9" * 5000])
def test_a_bias_on_what_is_no_token_is_refused(name: str) -> None:
    with pytest.raises(UserError) as caught:
        SamplingParams.of({"logit_bias": {name: 1}}, 10)
    assert (caught.value.code, caught.value.param) == (Code.INVALID_VALUE, "logit_bias")
