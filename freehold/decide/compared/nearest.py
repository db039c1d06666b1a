"""Where nothing does the work: which wishes exclude each other, and what is nearest to them that
would do."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce

from freehold.core.plan import Way, Workload
from freehold.decide.compared.wishes import Change, Wish, wishes
from freehold.decide.money.money import a_month, shown
from freehold.decide.ways.planner import Plan, Ranked

Planned = Callable[[Workload], Plan]
Feasible = Callable[[Workload], bool]
_SIMULATED = (
    "By the formulas something meets the targets, and by the simulation of its busiest hour nothing"
    " does: give the targets more time."
)


@dataclass(frozen=True, slots=True)
class Near:
    """What would do if these wishes gave way so far, each by as little as is enough."""

    fields: tuple[str, ...]
    instead: tuple[str, ...]  # "with a deadline of 29 days instead of 10"
    workload: Workload
    best: Ranked
    steps: int  # that were given way

    @property
    def sentence(self) -> str:
        words = " and ".join(self.instead)
        price = f"{shown(a_month(self.best.cost.parts), 0)} a month"
        return f"{_upper(words)}, {told(self.best)} would do at {price}."


@dataclass(frozen=True, slots=True)
class Nothing:
    conflict: str  # one sentence
    near: tuple[Near, ...]  # the least that gives way first


def nearest(workload: Workload, planned: Planned, feasible: Feasible) -> Nothing:
    """`feasible` is whether `planned` has any option, and says so sooner. One wish at a time gives
    way, by halving its steps until the least that is enough; where no single one is, the fewest
    together, those that are hardest to give way in kept first."""
    if feasible(workload):
        return Nothing(_SIMULATED, ())
    every = wishes(workload)
    near = [found for wish in every if (found := _alone(wish, workload, planned, feasible))]
    if near:
        hard = {wish.field: wish.hard for wish in every}
        near.sort(key=lambda each: (hard[each.fields[0]], each.steps))
        helping = {each.fields[0] for each in near}
        return Nothing(_excluding([each for each in every if each.field in helping]), tuple(near))
    both = _together(every, workload, planned, feasible)
    if both is None:
        return Nothing("Nothing does it, whatever is given up: no option holds such requests.", ())
    chosen, found = both
    words = " and ".join(wish.words for wish in chosen)
    return Nothing(_doing(words, "and giving way in one of them is not enough"), (found,))


def _excluding(every: Sequence[Wish]) -> str:
    wished = [each.words for each in every if each.hard]
    if not wished:
        return f"What passes cannot be told: there is {' and '.join(e.words for e in every)}."
    if len(wished) == 1:
        return _doing(wished[0], "all else as it is")
    return f"{_upper(', '.join(wished[:-1]))} and {wished[-1]} exclude each other."


def _doing(words: str, then: str) -> str:
    return f"Nothing does the work with {words}, {then}."


def _upper(words: str) -> str:
    return words[0].upper() + words[1:]


def _alone(wish: Wish, workload: Workload, planned: Planned, feasible: Feasible) -> Near | None:
    step = _least(wish, workload, feasible)
    if step is None:
        return None
    words, change = wish.steps[step]
    changed = change(workload)
    return Near((wish.field,), (words,), changed, planned(changed).ranked[0], step + 1)


def _least(wish: Wish, workload: Workload, feasible: Feasible) -> int | None:
    """The first step that is enough; None where none is."""
    if not feasible(wish.given_up(workload)):
        return None
    fewest, enough = 0, len(wish.steps) - 1
    while fewest < enough:
        middle = (fewest + enough) // 2
        if feasible(wish.steps[middle][1](workload)):
            enough = middle
        else:
            fewest = middle + 1
    return enough


def _together(
    every: Sequence[Wish], workload: Workload, planned: Planned, feasible: Feasible
) -> tuple[list[Wish], Near] | None:
    hardest_first = sorted(every, key=lambda each: -each.hard)
    given = list(hardest_first)
    if not feasible(_changed(workload, [wish.given_up for wish in given])):
        return None
    for wish in hardest_first:
        rest = [each for each in given if each is not wish]
        if feasible(_changed(workload, [each.given_up for each in rest])):
            given = rest
    chosen = {id(wish): len(wish.steps) - 1 for wish in given}
    for wish in given:
        others = [each.steps[chosen[id(each)]][1] for each in given if each is not wish]
        step = _least(wish, _changed(workload, others), feasible)
        if step is not None:
            chosen[id(wish)] = step
    given.reverse()
    made = [wish.steps[chosen[id(wish)]] for wish in given]
    changed = _changed(workload, [change for _, change in made])
    fields, words = tuple(wish.field for wish in given), tuple(words for words, _ in made)
    return given, Near(
        fields, words, changed, planned(changed).ranked[0], sum(chosen.values()) + len(given)
    )


def _changed(workload: Workload, changes: Sequence[Change]) -> Workload:
    return reduce(lambda work, change: change(work), changes, workload)


def told(best: Ranked) -> str:
    """An option in words: what on what, and whose."""
    option, sized = best.option, best.sized
    model = option.model + (f" in {option.precision}" if option.precision else "")
    if option.way is Way.API or sized is None:
        return f"{model} of {option.provider}"
    count = sized.replicas * option.accelerators_a_replica
    whose = {
        Way.OWNED: "of your own",
        Way.AT_HAND: "at hand",
        Way.MIXED: f"of your own beside {option.details.get('peaks')} of {option.provider}",
    }.get(option.way, " ".join(w for w in (f"of {option.provider}", option.region) if w))
    return f"{count} x {option.accelerator} {whose} with {model}"
