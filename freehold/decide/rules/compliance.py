"""Whether a provider may have the data, by what it publishes. A rule passes only where that says
so; what nobody says is unknown, and unknown is no pass."""

import re
from collections.abc import Iterable

from freehold.core.facts import Facts, ProviderTerms
from freehold.core.plan import Judged, Rules, Verdict, Way
from freehold.decide.rules.places import EVERYWHERE, place, within

DATA_CLASSES = ("public", "internal", "confidential", "personal", "health")
CERTIFICATIONS = {"soc2_type2": "SOC 2 Type 2", "iso_27001": "ISO 27001", "hipaa_baa": "a BAA"}
_OWN = frozenset({Way.OWNED, Way.AT_HAND})
_DAYS = re.compile(r"(\d+) days")
# Whose price list is that of another name's terms. Prices of the same models at Vertex AI are
# assumed to be those of the Gemini API.
KNOWN_AS = {"Google (Gemini API)": "Google (Vertex AI / Gemini)"}


def passes(judged: Iterable[Judged]) -> bool:
    return all(each.verdict is Verdict.PASS for each in judged)


def terms_of(provider: str | None, terms: Iterable[ProviderTerms]) -> ProviderTerms | None:
    name = KNOWN_AS.get(provider or "", provider)
    return next((each for each in terms if each.provider == name), None)


def judge_provider(
    way: Way, terms: ProviderTerms | None, provider: str | None, region: str | None, rules: Rules
) -> tuple[Judged, ...]:
    """`region` is where machines stand; an API is where its terms say that it can be."""
    judged = []
    if rules.residency:
        judged.append(_residency(way, terms, provider, region, rules.residency))
    judged += [_certified(way, terms, provider, name) for name in sorted(rules.certifications)]
    judged += _data_class(way, terms, provider, region, rules)
    if rules.retention_days is not None:
        judged.append(_retention(way, terms, provider, rules.retention_days))
    if not rules.may_train_on_data:
        judged.append(_trains(way, terms, provider))
    return tuple(judged)


def judge_by_name(
    way: Way, provider: str | None, region: str | None, rules: Rules, facts: Facts
) -> tuple[Judged, ...]:
    return judge_provider(way, terms_of(provider, facts.terms), provider, region, rules)


def _residency(
    way: Way,
    terms: ProviderTerms | None,
    provider: str | None,
    region: str | None,
    allowed: frozenset[str],
) -> Judged:
    wanted = " or ".join(sorted(allowed))
    if way is Way.API:
        return _api_residency(terms, provider, allowed, wanted)
    where = "The machines are" if way in _OWN else f"{provider} runs the machines"
    inside = within(region, allowed)
    if inside is None:
        at = f"in {region}" if region else "in a region that is not said"
        why = f"{where} {at}, and whether that is in {wanted} is not known."
        return Judged("residency", Verdict.UNKNOWN, why, _page(terms))
    verdict = Verdict.PASS if inside else Verdict.FAIL
    why = f"{where} in {region} ({place(region)}), and data may be in {wanted}."
    return Judged("residency", verdict, why, _page(terms))


def _api_residency(
    terms: ProviderTerms | None, provider: str | None, allowed: frozenset[str], wanted: str
) -> Judged:
    regions = terms.regions if terms else ()
    if not regions:
        why = f"{provider} does not publish where it computes, and data may be in {wanted}."
        return Judged("residency", Verdict.UNKNOWN, why, _page(terms))
    found = [within(each, allowed) for each in regions]
    notes = f" {terms.residency_notes}" if terms and terms.residency_notes else ""
    listed = ", ".join(regions)
    if True in found:
        why = f"{provider} can compute in {listed}, and data may be in {wanted}.{notes}"
        return Judged("residency", Verdict.PASS, why, _page(terms))
    if None in found:
        why = f"{provider} computes in {listed}, which may be elsewhere than {wanted}.{notes}"
        return Judged("residency", Verdict.UNKNOWN, why, _page(terms))
    why = f"{provider} computes in {listed}, and data may only be in {wanted}.{notes}"
    return Judged("residency", Verdict.FAIL, why, _page(terms))


def _certified(way: Way, terms: ProviderTerms | None, provider: str | None, name: str) -> Judged:
    title = CERTIFICATIONS.get(name, name)
    if way in _OWN:
        why = f"The machines are your own: nobody else runs them who would need {title}."
        return Judged(name, Verdict.PASS, why, None)
    return _published(name, title, terms, provider)


def _published(rule: str, title: str, terms: ProviderTerms | None, provider: str | None) -> Judged:
    said = terms.certifications.get(rule) if terms else None
    verdict = _says(said)
    why = {
        Verdict.PASS: f"{provider} has {title}: {said}.",
        Verdict.FAIL: f"{provider} does not have {title}: {said}.",
        Verdict.UNKNOWN: f"Whether {provider} has {title} is not published"
        f"{f': {said}' if said else ''}.",
    }[verdict]
    return Judged(rule, verdict, why, _page(terms))


def _data_class(
    way: Way,
    terms: ProviderTerms | None,
    provider: str | None,
    region: str | None,
    rules: Rules,
) -> list[Judged]:
    """Personal data need a contract with whoever processes them (GDPR, article 28), health data
    in the United States a BAA (45 CFR 164.504(e)). For confidential data we ask for a report or
    a certificate of an auditor."""
    name = rules.data_class
    if name not in DATA_CLASSES:
        why = f"There is no data class {name!r}; there are {', '.join(DATA_CLASSES)}."
        return [Judged("data class", Verdict.UNKNOWN, why, None)]
    if way in _OWN or name in {"public", "internal"}:
        whose = (
            "need no contract on your own machines"
            if way in _OWN
            else "need no contract beside the terms"
        )
        return [Judged("data class", Verdict.PASS, f"Data that are {name} {whose}.", None)]
    if name == "confidential":
        return [_audited(terms, provider)]
    needed = [_published("dpa", "a data processing agreement", terms, provider)]
    if name == "health" and _may_be_in_us(region, rules.residency):
        needed.append(_published("hipaa_baa", "a business associate agreement", terms, provider))
    return needed


def _may_be_in_us(region: str | None, residency: frozenset[str]) -> bool:
    places = [place(each) for each in (*residency, *([region] if region else []))]
    return not places or any(each in {None, "us", EVERYWHERE} for each in places)


def _audited(terms: ProviderTerms | None, provider: str | None) -> Judged:
    found = [
        _published(name, CERTIFICATIONS[name], terms, provider)
        for name in ("soc2_type2", "iso_27001")
    ]
    best = next((each for each in found if each.verdict is Verdict.PASS), found[0])
    return Judged("data class", best.verdict, f"Data are confidential. {best.why}", best.source)


def _retention(way: Way, terms: ProviderTerms | None, provider: str | None, days: int) -> Judged:
    if way is not Way.API:
        why = "What is asked and answered is kept only where your own software keeps it."
        return Judged("retention", Verdict.PASS, why, None)
    said = terms.zero_retention if terms else None
    kept = _DAYS.search(said or "")
    if kept and int(kept[1]) <= days:
        why = f"{provider} keeps what is asked for {kept[1]} days, and {days} are allowed."
        return Judged("retention", Verdict.PASS, why, _page(terms))
    if _says(said) is Verdict.PASS:
        why = f"{provider} can keep nothing, and it must be asked for: {said}."
        return Judged("retention", Verdict.PASS, why, _page(terms))
    why = f"How long {provider} keeps what is asked is not published{f': {said}' if said else ''}."
    verdict = Verdict.FAIL if _says(said) is Verdict.FAIL else Verdict.UNKNOWN
    return Judged("retention", verdict, why, _page(terms))


def _trains(way: Way, terms: ProviderTerms | None, provider: str | None) -> Judged:
    rule = "training on data"
    if way is not Way.API:
        why = "The model runs on machines that you run it on: no service reads what is asked."
        return Judged(rule, Verdict.PASS, why, None)
    said = terms.trains_on_data if terms else None
    words = (said or "").lower().removeprefix("paid api ")
    verdict = {Verdict.PASS: Verdict.FAIL, Verdict.FAIL: Verdict.PASS}.get(
        _says(words or None), Verdict.UNKNOWN
    )
    if said is None:
        why = f"Whether {provider} trains on what is asked is not published."
    else:
        why = f"Whether {provider} trains on what is asked: {said}."
    return Judged(rule, verdict, why, _page(terms))


def _says(text: str | None) -> Verdict:
    """Sentences of the facts begin with yes or no; what begins otherwise settles nothing."""
    words = (text or "").lower().replace(",", " ").split()
    if not words or words[:3] == ["no", "public", "evidence"]:
        return Verdict.UNKNOWN
    return {"yes": Verdict.PASS, "no": Verdict.FAIL, "no;": Verdict.FAIL}.get(
        words[0], Verdict.UNKNOWN
    )


def _page(terms: ProviderTerms | None) -> str | None:
    return terms.sources[0].where if terms and terms.sources else None
