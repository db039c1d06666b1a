"""Whether a model's licence allows what is planned: by what is published of it."""

import re
from collections.abc import Iterator

from freehold.core.facts import ModelFacts
from freehold.core.plan import Judged, Rules, Verdict, Workload
from freehold.decide.rules.places import is_in

# "free unless >700M monthly active users", "free up to 100M MAU"
_USERS = re.compile(r"(\d+)\s*M\s*(?:MAU|monthly active users)", re.IGNORECASE)
_NOT_IN_EU = re.compile(r"multimodal[^;]*: not licensed to EU|multimodal variants not licensed")
_UNVERIFIED = "[UNVERIFIED]"


# What may be done under well-known licences, by the first letters of their SPDX names. "terms" are
# kept by naming the authors, or by sharing alike what is given on.
_MAY = {
    "own": "yes",
    **dict.fromkeys(
        ("apache-", "mit", "bsd-", "isc", "cc0-", "unlicense", "pddl-", "cdla-permissive"), "yes"
    ),
    **dict.fromkeys(("cc-by-nc", "proprietary-research", "mrl"), "not sold"),
    "cc-by-nd": "not changed",
    **dict.fromkeys(("cc-by-sa", "odbl-", "cdla-sharing", "gpl-", "agpl-"), "shared alike"),
    **dict.fromkeys(("cc-by-", "odc-by", "bigscience-openrail", "openrail"), "terms"),
}


def judge_used(workload: Workload) -> tuple[Judged, ...]:
    """The licences of what goes into the work: of adapters, and of the data that they are trained
    on. What was not said is taken to be one's own, which `own` says."""
    found, rules = [], workload.rules
    if workload.tenants_with_adapters and workload.adapter_licence is not None:
        found.append(_used("licence: adapters", "adapters", workload.adapter_licence, rules))
    if workload.tuning is not None and workload.tuning.data_licence is not None:
        found.append(_used("licence: training data", "data", workload.tuning.data_licence, rules))
    return tuple(found)


def _used(rule: str, what: str, licence: str, rules: Rules) -> Judged:
    name = licence.strip().lower()
    begins = next((each for each in _MAY if name.startswith(each)), None)
    may = _MAY.get(begins or "")
    page = None if begins in {None, "own"} else "https://spdx.org/licenses/"
    if may == "not sold":
        verdict = Verdict.FAIL if rules.commercial_use else Verdict.PASS
        why = f"{licence} of the {what} allows no commercial use."
        return Judged(rule, verdict, why, page)
    if what == "data" and may in {"not changed", "shared alike"}:
        why = (
            f"Whether what is trained on data under {licence} is a work made from them, so that it"
            " must be given on alike or not at all, no court has settled: ask a lawyer."
        )
        return Judged(rule, Verdict.UNKNOWN, why, page)
    if may is None:
        why = f"What {licence[:80]} allows is not known here: say an SPDX name, or own for yours."
        return Judged(rule, Verdict.UNKNOWN, why, None)
    return Judged(rule, Verdict.PASS, f"{licence} of the {what} allows it.", page)


def judge_licence(model: ModelFacts, workload: Workload) -> tuple[Judged, ...]:
    source = _source(model)
    return tuple(_judged(model, workload.rules, workload.region, source))


def _judged(
    model: ModelFacts, rules: Rules, region: str | None, source: str | None
) -> Iterator[Judged]:
    licence, restriction = model.licence, model.licence_restriction
    if model.may_be_sold is None:
        why = f"Nobody that we could read says under which licence {model.name} is given."
        yield Judged("licence", Verdict.UNKNOWN, why, source)
        return
    if not model.may_be_sold and rules.commercial_use:
        why = f"{licence} allows no commercial use: {restriction or 'none is granted'}."
        yield Judged("licence", Verdict.FAIL, why, source)
        return
    if restriction is None:
        use = "commercial use" if model.may_be_sold else "use that is not commercial"
        yield Judged("licence", Verdict.PASS, f"{licence} allows {use}.", source)
        return
    if _UNVERIFIED in restriction:
        why = f"{licence} restricts use in a way that nobody has verified: {restriction}."
        yield Judged("licence", Verdict.UNKNOWN, why, source)
        return
    yield Judged(
        "licence", Verdict.PASS, f"{licence} allows it under terms: {restriction}.", source
    )
    limit = _USERS.search(restriction)
    if limit:
        yield _users(int(limit[1]) * 1_000_000, rules.users_a_month, licence, source)
    if _NOT_IN_EU.search(restriction):
        yield _in_eu(model, region, source)


def _users(limit: int, users: int | None, licence: str, source: str | None) -> Judged:
    allowed = f"{licence} is free up to {limit:,} users a month of all that a company offers"
    if users is None:
        why = f"{allowed}; say rules.users_a_month."
        return Judged("licence: users", Verdict.UNKNOWN, why, source)
    verdict = Verdict.PASS if users <= limit else Verdict.FAIL
    return Judged("licence: users", verdict, f"{allowed}, and there are {users:,}.", source)


def _in_eu(model: ModelFacts, region: str | None, source: str | None) -> Judged:
    """Where the licence speaks of variants, the model of the facts is the one for text alone."""
    rule = "licence: EU"
    if model.licence_restriction and "multimodal variants" in model.licence_restriction:
        why = f"What the EU is left out of are other variants than {model.name}, which reads text."
        return Judged(rule, Verdict.PASS, why, source)
    here = is_in(region, "eu")
    if here is None:
        why = f"{model.licence} leaves companies in the EU out; say region."
        return Judged(rule, Verdict.UNKNOWN, why, source)
    verdict = Verdict.FAIL if here else Verdict.PASS
    why = f"{model.licence} leaves companies in the EU out, and this one is in {region}."
    return Judged(rule, verdict, why, source)


def _source(model: ModelFacts) -> str | None:
    named = (each.where for each in model.sources if each.what == "licence")
    return next(named, model.sources[0].where if model.sources else None)
