"""What a workload wishes for that it could do with less of, and by what steps it would give way."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from math import ceil, floor, log10

from freehold.core.places import AREAS
from freehold.core.plan import Lengths, Rules, Workload
from freehold.decide.money.money import shown
from freehold.decide.rules.compliance import CERTIFICATIONS, DATA_CLASSES
from freehold.decide.rules.places import place

Change = Callable[[Workload], Workload]

_STEP, _STEPS = 1.1, 60  # of times: to three hundred times as long
_MOST_DAYS = 400
_NINES = (0.999999, 0.99999, 0.9999, 0.9995, 0.999, 0.998, 0.995, 0.99, 0.98, 0.95, 0.9)
_KEPT_DAYS = (7, 30, 60, 90, 180, 365)
_MANY_USERS = 1_000_000


@dataclass(frozen=True, slots=True)
class Wish:
    """`steps` give way more and more, the least first; the last is the wish given up, after which
    nothing that it kept out is kept out. `hard` is how hard it is to give way in it: what need
    only be said is 0, times and dates 1, the model 2, parts of the work 3, what law or a contract
    may ask for 4."""

    field: str  # of the file
    hard: int
    words: str  # what is wished for
    steps: Sequence[tuple[str, Change]]  # how it is told, "with ... instead of ..."

    @property
    def given_up(self) -> Change:
        return self.steps[-1][1]


def wishes(workload: Workload) -> list[Wish]:
    every = (*_to_say(workload), *_times(workload), *_model(workload), *_work(workload))
    return [*every, *_rules(workload)]


def _to_say(work: Workload) -> Iterator[Wish]:
    if work.region is None and work.rules.residency:
        said = sorted(work.rules.residency)[0]
        yield Wish(
            "region", 0, "no region of your own machines",
            [(f"with region said ({said}, say)", lambda w: replace(w, region=said))],
        )  # fmt: skip
    if work.rules.users_a_month is None:
        told = f"with rules.users_a_month said ({_MANY_USERS:,}, say)"
        yield Wish(
            "rules.users_a_month", 0, "no rules.users_a_month",
            [(told, _ruled(users_a_month=_MANY_USERS))],
        )  # fmt: skip


def _times(work: Workload) -> Iterator[Wish]:
    targets = work.targets
    for name, field, label, unit in (
        ("ttft_ms", "ttft_p95", "TTFT p95", "ms"),
        ("tpot_ms", "tpot_p95", "TPOT p95", "ms"),
        ("whole_s", "whole_p95", "p95 of a whole answer", "s"),
    ):
        wanted = getattr(targets, name)
        if wanted is not None:
            yield _slower(name, f"targets.{field}", label, unit, wanted)
    if targets.availability is not None:
        yield _down_more(targets.availability)
    if work.deadline_days is not None:
        yield _later(work.deadline_days)
    yield from _lengths(work)


def _slower(name: str, field: str, label: str, unit: str, wanted: float) -> Wish:
    def change(value: float | None) -> Change:
        return lambda w: replace(w, targets=replace(w.targets, **{name: value}))

    rungs = dict.fromkeys(_rounded(wanted * _STEP**step) for step in range(1, _STEPS))
    told = f"{shown(wanted)} {unit}"
    return Wish(
        field, 1, f"a {label} of {told}",
        [
            *(
                (f"with a {label} of {shown(each)} {unit} instead of {shown(wanted)}", change(each))
                for each in rungs if each > wanted
            ),
            (f"without a {label}", change(None)),
        ],
    )  # fmt: skip


def _rounded(value: float) -> float:
    """Up, to two digits."""
    scale = 10.0 ** (floor(log10(value)) - 1)
    return float(f"{ceil(value / scale - 1e-9) * scale:.6g}")


def _down_more(wanted: float) -> Wish:
    def change(value: float | None) -> Change:
        return lambda w: replace(w, targets=replace(w.targets, availability=value))

    told = _percent(wanted)
    return Wish(
        "targets.availability", 1, f"an availability of {told}",
        [
            *(
                (f"with an availability of {_percent(each)} instead of {told}", change(each))
                for each in _NINES if each < wanted
            ),
            (f"without an availability of {told}", change(None)),
        ],
    )  # fmt: skip


def _percent(share: float) -> str:
    return f"{shown(share * 100, 8)} %"


def _later(wanted: int) -> Wish:
    told = f"{wanted} day{'' if wanted == 1 else 's'}"
    return Wish(
        "deadline", 1, f"a deadline of {told}",
        [
            *(
                (f"with a deadline of {each} days instead of {wanted}", _set_deadline(each))
                for each in range(wanted + 1, wanted + 1 + _MOST_DAYS)
            ),
            (f"without a deadline of {told}", _set_deadline(None)),
        ],
    )  # fmt: skip


def _set_deadline(days: int | None) -> Change:
    return lambda w: replace(w, deadline_days=days)


def _lengths(work: Workload) -> Iterator[Wish]:
    longest = work.prompt.quantiles[-1]
    needed = longest + work.answer.quantiles[-1]
    asked = work.context_length
    if asked is not None and asked > needed:
        rungs = [each for each in _shorter(asked) if each > needed]
        yield Wish(
            "context_length", 1, f"a context of {asked:,} tokens",
            [
                *(
                    (f"with a context of {each:,} tokens instead of {asked:,}", _set_context(each))
                    for each in rungs
                ),
                (f"with a context of {needed:,} tokens, as requests need it", _set_context(None)),
            ],
        )  # fmt: skip
    yield Wish(
        "prompt", 1, f"prompts of up to {longest:,} tokens",
        [
            (f"with prompts of {each:,} tokens at most instead of {longest:,}", _cut(each))
            for each in (*_shorter(longest), 1)
        ],
    )  # fmt: skip


def _shorter(tokens: int) -> list[int]:
    rungs = (int(_rounded(tokens / _STEP**step)) for step in range(1, _STEPS + 30))
    return list(dict.fromkeys(each for each in rungs if 1 < each < tokens))


def _set_context(tokens: int | None) -> Change:
    return lambda w: replace(w, context_length=tokens)


def _cut(most: int) -> Change:
    def change(work: Workload) -> Workload:
        cut = Lengths(tuple(min(each, most) for each in work.prompt.quantiles))
        return replace(work, prompt=cut)

    return change


def _model(work: Workload) -> Iterator[Wish]:
    least = work.rules.least_mmlu
    if least is not None:
        lower = range(ceil(least) - 1, 0, -1)
        yield Wish(
            "rules.least_mmlu", 2, f"an MMLU of {least:g}",
            [
                *(
                    (f"with an MMLU of {each} instead of {least:g}", _ruled(least_mmlu=float(each)))
                    for each in lower
                ),
                (f"without an MMLU of {least:g}", _ruled(least_mmlu=None)),
            ],
        )  # fmt: skip
    if work.rules.must_be_llm:
        told = "a model that is better than the original GPT-3"
        yield Wish(
            "rules.must_be_llm", 2, told,
            [(f"without asking for {told}", _ruled(must_be_llm=False))],
        )  # fmt: skip
    if work.models:
        named = " or ".join(work.models)
        yield Wish(
            "models", 2, f"{named} as the model",
            [(f"with another model than {named}", lambda w: replace(w, models=()))],
        )  # fmt: skip


def _work(work: Workload) -> Iterator[Wish]:
    if work.tuning is not None:
        methods = {"full": ("lora", "qlora"), "lora": ("qlora",)}.get(work.tuning.method, ())
        yield Wish(
            "tuning", 3, f"training ({work.tuning.method})",
            [
                *(
                    (f"with tuning.method {each} instead of {work.tuning.method}", _by(each))
                    for each in methods
                ),
                ("without training", lambda w: replace(w, tuning=None)),
            ],
        )  # fmt: skip
    if work.tenants_with_adapters:
        count = work.tenants_with_adapters
        yield Wish(
            "adapters", 3, f"adapters of {count:,} tenants",
            [
                *(
                    (f"with adapters of {each:,} tenants instead of {count:,}", _adapted(each))
                    for each in _shorter(count)
                ),
                ("without adapters", _adapted(0)),
            ],
        )  # fmt: skip
    if work.embedding is not None:
        yield Wish(
            "embeddings", 3, "embeddings",
            [("without embeddings", lambda w: replace(w, embedding=None))],
        )  # fmt: skip


def _by(method: str) -> Change:
    def change(work: Workload) -> Workload:
        return replace(work, tuning=work.tuning and replace(work.tuning, method=method))

    return change


def _adapted(tenants: int) -> Change:
    return lambda w: replace(w, tenants_with_adapters=tenants)


def _rules(work: Workload) -> Iterator[Wish]:
    rules = work.rules
    if not rules.may_train_on_data:
        told = "that nobody trains on the data"
        yield Wish(
            "rules.may_train_on_data", 4, told,
            [(f"without the rule {told}", _ruled(may_train_on_data=True))],
        )  # fmt: skip
    if rules.retention_days is not None:
        kept = rules.retention_days
        yield Wish(
            "rules.retention", 4, f"a retention of {kept} days at most",
            [
                *(
                    (f"with a retention of {each} days instead of {kept}", _kept(each))
                    for each in _KEPT_DAYS if each > kept
                ),
                (f"without a retention of {kept} days at most", _ruled(retention_days=None)),
            ],
        )  # fmt: skip
    for name in sorted(rules.certifications):
        title = CERTIFICATIONS.get(name, name)
        yield Wish(
            "rules.certifications", 4, f"a provider with {title}",
            [(f"without asking for {title}", _without(name))],
        )  # fmt: skip
    if rules.data_class in DATA_CLASSES and DATA_CLASSES.index(rules.data_class) > 1:
        lower = DATA_CLASSES[DATA_CLASSES.index(rules.data_class) - 1 : 0 : -1]
        yield Wish(
            "data_class", 4, f"{rules.data_class} data",
            [
                (f"with {each} data instead of {rules.data_class}", _ruled(data_class=each))
                for each in lower
            ],
        )  # fmt: skip
    if rules.residency:
        yield _elsewhere(rules)
    if rules.commercial_use:
        yield Wish(
            "rules.commercial_use", 4, "commercial use",
            [("without commercial use", _ruled(commercial_use=False))],
        )  # fmt: skip
    yield from _licences(work)


def _licences(work: Workload) -> Iterator[Wish]:
    if work.adapter_licence is not None:
        yield Wish(
            "adapters.licence", 4, f"adapters under {work.adapter_licence}",
            [("with adapters under another licence", lambda w: replace(w, adapter_licence=None))],
        )  # fmt: skip
    if work.tuning is not None and work.tuning.data_licence is not None:
        yield Wish(
            "tuning.data_licence", 4, f"training data under {work.tuning.data_licence}",
            [
                (
                    "with training data under another licence",
                    lambda w: replace(w, tuning=w.tuning and replace(w.tuning, data_licence=None)),
                )
            ],
        )  # fmt: skip


def _elsewhere(rules: Rules) -> Wish:
    """Wider areas around where data may be, then the rest of what providers have."""
    here = {place(each) for each in rules.residency}
    european = here & ({"eu", "eea"} | AREAS["eea"])
    order = ("eu", "eea", "us") if european else ("us", "eu", "eea")
    wanted = " or ".join(sorted(rules.residency))
    steps: list[tuple[str, Change]] = []
    wider = set(rules.residency)
    for area in order:
        if area not in wider:
            wider.add(area)
            told = f"with data allowed in {area} beside {wanted}"
            steps.append((told, _ruled(residency=frozenset(wider))))
    steps.append((f"with data allowed outside of {wanted}", _ruled(residency=frozenset())))
    return Wish("rules.residency", 4, f"data only in {wanted}", steps)


def _kept(days: int) -> Change:
    return _ruled(retention_days=days)


def _without(certification: str) -> Change:
    def change(work: Workload) -> Workload:
        left = work.rules.certifications - {certification}
        return replace(work, rules=replace(work.rules, certifications=left))

    return change


def _ruled(**told: object) -> Change:
    return lambda w: replace(w, rules=replace(w.rules, **told))  # type: ignore[arg-type]
