"""Whether a recorded decision still holds: what was predicted beside what was measured, and what
would be decided today."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from freehold.core.plan import Judged, Verdict, Way
from freehold.decide.outcome.checked import AGAIN, Checked, Departure, Kind, Now
from freehold.decide.outcome.drift import LEAST_DAYS, drifted, figures_of
from freehold.decide.outcome.measured import Measured

CHEAPER = 0.95  # of what is paid: by less, nobody moves
OLD_DAYS = 180


def check(
    decision_id: str,
    content: Mapping[str, Any],
    found: Measured,
    months: float,
    now: Now,
    targets: Mapping[str, float | None],
    ceiling: float,
) -> Checked:
    """`months` since it was decided, `targets` of `ttft_ms` and `tpot_ms`, `ceiling` how busy
    machines may be."""
    paid = _paid(content, now)
    figures = tuple(figures_of(content, found, months, paid, targets, ceiling))
    departed = [
        *drifted(decision_id, content, found, figures),
        *_cheaper(decision_id, content, now, paid),
        *_rules(decision_id, content, now.judged),
        *_facts(decision_id, content, now),
    ]
    is_judged = found.days >= LEAST_DAYS
    return Checked(not departed, is_judged, figures, tuple(departed), paid, now.alternatives)


def _paid(content: Mapping[str, Any], now: Now) -> float | None:
    """A month's cost of what was decided for: machines as they were taken, at today's price
    where they are rented; tokens as they are bought now."""
    way, predicted = content["option"]["way"], content["predicted"]
    if way in (Way.API, Way.MIXED):
        return now.again
    hosted = float(predicted["machines_a_month"] or 0.0)
    more = hosted * ((now.price_ratio or 1.0) - 1)
    return float(predicted["a_month"]) + more


def _cheaper(
    decision_id: str, content: Mapping[str, Any], now: Now, paid: float | None
) -> Iterator[Departure]:
    """What was not cheaper when it was decided and is now, by what is paid from now on."""
    if paid is None:
        return
    way, months = content["option"]["way"], content["horizon_months"]
    then = {each["way"]: each for each in content["runners_up"]}
    whole = content["predicted"]["over_horizon"]
    for each in now.alternatives:
        before = then.get(each.way)
        was_cheaper = before is not None and before["over_horizon"] < whole
        monthly = each.monthly(months)
        if was_cheaper or monthly >= paid * CHEAPER:
            continue
        is_api = each.way is Way.API
        kind = Kind.API_CHEAPER if is_api else Kind.OTHER_CHEAPER
        name = ("Another API" if way == Way.API else "The API") if is_api else _words(each.way)
        told = f" ({before['id']} then, {before['a_month']:,.2f})" if before else ""
        yield Departure(
            kind, each.way.value,
            f"{name} has become cheaper: {each.id} would cost {monthly:,.2f} a month, moving "
            f"counted{told}, and {paid:,.2f} are paid.",
            "Prices, or what is asked, are not what they were.", AGAIN.format(id=decision_id),
        )  # fmt: skip


def _words(way: Way) -> str:
    return {
        Way.MANAGED: "A managed endpoint", Way.RENTED: "Renting machines",
        Way.OWNED: "Buying machines", Way.AT_HAND: "The machine at hand",
        Way.MIXED: "A mix of own machines and an API", Way.API: "The API",
    }[way]  # fmt: skip


def _rules(
    decision_id: str, content: Mapping[str, Any], judged: Sequence[Judged]
) -> Iterator[Departure]:
    passed = {each["rule"] for each in content["rules"] if each["verdict"] == Verdict.PASS}
    told: set[str] = set()
    for each in judged:
        if each.verdict is Verdict.PASS or each.rule in told:
            continue
        told.add(each.rule)
        was = "passed" if each.rule in passed else "was not asked"
        yield Departure(
            Kind.RULES, each.rule, f"The rule {each.rule!r} {was} then, and now it is "
            f"{'not known whether it does' if each.verdict is Verdict.UNKNOWN else 'broken'}: "
            f"{each.why}", "A licence, a provider's terms or a certificate are not what they were.",
            f"check {each.source or 'its source'} and put what is true into `facts/` of the home, "
            f"or {AGAIN.format(id=decision_id)}",
        )  # fmt: skip


def _facts(decision_id: str, content: Mapping[str, Any], now: Now) -> Iterator[Departure]:
    if now.price_ratio is None:
        yield Departure(
            Kind.GONE, "", f"{content['option']['id']} is among the facts no more.",
            "It is not offered any more, or the facts name it otherwise.",
            AGAIN.format(id=decision_id),
        )  # fmt: skip
    for part, days in sorted(now.facts_days.items()):
        if days > OLD_DAYS:
            yield Departure(
                Kind.FACTS_OLD, part, f"The facts of {part} are {days:,} days old, and after "
                f"{OLD_DAYS} nobody knows whether they hold.", "Nobody looked since.",
                f"install a newer Freehold, or put newer ones into `facts/{part}.yaml` of the home",
            )  # fmt: skip
