"""Whether a model is good enough, by published scores: a wanted MMLU, and "is it an LLM?"."""

import re
from collections.abc import Sequence

from freehold.core.facts import Facts, ModelFacts, QuantizationLoss, Score
from freehold.core.plan import Judged, Precision, Rules, Verdict

_SHOTS = re.compile(r"(\d+)[- ]?shot")
# What lets a model think first, which the original GPT-3 could not when it was measured.
_OTHER_WAYS = ("cot", "reasoning", "simple-evals", "fine-tuned")
_FORMATS = {
    Precision.INT8: ("gptq_int8",),
    Precision.FP8: ("gptq_int8",),  # no loss is published for it; that of eight bits stands in
    Precision.INT4: ("gptq_int4", "awq"),
}


def judge_quality(
    model: ModelFacts | None, name: str, rules: Rules, facts: Facts, precision: Precision | None
) -> tuple[Judged, ...]:
    """`model` is None for one that only an API has: the facts have no scores of those."""
    judged = []
    if rules.least_mmlu is not None:
        judged.append(_least(model, name, rules.least_mmlu, facts, precision))
    if rules.must_be_llm:
        lost = loss(model, precision, facts.quantization) if model else 0.0
        judged.append(_is_llm(model, name, facts.gpt3, lost))
    return tuple(judged)


def loss(model: ModelFacts, precision: Precision | None, rows: Sequence[QuantizationLoss]) -> float:
    """Points of MMLU that a format costs, of the published model that is nearest in size: the
    worst of the ways to make that format. Formats that won points there cost none here."""
    formats = _FORMATS.get(precision, ()) if precision is not None else ()
    sized = [(abs(_size(row.model) - model.params_b), row) for row in rows if _size(row.model)]
    if not formats or not sized:
        return 0.0
    nearest = min(sized, key=lambda each: each[0])[1].by_format
    lost = (nearest["bf16"] - nearest[each] for each in formats if each in nearest)
    return max(0.0, *lost)


def _size(model: str) -> float:
    found = re.search(r"([\d.]+)B", model)
    return float(found[1]) if found else 0.0


def _least(
    model: ModelFacts | None,
    name: str,
    wanted: float,
    facts: Facts,
    precision: Precision | None,
) -> Judged:
    score = (
        next((each for each in model.scores if each.benchmark == "MMLU"), None) if model else None
    )
    if model is None or score is None:
        why = f"No MMLU of {name} is among the facts, and {wanted:g} is wanted."
        return Judged("quality", Verdict.UNKNOWN, why, None)
    lost = loss(model, precision, facts.quantization)
    less = f", less {lost:.1f} that {precision} costs," if lost else ""
    verdict = Verdict.PASS if score.value - lost >= wanted else Verdict.FAIL
    why = f"MMLU of {name} is {score.value:g} ({score.setting}){less} and {wanted:g} is wanted."
    return Judged("quality", verdict, why, score.source.where if score.source else None)


def _is_llm(model: ModelFacts | None, name: str, gpt3: Sequence[Score], lost: float) -> Judged:
    """Above the original GPT-3 on every score that was measured in a like way, with what the
    format costs taken off the one that such losses were published for."""
    rule = "is an LLM"
    pairs = [
        (score, score.value - (lost if score.benchmark == "MMLU" else 0.0), reference)
        for score in (model.scores if model else ())
        for reference in gpt3
        if _alike(score, reference)
    ]
    if not pairs:
        why = f"No published score of {name} was measured as GPT-3's were."
        return Judged(rule, Verdict.UNKNOWN, why, None)
    below = next((each for each in pairs if each[1] <= each[2].value), None)
    score, left, reference = below or pairs[0]
    less = f" less {lost:.1f} of the format" if left != score.value else ""
    than = "not above" if below else "above"
    why = (
        f"{score.benchmark} of {name} ({score.setting}) is {score.value:g}{less}, {than} the"
        f" {reference.value:g} of the original GPT-3 ({reference.setting})."
    )
    verdict = Verdict.FAIL if below else Verdict.PASS
    return Judged(rule, verdict, why, score.source.where if score.source else None)


def _alike(score: Score, reference: Score) -> bool:
    ours = _setting(score.setting)
    return (
        score.benchmark == reference.benchmark
        and ours is not None
        and ours == _setting(reference.setting)
    )


def _setting(text: str | None) -> str | None:
    """How many examples a score was measured with: "0", "1", "few". None where that is not said,
    or where the model could think first. What stands after a semicolon is about other scores."""
    words = (text or "").lower().split(";")[0]
    if any(each in words for each in _OTHER_WAYS):
        return None
    if "few-shot" in words:
        return "few"
    shots = _SHOTS.search(words)
    if shots is None:
        return None
    return shots[1] if shots[1] in {"0", "1"} else "few"
