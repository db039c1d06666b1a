"""A workload file, as it is written for people: with what each field means."""

from dataclasses import dataclass

from freehold.core.plan import Lengths


@dataclass(frozen=True, slots=True)
class Answers:
    """What is known before there is a file. Texts are as people write them in it."""

    requests_per_day: str
    prompt: str
    answer: str
    region: str | None = None
    data_class: str = "internal"
    peak: str | None = None
    hours: tuple[float, ...] | None = None
    weekdays: tuple[float, ...] | None = None
    bursts: float | None = None
    cached: float | None = None
    tenants_with_adapters: int | None = None
    learned_from: str | None = None


def written(given: Answers) -> str:
    """What was not said is there as a comment, to be filled in."""
    lines = ["# What is to be served. Units are written with values: 1.5k, 95 %, 2 s, 30 days."]
    if given.learned_from:
        lines.append(f"# Read from {given.learned_from}.")
    lines += [
        f"requests_per_day: {given.requests_per_day}",
        "# Tokens: one number, {p50: 200, p95: 800}, {histogram: {256: 70 %, 1k: 30 %}}, or",
        "# {quantiles: [...]} at equal steps, the least first.",
        f"prompt: {given.prompt}",
        f"answer: {given.answer}",
        "# Where your own machines stand: a country (de) or a region of a cloud (eu-central-1).",
        "# Where data may be, also at who is paid for it, is rules.residency.",
        _or_comment("region", given.region, "eu-central-1"),
        "# public, internal, confidential, personal or health",
        f"data_class: {given.data_class}",
        *_when(given),
        *_rest(given),
    ]
    return "\n".join(lines) + "\n"


def _or_comment(name: str, value: object | None, example: str) -> str:
    return f"# {name}: {example}" if value is None else f"{name}: {value}"


def _when(given: Answers) -> list[str]:
    told = "# When they come: always, office or evening; or hours (24 numbers) and weekdays (7)."
    if given.hours is None and given.weekdays is None:
        return [told, f"peak: {given.peak or 'always'}"]
    made = [told]
    for name, values in (("hours", given.hours), ("weekdays", given.weekdays)):
        if values is not None:
            made.append(f"{name}: [{', '.join(f'{each:.3g}' for each in values)}]")
    return made


def _rest(given: Answers) -> list[str]:
    tenants = given.tenants_with_adapters
    adapters = None if not tenants else f"{{tenants: {tenants}, rank: 16}}"
    return [
        "# How far the rate of a minute varies within its hour.",
        _or_comment("bursts", _percent(given.bursts), "50 %"),
        "# Of prompts, what was there before (a system prompt, a conversation).",
        _or_comment("cached", _percent(given.cached), "30 %"),
        "# growth_per_month: 5 %",
        "# horizon: 12 months",
        _or_comment("adapters", adapters, "{tenants: 10, rank: 16}"),
        "# users_region: us-east-1",
        "# targets: {ttft_p95: 2 s, tpot_p95: 50 ms, whole_p95: 30 s, availability: 99.9 %}",
        "# rules: {residency: [eu], certifications: [iso_27001], retention: 30 days,",
        "#   may_train_on_data: false, commercial_use: true, least_mmlu: 60}",
        "# embeddings: {tokens_per_day: 1M, documents_tokens: 50M}",
        "# tuning: {runs_per_month: 1, tokens: 5M, method: lora, rank: 16}",
        "# economics: {team_per_month: 12k, power_per_kwh: 0.20, amortization: 36 months}",
    ]


def _percent(share: float | None) -> str | None:
    return None if share is None else f"{share * 100:.0f} %"


def lengths_written(found: Lengths) -> str:
    if len(set(found.quantiles)) == 1:
        return str(found.quantiles[0])
    return f"{{quantiles: [{', '.join(map(str, found.quantiles))}]}}"
