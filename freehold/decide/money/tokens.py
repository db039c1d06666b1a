"""What tokens cost that are bought: prompts, cached ones among them, answers, embeddings."""

from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from functools import lru_cache

from freehold.core.facts import ApiPrice, EmbeddingPrice
from freehold.core.plan import Embedding, Part, Workload
from freehold.decide.money import demand
from freehold.decide.money.assumptions import Assumptions
from freehold.decide.money.money import MILLION, MONTH_DAYS, YEAR_MONTHS, exact, part, shown


@dataclass(frozen=True, slots=True)
class _Rates:
    """Dollars for a million tokens."""

    input: Decimal
    cached: Decimal
    output: Decimal


@dataclass(slots=True)
class _Line:
    """Tokens at one price, of a month."""

    words: str
    usd: Decimal
    tokens: Decimal = Decimal(0)


def api(
    price: ApiPrice,
    workload: Workload,
    assumptions: Assumptions,
    *,
    start: date,
    share: Decimal = Decimal(1),
    surcharge: Decimal = Decimal(0),
) -> tuple[Part, ...]:
    """Tokens × price, as bills have it, for `share` of the requests of the mean month that
    begins at `start`. A prompt longer than a step of the price list costs that step's prices
    in whole, its answer too; `surcharge` is what a provider adds for a region."""
    prompts, cached, answers = _sorted(price, workload, start)
    factor = share * (1 + surcharge) * assumptions.value("for_a_dollar")
    notes = ""
    if share != 1:
        notes += f" × {shown(share, 4)} of all requests"
    if surcharge:
        notes += f" × {shown(1 + surcharge, 4)} (what the provider adds for the region)"
    if assumptions.value("for_a_dollar") != 1:
        notes += f" × {assumptions['for_a_dollar']}"
    head = f"{demand.requests_in_words(workload)}; "
    return tuple(
        part(
            name,
            head + " + ".join(_written(line) for line in lines) + notes,
            a_month=sum((line.tokens * line.usd for line in lines), Decimal(0)) / MILLION * factor,
            source=price.source.where,
        )
        for name, lines in (("Prompts", prompts), ("Cached prompts", cached), ("Answers", answers))
        if any(line.tokens for line in lines)
    )


def embeddings(
    price: EmbeddingPrice, wanted: Embedding, assumptions: Assumptions
) -> tuple[Part, ...]:
    """The documents once, and what comes each day. Whose service gets them is said, as the
    option's rules are about who runs its model."""
    handed = f"handed to {price.provider} ({price.model})"
    dollar = assumptions.value("for_a_dollar")
    usd, daily, all_documents = (
        exact(each) for each in (price.usd, wanted.tokens_a_day, wanted.documents_tokens)
    )
    parts = []
    if all_documents:
        parts.append(
            part(
                "Embedding the documents",
                f"{shown(all_documents / MILLION, 4)} M tokens × {shown(usd, 6)} USD a million,"
                f" {handed}",
                once=all_documents / MILLION * usd * dollar,
                source=price.source.where,
            )
        )
    if daily:
        parts.append(
            part(
                "Embeddings",
                f"{shown(daily)} tokens a day × {shown(MONTH_DAYS, 4)} days"
                f" × {shown(usd, 6)} USD a million, {handed}",
                a_month=daily * MONTH_DAYS / MILLION * usd * dollar,
                source=price.source.where,
            )
        )
    return tuple(parts)


@lru_cache(maxsize=64)  # of one decision, each mix asks
def _sorted(
    price: ApiPrice, workload: Workload, start: date
) -> tuple[tuple[_Line, ...], tuple[_Line, ...], tuple[_Line, ...]]:
    """The tokens of the mean month, by what they cost."""
    lines: tuple[dict[str, _Line], ...] = ({}, {}, {})
    first = exact(workload.requests_a_day) * MONTH_DAYS
    months = demand.growth(workload)
    quantiles = workload.prompt.quantiles
    cached_share = exact(workload.cached_share)
    answer = demand.mean(workload.answer)
    for month, grown in enumerate(months):
        requests = first * grown / len(months) / len(quantiles)
        for length in quantiles:
            words, rates = _in_force(price, length, _later(start, month))
            read = requests * length
            for kind, usd, tokens in (
                (lines[0], rates.input, read * (1 - cached_share)),
                (lines[1], rates.cached, read * cached_share),
                (lines[2], rates.output, requests * answer),
            ):
                kind.setdefault(words, _Line(words, usd)).tokens += tokens
    prompts, cached, answers = (tuple(each.values()) for each in lines)
    return prompts, cached, answers


def _in_force(price: ApiPrice, prompt: int, day: date) -> tuple[str, _Rates]:
    words, now, reached = "", _base(price), 0
    for above, read, kept, written in price.long_context:
        if above >= reached and prompt > above:
            dearer = now.input if read is None else exact(read)
            now = _Rates(
                dearer,
                dearer if kept is None else exact(kept),
                now.output if written is None else exact(written),
            )
            words, reached = f" for prompts above {above:,} tokens", above
    if reached:
        return words, now  # what changes later is published for the ordinary price alone
    for begins, input_usd, output_usd in sorted(price.later):
        if day >= begins:
            new = exact(input_usd)
            # The discount for what is cached stays what it was.
            saved = now.cached / now.input if now.input else Decimal(1)
            now, words = _Rates(new, new * saved, exact(output_usd)), f" from {begins}"
    return words, now


def _base(price: ApiPrice) -> _Rates:
    cached = price.input_usd if price.cached_usd is None else price.cached_usd
    return _Rates(exact(price.input_usd), exact(cached), exact(price.output_usd))


def _later(start: date, months: int) -> date:
    year, month = divmod(start.month - 1 + months, YEAR_MONTHS)
    return date(start.year + year, month + 1, 1) if months else start


def _written(line: _Line) -> str:
    return f"{shown(line.tokens / MILLION, 4)} M tokens × {shown(line.usd, 6)} USD{line.words}"
