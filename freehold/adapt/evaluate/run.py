"""An evaluation from its questions to its result."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from freehold.adapt.evaluate import judge as judging
from freehold.adapt.evaluate.asking import Ask, Gateway, Route
from freehold.adapt.evaluate.cost import cost
from freehold.adapt.evaluate.example import Answer, Example
from freehold.adapt.evaluate.judge import Judged
from freehold.adapt.evaluate.kept import Kept
from freehold.adapt.evaluate.loss import held_out_loss
from freehold.adapt.evaluate.probing import Probed, Probing
from freehold.adapt.evaluate.questions import Questions, asked
from freehold.adapt.evaluate.result import Side, result
from freehold.adapt.evaluate.suite import Suite
from freehold.core.errors import Code, UserError


@dataclass(frozen=True, slots=True)
class Wanted:
    suite: Suite
    candidate: str
    incumbent: str | None = None
    judge: str | None = None
    passed_before: frozenset[str] = frozenset()  # fingerprints of examples
    notes: tuple[str, ...] = ()
    base: str | None = None  # the route of the bare base, where it is not the incumbent
    probing: Probing | None = None


Tell = Callable[[str, int, int], None]  # what is done, and how far


async def evaluate(
    gateway: Gateway, wanted: Wanted, kept: Kept, tell: Tell, *, may_look: bool = True
) -> dict[str, Any]:
    """The result as plain values. Answers that are kept already are not asked for again. Without
    `may_look`, what only who administers may see is for the caller to add."""
    started = time.monotonic()
    routes = await _routes(gateway, wanted)
    asking = _Asking(gateway, kept, tell, {each.alias: each for each in routes.values()})
    questions: dict[str, Questions] = {
        name: Questions(wanted.suite, routes[name])
        for name in ("candidate", "incumbent")
        if name in routes
    }
    await asking.all("answers", [ask for each in questions.values() for ask in each.all()])
    sides = {name: Side(each, kept.answers) for name, each in questions.items()}
    for side in sides.values():
        _check_answered(side, wanted.suite)
    probed = _probed(wanted, routes, kept)
    await asking.all("probes", [ask for each in probed for ask in each.all()])
    judged = None
    if "judge" in routes:
        judged = await _judged(asking, wanted.suite, routes["judge"], sides)
    found = result(
        wanted.suite,
        sides["candidate"],
        sides.get("incumbent"),
        routes.get("judge"),
        judged,
        wanted.passed_before,
        notes=[*wanted.suite.notes, *wanted.notes, *_notes(routes)],
        used=asking.used,
        seconds=time.monotonic() - started,
        probed=probed,
    )
    if not may_look:
        return found
    losses = [await held_out_loss(gateway, side.route) for side in sides.values()]
    return {**found, "held_out_loss": losses, **await cost(gateway, asking.request_ids)}


def _probed(wanted: Wanted, routes: Mapping[str, Route], kept: Kept) -> list[Probed]:
    """Of the candidate, and of the bare base where there is one beside it."""
    if wanted.probing is None:
        return []
    asked = [routes["candidate"]]
    # An incumbent may have learned the same: only a bare base excuses.
    bare = routes.get("base") or routes.get("incumbent")
    if bare is not None and bare.adapter_digest is None and bare.made_by != asked[0].made_by:
        asked.append(bare)
    return [Probed(wanted.probing, wanted.suite, each, kept.answers) for each in asked]


def _check_answered(side: Side, suite: Suite) -> None:
    """Raises `UserError` where nothing was answered at all: that says nothing of answers."""
    errors = [side.answer(each).error for each in suite.examples]
    if errors and errors[0] is not None and None not in errors:
        raise UserError(
            Code(errors[0]),
            f"{side.route.alias} answered none of the {len(errors):,} examples ({errors[0]}): ask "
            "it one with `freehold chat`, which says why.",
        )


async def _routes(gateway: Gateway, wanted: Wanted) -> dict[str, Route]:
    named = {
        "candidate": wanted.candidate,
        "incumbent": wanted.incumbent,
        "judge": wanted.judge,
        "base": wanted.base,
    }
    return {name: await gateway.route(alias) for name, alias in named.items() if alias is not None}


def _notes(routes: Mapping[str, Route]) -> list[str]:
    """What an upstream answers with is not known, so that nothing is said of that."""
    made_by = {name: each.made_by for name, each in routes.items() if each.model_digest}
    candidate, incumbent = made_by.get("candidate"), made_by.get("incumbent")
    found = []
    if candidate is not None and candidate == incumbent:
        found.append("Both aliases lead to the same weights: they differ by chance alone.")
    if made_by.get("judge") in {candidate, incumbent} - {None}:
        found.append("The judge judges answers of its own: models prefer what they wrote.")
    return found


class _Asking:
    def __init__(
        self, gateway: Gateway, kept: Kept, tell: Tell, routes: Mapping[str, Route]
    ) -> None:
        self._gateway, self._kept, self._tell, self._routes = gateway, kept, tell, routes
        self.used: set[str] = set()

    @property
    def request_ids(self) -> set[str]:
        """Of what an answer came of."""
        return {self._kept.answers[key].request_id for key in self.used} - {""}

    def answer(self, ask: Ask) -> Answer:
        return self._kept.answers[ask.key]

    async def all(self, what: str, asks: Sequence[Ask]) -> None:
        wanted = {ask.key: ask for ask in asks}
        self.used |= wanted.keys()
        left = [ask for key, ask in wanted.items() if key not in self._kept.answers]
        done = len(wanted) - len(left)
        self._tell(what, done, len(wanted))

        def waits(why: str) -> None:
            self._tell(f"{what} ({why})", done, len(wanted))

        async for ask, answer in self._gateway.answers(left, waits):
            self._check(ask, answer)
            self._kept.add(ask.key, answer)
            done += 1
            self._tell(what, done, len(wanted))

    def _check(self, ask: Ask, answer: Answer) -> None:
        if answer.error is None and answer.made_by != self._routes[ask.alias].made_by:
            raise UserError(
                Code.CONFLICT,
                f"{ask.alias} led elsewhere while it was evaluated: evaluate it again, once its "
                "route stays.",
            )


async def _judged(asking: _Asking, suite: Suite, judge: Route, sides: Mapping[str, Side]) -> Judged:
    """Of the pairs where both have an answer; two that are the same are a tie, and no question.
    Without an incumbent, the expected answer is what the candidate is held against."""
    pairs, same = [], 0
    for example in suite.examples:
        one = sides["candidate"].text(example)
        other = sides["incumbent"].text(example) if "incumbent" in sides else example.expected
        reference = example.expected if "incumbent" in sides else None
        if one is None or other is None:
            continue
        if one == other:
            same += 1
        else:
            pairs.append(_both_orders(judge, suite, example, one, other, reference))
    await asking.all("judgements", [ask for pair in pairs for ask in pair])
    said = [(_said(asking.answer(one)), _said(asking.answer(two))) for one, two in pairs]
    return judging.judged([*said, *[("TIE", "TIE")] * same])


def _both_orders(
    judge: Route, suite: Suite, example: Example, one: str, other: str, reference: str | None
) -> tuple[Ask, Ask]:
    orders = [
        asked(
            judge,
            {
                **suite.sampling.fields(),
                **judging.asked(example.messages, *order, suite.criterion, reference),
            },
        )
        for order in ((one, other), (other, one))
    ]
    return orders[0], orders[1]


def _said(answer: Answer) -> str | None:
    return None if answer.error is not None else judging.read(answer.text)
