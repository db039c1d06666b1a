"""What was predicted of a decision beside what was measured, and why the one departs from the
other."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from freehold.core.plan import Way
from freehold.decide.money.money import MILLION, MONTH_DAYS
from freehold.decide.outcome.checked import AGAIN, Departure, Figure, Kind, number
from freehold.decide.outcome.measured import Measured

LEAST_DAYS = 1.0  # that must have been watched before figures are judged
_VOLUME, _SHORT, _SLOW, _DEAR = 0.25, 0.5, 1.5, 1.25


def figures_of(
    content: Mapping[str, Any],
    found: Measured,
    months: float,
    paid: float | None,
    targets: Mapping[str, float | None],
    ceiling: float,
) -> Iterator[Figure]:
    told = content["predicted"]
    grown = (1 + told["growth_a_month"]) ** max(months, 0.0)
    came = found.requests_a_day
    prompt = found.tokens_in / found.requests if found.requests else None
    answer = found.tokens_out / found.requests if found.requests else None
    is_judged = found.days >= LEAST_DAYS

    def figure(
        name: str, predicted: float | None, measured: float | None,
        least: float | None = None, most: float | None = None,
    ) -> Figure:  # fmt: skip
        within = None
        if is_judged and predicted is not None and measured is not None:
            within = (least is None or measured >= least) and (most is None or measured <= most)
        return Figure(name, predicted, measured, least, most, within)

    def about(name: str, predicted: float, measured: float | None) -> Figure:
        return figure(
            name, predicted, measured, predicted * (1 - _VOLUME), predicted * (1 + _VOLUME)
        )

    def at_most(name: str, predicted: float | None, measured: float | None, by: float) -> Figure:
        return figure(name, predicted, measured, most=predicted and predicted * by)

    yield about("requests_a_day", told["requests_a_day"] * grown, came)
    yield about("prompt_tokens", told["prompt_tokens"], prompt)
    yield about("answer_tokens", told["answer_tokens"], answer)
    busy = told["tokens_a_second_busy"] * grown
    yield figure("tokens_a_second_busy", busy, found.tokens_a_second_busy)
    for name in ("ttft", "tpot"):
        p50, p95 = getattr(found, f"{name}_p50_ms"), getattr(found, f"{name}_p95_ms")
        yield figure(f"{name}_p50_ms", None, p50)
        predicted, target = told[f"{name}_p95_ms"], targets.get(f"{name}_ms")
        most = target if target is not None else predicted and predicted * _SLOW
        yield figure(f"{name}_p95_ms", predicted, p95, most=most)
    a_month = float(MONTH_DAYS)
    planned = told["requests_a_day"] * grown * a_month
    planned *= told["prompt_tokens"] + told["answer_tokens"]
    served = (found.tokens_in + found.tokens_out) / found.days * a_month if found.days else 0.0
    hosted = told["machines_a_month"]
    yield at_most(
        "per_million_reserved", _million(hosted, planned), _million(hosted, served), _DEAR
    )
    yield at_most("per_million", _million(told["a_month"], planned), _million(paid, served), _DEAR)
    full = told["tokens_a_second_full"]
    if full:
        predicted = busy / full
        most = max(ceiling, predicted)
        measured = found.tokens_a_second_busy / full
        yield figure("utilization_busy", predicted, measured, predicted * _SHORT, most)


def _million(a_month: float | None, tokens: float) -> float | None:
    if a_month is None or not tokens:
        return None
    return a_month / tokens * float(MILLION)


def drifted(
    decision_id: str, content: Mapping[str, Any], found: Measured, figures: Sequence[Figure]
) -> Iterator[Departure]:
    by_name = {each.name: each for each in figures}
    again = AGAIN.format(id=decision_id)
    asked = by_name["requests_a_day"]
    if asked.within is False and found.requests == 0:
        yield Departure(
            Kind.VOLUME, "", f"No request came in {found.days:,.0f} days.",
            "Nothing of this workload is served here, or its requests name other aliases.",
            "serve it, or record the decision anew with the `--alias` that they name",
        )  # fmt: skip
        return
    for name, kind, what in (
        ("requests_a_day", Kind.VOLUME, "requests a day"),
        ("prompt_tokens", Kind.PROMPTS, "tokens of a prompt"),
        ("answer_tokens", Kind.ANSWERS, "tokens of an answer"),
    ):
        each = by_name[name]
        if each.within is False:
            yield Departure(
                kind, "", f"{number(each.measured)} {what}, where {number(each.predicted)} were "
                f"planned for by now ({_VOLUME:.0%} either way is as planned).",
                _moved(each, "What is asked is another workload than was planned"), again,
            )  # fmt: skip
    for name, kind, what in (
        ("ttft_p95_ms", Kind.TTFT, "the first token"),
        ("tpot_p95_ms", Kind.TPOT, "each token after it"),
    ):
        each = by_name[name]
        if each.within is False:
            yield Departure(
                kind, "", f"It takes {number(each.measured)} ms to {what} at the 95th "
                f"percentile, where {number(each.predicted)} were predicted and "
                f"{number(each.most)} are borne.",
                _why_slow(by_name), _faster(content),
            )  # fmt: skip
    yield from _dear(content, found, by_name, again)


def _moved(each: Figure, why: str) -> str:
    direction = "above" if (each.measured or 0) > (each.predicted or 0) else "below"
    return f"{why}, {direction} it."


def _why_slow(by_name: Mapping[str, Figure]) -> str:
    busy, asked, prompts = (
        by_name.get("utilization_busy"), by_name["requests_a_day"], by_name["prompt_tokens"]
    )  # fmt: skip
    if busy is not None and busy.most is not None and (busy.measured or 0) > busy.most:
        return "The machines are busier than they may be, so that requests wait."
    if asked.within is False and _is_above(asked):
        return "More requests come than was planned, and share the machines."
    if prompts.within is False and _is_above(prompts):
        return "Prompts are longer than was planned, and each is read first."
    return "Machines and engine, or the API, are slower than was computed for them."


def _is_above(each: Figure) -> bool:
    return (each.measured or 0) > (each.predicted or 0)


def _faster(content: Mapping[str, Any]) -> str:
    if content["option"]["way"] == Way.API:
        return "ask the provider, or decide again with `assumptions` of what you measured"
    return (
        "see `freehold status` and `freehold bench` for the engine, and `freehold decide simulate` "
        "for how many replicas it takes"
    )


def _dear(
    content: Mapping[str, Any], found: Measured, by_name: Mapping[str, Figure], again: str
) -> Iterator[Departure]:
    served = (found.tokens_in + found.tokens_out) / 1e6 / found.days if found.days else 0.0
    for name, basis in (
        ("per_million_reserved", "what machines cost, busy or not,"),
        ("per_million", "what it costs in all,"),
    ):
        each = by_name[name]
        if each.within is False:
            fewer = by_name["requests_a_day"]
            cause = (
                f"{served:,.2f} million tokens a day share what has to be paid anyway, and more "
                "were planned."
                if fewer.measured is not None and not _is_above(fewer)
                else "What is paid has become more than the tokens that share it."
            )
            yield Departure(
                Kind.COST, "", f"A million tokens cost {number(each.measured)} by {basis} where "
                f"{number(each.predicted)} were predicted ({_DEAR - 1:.0%} more is borne).",
                cause, again,
            )  # fmt: skip
            break
    busy = by_name.get("utilization_busy")
    if busy is not None and busy.within is False:
        above = _is_above(busy)
        cause = (
            "More tokens are asked for than the machines were planned for."
            if above
            else "Fewer tokens are asked for than the machines were planned for."
        )
        step = (
            "add a replica, or let requests wait" if above else "give machines back, or fill them"
        )
        yield Departure(
            Kind.UTILIZATION, "", f"The machines are busy {busy.measured or 0:.0%} of what they "
            f"can in the busiest hour, where {busy.predicted or 0:.0%} were predicted.",
            cause, f"{step}; or {again}",
        )  # fmt: skip
