"""What the fields of a workload cannot be together."""

import re
from collections.abc import Callable, Iterator
from difflib import get_close_matches
from math import log10

from freehold.config.lined import Lined
from freehold.config.workload_file import MOST_A_DAY, WorkloadFile
from freehold.core.places import AREAS, PLACES, is_within, light_ms

_At = Callable[[str], str]  # a field, and its line where it has one

_KNOWN = frozenset({*PLACES, *AREAS, *(code for area in AREAS.values() for code in area)})

# For how many days each asks that what was said is kept.
_KEEPING = {
    "sec_17a_4": (3 * 365, "17 CFR 240.17a-4(b)(4): communications for three years"),
    "mifid_2": (5 * 365, "Directive 2014/65/EU, article 16(7): communications for five years"),
    "eu_ai_act_high_risk": (183, "Regulation (EU) 2024/1689, article 26(6): logs for six months"),
}
_CERTIFICATIONS = ("soc2_type2", "iso_27001", "hipaa_baa", *_KEEPING)
_SHORT = {"soc2": "soc2_type2", "hipaa": "hipaa_baa", "baa": "hipaa_baa"}


def conflicts(made: WorkloadFile, file: Lined) -> Iterator[tuple[str, str]]:
    """The field to mend, and what conflicts with what."""

    def at(field: str) -> str:
        line = file.lines.get(tuple(field.split(".")))
        return f"{field} (line {line})" if line else field

    if made.peak and (made.hours or made.weekdays):
        other = "hours" if made.hours else "weekdays"
        yield "peak", f"it says when requests come, and so does {at(other)}: keep one of them."
    yield from _growth_conflicts(made, at)
    yield from _length_conflicts(made, at)
    yield from _place_conflicts(made, at)
    yield from _keeping_conflicts(made, at)
    yield from _misspelt(made)
    targets = made.targets
    if targets.whole_p95 and targets.ttft_p95 and targets.whole_p95 < targets.ttft_p95:
        yield (
            "targets.whole_p95",
            f"a whole answer within {targets.whole_p95:g} s cannot begin after the "
            f"{targets.ttft_p95:g} s of {at('targets.ttft_p95')}.",
        )
    if made.tuning is not None and (made.tuning.tokens == 0 or made.tuning.runs_per_month == 0):
        yield "tuning", "runs and tokens must be more than zero: leave tuning out for none."


def _growth_conflicts(made: WorkloadFile, at: _At) -> Iterator[tuple[str, str]]:
    months = made.horizon - 1
    grown = log10(made.requests_per_day) + months * log10(1 + made.growth_per_month)
    if grown > log10(MOST_A_DAY):
        yield (
            "growth_per_month",
            f"with it the requests of {at('requests_per_day')} are more than one a day for "
            f"everybody alive by the end of {at('horizon')}.",
        )


def _keeping_conflicts(made: WorkloadFile, at: _At) -> Iterator[tuple[str, str]]:
    rules = made.rules
    if rules.retention is None:
        return
    for name in rules.certifications:
        least, why = _KEEPING.get(name, (0, ""))
        if rules.retention < least:
            yield (
                "rules.retention",
                f"{rules.retention} days at most exclude {name} in "
                f"{at('rules.certifications')}, which asks for {least:,} at least ({why}).",
            )
    if rules.retention == 0 and rules.may_train_on_data:
        yield (
            "rules.may_train_on_data",
            f"what {at('rules.retention')} lets nobody keep cannot be trained on.",
        )


def _misspelt(made: WorkloadFile) -> Iterator[tuple[str, str]]:
    """Others than those known here may be asked for, but not one of them in another spelling:
    nobody would have it."""
    for name in made.rules.certifications:
        bare = re.sub(r"[^a-z0-9]", "", name.lower())
        meant = next((each for each in _CERTIFICATIONS if each.replace("_", "") == bare), name)
        meant = _SHORT.get(bare, meant)
        if meant != name:
            yield "rules.certifications", f"{name!r} is known as {meant}: write it so."


def _length_conflicts(made: WorkloadFile, at: _At) -> Iterator[tuple[str, str]]:
    if made.context_length is None:
        return
    prompt, answer = made.prompt.quantiles[-1], made.answer.quantiles[-1]
    if answer >= made.context_length:
        yield (
            "answer",
            f"answers of {answer:,} tokens do not fit into the {made.context_length:,} of "
            f"{at('context_length')}.",
        )
    if prompt + answer > made.context_length:
        yield (
            "prompt",
            f"prompts of {prompt:,} tokens and answers of {answer:,} do not fit into the "
            f"{made.context_length:,} of {at('context_length')}.",
        )


def _place_conflicts(made: WorkloadFile, at: _At) -> Iterator[tuple[str, str]]:
    told = [(field, getattr(made, field)) for field in ("region", "users_region")]
    told += [("rules.residency", each) for each in made.rules.residency]
    for field, named in told:
        if named is None or named in _KNOWN or (field == "rules.residency" and _is_code(named)):
            continue
        near = get_close_matches(named.lower(), sorted(_KNOWN), 1)
        hint = f"did you mean {near[0]}?" if near else "write a country as de, or a cloud's."
        yield field, f"{named!r} is no region that is known here; {hint}"
    if made.region is None:
        return
    residency = made.rules.residency
    if residency and all(is_within(made.region, area) is False for area in residency):
        yield (
            "region",
            f"{made.region} lies outside of what {at('rules.residency')} allows: "
            f"{', '.join(residency)}.",
        )
    if made.users_region is None:
        return
    least = light_ms(made.users_region, made.region)
    for field in ("ttft_p95", "whole_p95"):
        wanted = getattr(made.targets, field)
        if least is not None and wanted is not None and wanted * 1000 < least:
            yield (
                f"targets.{field}",
                f"{wanted * 1000:,.0f} ms is less than light takes from {at('users_region')} "
                f"{made.users_region} to {at('region')} {made.region} and back, {least:,.0f} ms.",
            )


def _is_code(name: str) -> bool:
    """Of a country that no provider of ours names: nobody is there, which a plan says."""
    return len(name) == 2 and name.isalpha() and name.islower()
