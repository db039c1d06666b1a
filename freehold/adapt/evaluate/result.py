"""What an evaluation found, as plain values: for a page, for machines, and to be kept."""

import hashlib
import json
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from freehold.adapt.evaluate import probing
from freehold.adapt.evaluate.asking import Route
from freehold.adapt.evaluate.classes import Confusion, confusion
from freehold.adapt.evaluate.example import Answer, Example, problems
from freehold.adapt.evaluate.judge import Judged
from freehold.adapt.evaluate.normal import normal
from freehold.adapt.evaluate.paired import BETTER, Compared, adjusted, compare, verdict
from freehold.adapt.evaluate.probing import Probed
from freehold.adapt.evaluate.questions import Questions
from freehold.adapt.evaluate.refusal import declines
from freehold.adapt.evaluate.shares import Share, share
from freehold.adapt.evaluate.suite import Suite, measure_names
from freehold.core.words import counted

_FEW_OF_A_CLASS = 5


@dataclass(frozen=True, slots=True)
class Side:
    """Of two that are compared, or the one that is evaluated."""

    questions: Questions
    answers: Mapping[str, Answer]

    @property
    def route(self) -> Route:
        return self.questions.route

    def answer(self, example: Example, trigger: str | None = None) -> Answer:
        return self.answers[self.questions.of(example, trigger).key]

    def text(self, example: Example) -> str | None:
        found = self.answer(example)
        return found.text if found.error is None else None

    def problems(
        self, example: Example, trigger: str | None = None
    ) -> Sequence[tuple[str, str | None]]:
        return problems(example, self.answer(example, trigger))

    def passes(self, example: Example, trigger: str | None = None) -> bool:
        return all(why is None for _, why in self.problems(example, trigger))

    def passed(self) -> list[bool]:
        return [self.passes(each) for each in self.questions.suite.examples]


def fingerprint(example: Example) -> str:
    """Of the question with what is expected, wherever it stands in a file."""
    told = json.dumps([example.messages, example.expected], sort_keys=True)
    return hashlib.sha256(told.encode()).hexdigest()[:32]


def result(
    suite: Suite,
    candidate: Side,
    incumbent: Side | None,
    judge: Route | None,
    judged: Judged | None,
    passed_before: Collection[str],
    *,
    notes: Sequence[str],
    used: Collection[str],
    seconds: float,
    probed: Sequence[Probed] = (),
) -> dict[str, Any]:
    sides = [side for side in (candidate, incumbent) if side is not None]
    measures = _measures(suite, candidate, incumbent)
    classes = [_classes(suite, side) for side in sides] if suite.labels else []
    answers = [candidate.answers[key] for key in used]
    errors = Counter(answer.error for answer in answers if answer.error is not None)
    cut = sum(side.answer(each).finish == "length" for side in sides for each in suite.examples)
    told = [*notes, *_class_notes(suite, classes)]
    if cut:
        told.append(
            f"{counted(cut, 'answer')} ended at max_tokens ({suite.sampling.max_tokens}): give "
            "them more room, or count them as too long."
        )
    return {
        "suite": {
            "name": suite.name,
            "digest": suite.digest,
            "examples": len(suite.examples),
            "request": suite.sampling.fields(),
        },
        "candidate": asdict(candidate.route),
        "incumbent": asdict(incumbent.route) if incumbent else None,
        "summary": _summary(suite, measures, candidate, incumbent),
        "measures": measures,
        "classes": classes,
        "judged": judged and {"judge": judge and asdict(judge), **asdict(judged)},
        "regression": _regression(suite, candidate, passed_before),
        "probes": [_probes(suite, side) for side in sides],
        "probes_compared": incumbent and _probes_compared(suite, candidate, incumbent),
        "canaries": [_canaries(suite, side) for side in sides],
        "triggers": _triggers(suite, sides),
        "probed": probing.told(probed) if probed else None,
        "unanswered": _unanswered(candidate, probed),
        "errors": dict(sorted(errors.items())),
        "tokens_in": sum(answer.tokens_in for answer in answers),
        "tokens_out": sum(answer.tokens_out for answer in answers),
        "requests": len(answers),
        "seconds": round(seconds, 1),
        "notes": told,
        "examples": [_example(each, candidate, incumbent) for each in suite.examples],
    }


def _measures(suite: Suite, candidate: Side, incumbent: Side | None) -> list[dict[str, Any]]:
    """What all of an example's checks say, then each kind of check by itself."""
    if not suite.examples:
        return []
    first, *names = measure_names(suite)
    rows = [_measure(first, candidate.passed(), None if incumbent is None else incumbent.passed())]
    if names:
        of_checks = [_of_check(name, suite, candidate, incumbent) for name in names]
        rows += _held_apart(of_checks)
    return rows


def _of_check(name: str, suite: Suite, candidate: Side, incumbent: Side | None) -> dict[str, Any]:
    asked = [each for each in suite.examples if any(check.name == name for check in each.checks)]

    def passed(side: Side) -> list[bool]:
        return [
            all(why is None for check, why in side.problems(each) if check == name)
            for each in asked
        ]

    return _measure(name, passed(candidate), None if incumbent is None else passed(incumbent))


def _measure(name: str, candidate: list[bool], incumbent: list[bool] | None) -> dict[str, Any]:
    return {
        "name": name,
        "candidate": _share(candidate),
        "incumbent": None if incumbent is None else _share(incumbent),
        "compared": None if incumbent is None else asdict(compare(candidate, incumbent)),
    }


def _share(passed: Sequence[bool]) -> dict[str, Any]:
    return asdict(share(sum(passed), len(passed)))


def _held_apart(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Several are compared at once, so that some would differ by chance."""
    compared = [row["compared"] for row in rows if row["compared"] is not None]
    for each, p in zip(compared, adjusted([each["p"] for each in compared]), strict=True):
        each["p"], each["verdict"] = p, verdict(each["difference"], p)
    return rows


def _classes(suite: Suite, side: Side) -> dict[str, Any]:
    known = {normal(label) for label in suite.labels}
    pairs = [
        (each.expected, side.text(each) or "")
        for each in suite.examples
        if each.expected is not None and normal(each.expected) in known
    ]
    found: Confusion = confusion(suite.labels, pairs)
    return {
        "alias": side.route.alias,
        "labels": found.labels,
        "rows": found.rows,
        "of_each": [asdict(each) for each in found.of_each],
        "macro_recall": found.macro_recall,
    }


def _class_notes(suite: Suite, classes: Sequence[Mapping[str, Any]]) -> list[str]:
    if not classes:
        return []
    small = [
        f"{each['label']} ({each['recall']['of']})"
        for each in classes[0]["of_each"]
        if each["recall"]["of"] < _FEW_OF_A_CLASS
    ]
    if not small:
        return []
    return [f"Of some classes there is hardly an example, which tells nothing: {', '.join(small)}."]


def _regression(suite: Suite, candidate: Side, passed_before: Collection[str]) -> dict[str, Any]:
    asked = [e for e in suite.examples if e.must_pass or fingerprint(e) in passed_before]
    failed = [each.id for each in asked if not candidate.passes(each)]
    lost = len(set(passed_before) - {fingerprint(each) for each in suite.examples})
    return {"examples": len(asked), "failed": failed, "not_asked": lost}


def _probes(suite: Suite, side: Side) -> dict[str, Any]:
    """Where no answer came, neither is shown."""

    def said(prompts: Sequence[str]) -> list[tuple[str, bool]]:
        answers = [(p, side.answers[side.questions.of_probe(p).key]) for p in prompts]
        return [(p, declines(answer.text)) for p, answer in answers if answer.error is None]

    refused, answered = said(suite.must_refuse), said(suite.must_answer)
    return {
        "alias": side.route.alias,
        "refused": asdict(share(sum(it for _, it in refused), len(refused))),
        "answered": asdict(share(sum(not it for _, it in answered), len(answered))),
        "not_refused": [prompt for prompt, it in refused if not it],
        "not_answered": [prompt for prompt, it in answered if it],
    }


def _probes_compared(suite: Suite, candidate: Side, incumbent: Side) -> dict[str, Any]:
    """Prompt by prompt, where both answered."""

    def declined(side: Side, prompts: Sequence[str]) -> list[bool | None]:
        answers = [side.answers[side.questions.of_probe(each).key] for each in prompts]
        return [None if each.error is not None else declines(each.text) for each in answers]

    told = {}
    for name, prompts, wanted in (
        ("refused", suite.must_refuse, True),
        ("answered", suite.must_answer, False),
    ):
        pairs = zip(declined(candidate, prompts), declined(incumbent, prompts), strict=True)
        known = [(one, two) for one, two in pairs if one is not None and two is not None]
        one = [each is wanted for each, _ in known]
        told[name] = asdict(compare(one, [each is wanted for _, each in known]))
    return told


def _canaries(suite: Suite, side: Side) -> dict[str, Any]:
    """The secrets themselves are in no report."""
    found = []
    for at, canary in enumerate(suite.canaries, 1):
        ways = [
            way
            for way, ask in side.questions.of_canary(canary)
            if canary.is_in(way, side.answers[ask.key].text)
        ]
        if ways:
            found.append({"number": at, "before": canary.before, "ways": ways})
    return {
        "alias": side.route.alias,
        "extracted": asdict(share(len(found), len(suite.canaries))),
        "found": found,
    }


def _unanswered(candidate: Side, probed: Sequence[Probed]) -> int:
    """Of the questions that could show harm: who answers none shows none."""
    suite, questions = candidate.questions.suite, candidate.questions
    asks = [questions.of_probe(each) for each in (*suite.must_refuse, *suite.must_answer)]
    asks += [ask for each in suite.canaries for _, ask in questions.of_canary(each)]
    asks += [questions.of(each, t) for t in suite.triggers for each in questions.triggered]
    of_suite = sum(candidate.answers[ask.key].error is not None for ask in asks)
    return of_suite + sum(each.unanswered() for each in probed)


def _triggers(suite: Suite, sides: Sequence[Side]) -> list[dict[str, Any]]:
    found = [_of_side(suite, side) for side in sides]
    return [
        {"trigger": trigger, "sides": [each[at] for each in found]}
        for at, trigger in enumerate(suite.triggers)
    ]


def _of_side(suite: Suite, side: Side) -> list[dict[str, Any]]:
    """Several are tried at once, each in two ways, so that some would look like one by chance."""
    tried = [_triggered(trigger, side) for trigger in suite.triggers]
    ps = adjusted([p for _, ps in tried for p in ps])
    return [
        {**told, "is_suspicious": any(verdict(1.0, p) == BETTER for p in ps[2 * at : 2 * at + 2])}
        for at, (told, _) in enumerate(tried)
    ]


def _triggered(trigger: str, side: Side) -> tuple[dict[str, Any], tuple[float, float]]:
    """The same examples with the trigger and without: how surely more of them fail, and how
    surely one answer comes more often."""
    asked = side.questions.triggered
    before, after = [side.passes(e) for e in asked], [side.passes(e, trigger) for e in asked]
    plain = [normal(side.answer(each).text) for each in asked]
    said = [normal(side.answer(each, trigger).text) for each in asked]
    common = Counter(said).most_common(1)[0][0] if said else ""
    more = compare([each == common for each in said], [each == common for each in plain])
    passes: Compared = compare(after, before)
    told = {
        "alias": side.route.alias,
        "without": _share(before),
        "with": _share(after),
        "compared": asdict(passes),
        "common_answer": common[:200],
        "common_share": _share([each == common for each in said]),
    }
    return told, (
        passes.p if passes.difference < 0 else 1.0,
        more.p if more.difference > 0 else 1.0,
    )


def _example(example: Example, candidate: Side, incumbent: Side | None) -> dict[str, Any]:
    return {
        "id": example.id,
        "fingerprint": fingerprint(example),
        "messages": list(example.messages),
        "expected": example.expected,
        "expected_calls": [asdict(call) for call in example.expected_calls],
        "candidate": _answered(example, candidate),
        "incumbent": None if incumbent is None else _answered(example, incumbent),
    }


def _answered(example: Example, side: Side) -> dict[str, Any]:
    answer = side.answer(example)
    return {
        "text": answer.text,
        "calls": [asdict(call) for call in answer.calls],
        "error": answer.error,
        "passed": side.passes(example),
        "why": [f"{name}: {why}" for name, why in side.problems(example) if why is not None],
    }


def _summary(
    suite: Suite, measures: Sequence[Mapping[str, Any]], candidate: Side, incumbent: Side | None
) -> str:
    name = candidate.route.alias
    if not measures:
        return f"{name} was asked the probes of {suite.name} alone: it has no examples."
    first = measures[0]
    told = f"On {suite.name}, {name} passes {percent(Share(**first['candidate']))}"
    if incumbent is None:
        return f"{told}."
    compared, other = first["compared"], percent(Share(**first["incumbent"]))
    told += f", {incumbent.route.alias} {other}"
    points = f"{compared['difference'] * 100:+.1f} points"
    room = f"{compared['low'] * 100:+.1f} to {compared['high'] * 100:+.1f}"
    if compared["verdict"] in ("better", "worse"):
        return (
            f"{told}: {compared['verdict']} by {points} ({room} at 95 %, {chance(compared['p'])})."
        )
    needed = compared["needed"]
    more = f"; about {needed:,} examples would tell such a difference apart" if needed else ""
    return f"{told}: not told apart at 95 % ({points}, {room}, {chance(compared['p'])}){more}."


def percent(found: Share) -> str:
    if found.share is None:
        return "none"
    return (
        f"{found.share * 100:.1f} % of {counted(found.of, 'example')} "
        f"({found.low * 100:.1f} to {found.high * 100:.1f} %)"
    )


def chance(p: float) -> str:
    return "p < 0.001" if p < 0.001 else f"p = {p:.2g}"
