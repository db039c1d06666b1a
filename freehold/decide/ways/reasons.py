"""What keeps an option that passes the rules from doing the work, and what to know of one that
does."""

from datetime import date
from decimal import Decimal

from freehold.core.facts import Facts
from freehold.core.plan import Basis, Judged, Predicted, Rules, Way, Workload
from freehold.decide.money import cost
from freehold.decide.money.assumptions import Assumptions
from freehold.decide.money.cost import Offer, Sized
from freehold.decide.money.money import shown
from freehold.decide.rules.compliance import KNOWN_AS
from freehold.decide.rules.quality import judge_quality
from freehold.decide.ways import options

_STALE_DAYS = 365


def api_cannot(offer: Offer, workload: Workload, assumptions: Assumptions) -> str | None:
    """Why an API that passes the rules does not do the work, in a sentence."""
    work, targets = workload, workload.targets
    if work.tuning is not None or work.tenants_with_adapters:
        return "What models of your own cost there is not among the facts."
    needed, known = options.context_needed(work), _context(offer)
    usual = assumptions["api_context_tokens"]
    if (known or usual.value) < needed:
        told = f"{known:,} tokens" if known else f"{usual}"
        return f"Its context is {told}, and {needed:,} are needed."
    takes = api_takes(work, assumptions)
    note = " (assumed)" if takes.basis is Basis.ASSUMED else ""
    for name, wanted, has, unit in (
        ("TTFT", targets.ttft_ms, takes.ttft_ms, "ms"),
        ("TPOT", targets.tpot_ms, takes.tpot_ms, "ms"),
        ("the whole answer", targets.whole_s, takes.whole_s, "s"),
    ):
        if wanted is not None and has is not None and wanted < has:
            return f"{name} is {shown(has)} {unit}{note}, and {wanted:g} {unit} is wanted."
    up = assumptions["api_availability"]
    if targets.availability is not None and up.value < Decimal(str(targets.availability)):
        return f"It is up for {up}, and {shown(targets.availability, 10)} is wanted."
    return None


def api_takes(workload: Workload, assumptions: Assumptions) -> Predicted:
    """What nobody measured: how much it answers is its provider's matter."""
    first, each_token = assumptions["api_ttft_ms"], assumptions["api_tpot_ms"]
    whole = (first.value + each_token.value * max(workload.answer.quantiles)) / 1000
    return Predicted(
        Basis.ASSUMED if first.assumed or each_token.assumed else Basis.GIVEN,
        float(first.value),
        float(each_token.value),
        float(whole),
        None,
    )


def _context(offer: Offer) -> int | None:
    published = offer.api.context_length if offer.api else None
    return published or (offer.model.context_length if offer.model else None)


def mix_cannot(sized: Sized, workload: Workload, assumptions: Assumptions) -> str | None:
    """The share that own machines answer has the API behind it; the peaks have it alone."""
    target = workload.targets.availability
    if target is None:
        return None
    share = cost.base_load(workload, sized)
    api = assumptions["api_availability"]
    one = assumptions.value("replica_availability")
    own = 1 - (1 - one) * (1 - api.value)
    up = Decimal(share.own.numerator) / share.own.denominator * (own - api.value) + api.value
    if up < Decimal(str(target)):
        return f"It is up for {shown(up * 100, 3)} % of the time, with an API up for {api}."
    return None


def is_llm(offer: Offer, facts: Facts) -> Judged:
    """Whether it is better than the original GPT-3, also where no rule asks for that."""
    model, option, rules = offer.model, offer.option, Rules(must_be_llm=True)
    native = model is not None and model.native_quantization is not None
    precision = None if native else option.precision
    return judge_quality(model, option.model, rules, facts, precision)[0]


def unsaid(workload: Workload) -> tuple[str, ...]:
    """What the answer hangs on and nobody said, each with the field that says it."""
    rules, told = workload.rules, []
    if rules.least_mmlu is None and not rules.must_be_llm and not workload.models:
        told.append(
            "No quality is asked for, so that the cheapest model is the first, whatever it can "
            "do: say rules.least_mmlu, rules.must_be_llm or models."
        )
    if workload.region and not rules.residency:
        told.append(
            "Where data may be is not said, so that what is bought or rented may be anywhere: say "
            f"rules.residency ([{workload.region}]); region is where your own machines stand."
        )
    if not workload.economics.team_a_month:
        told.append(
            "Your people are counted for setting up alone: say economics.team_per_month for what "
            "they cost after that."
        )
    return tuple(told)


def is_old(at: date | None, today: date) -> bool:
    """Of a fact: it counts as old, too, where nobody says when it was read."""
    return at is None or (today - at).days > _STALE_DAYS


def notes_on(offer: Offer, start: date) -> tuple[str, ...]:
    """What to know before it is taken."""
    notes = []
    for price in (offer.rent, offer.api):
        if price is not None and is_old(price.source.at, start):
            at = price.source.at or "an unknown day"
            notes.append(f"The price is of {at}: ask for today's.")
    if offer.api is not None and offer.api.provider in KNOWN_AS:
        by = KNOWN_AS[offer.api.provider]
        notes.append(f"Prices are those of {offer.api.provider}, and terms those of {by}.")
    if offer.api is not None and offer.api.in_own_cloud:
        notes.append("Not every region has every model: look up that yours has this one.")
    card = offer.accelerator
    if card is not None and offer.rent is None and "GeForce" in card.name:
        notes.append(
            "NVIDIA's licence of the GeForce driver leaves data centres out "
            "(nvidia.com/en-us/drivers/geforce-license): if these are to stand in one, take "
            "another card."
        )
    if offer.option.way is Way.MIXED:
        base, peaks = offer.option.model, offer.option.details["peaks"]
        if options.canonical(base) != options.canonical(peaks):
            notes.append(f"{base} answers the base load, and {peaks} the peaks.")
    return tuple(notes)
