"""`freehold decide FILE`: every way to do the work of a file, ranked, with what it costs."""

from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from freehold.cli.decision import Wanted, decide_for
from freehold.cli.options.owner import TenantOption
from freehold.cli.terminal.output import (
    Json,
    console,
    errors_in_a_sentence,
    plain,
    print_json,
    table,
)
from freehold.cli.words.option import model_of, place_of, told
from freehold.core.errors import Code, UserError

if TYPE_CHECKING:
    from freehold.core.plan import Part, Predicted, Workload
    from freehold.decide.compared.nearest import Nothing
    from freehold.decide.ways.planner import Plan, Ranked, Rejected
    from freehold.operate.decisions.planning import Planned

_LLM = {"pass": "yes", "fail": "no", "unknown": "not known"}  # of a published score
_REASONS = 8  # of those that keep most options out
_RATE = "with `assumptions: {{for_a_dollar: 0.9}}` in the file, say, it is planned in {}."


def plan_(
    file: Annotated[Path, typer.Argument(help="As `freehold decide init` wrote it.")],
    top: Annotated[int, typer.Option(min=1, help="So many options.")] = 10,
    html: Annotated[
        Path | None, typer.Option(help="Write it as a page, too, over what is there.")
    ] = None,
    record: Annotated[
        bool, typer.Option("--record", help="Keep the decision, to be checked later.")
    ] = False,
    option: Annotated[
        str | None, typer.Option(help="Decide for this one: its rank or its id.")
    ] = None,
    alias: Annotated[
        list[str] | None,
        typer.Option(help="What requests of this workload name; all count without. Repeat."),
    ] = None,
    supersede: Annotated[
        str | None, typer.Option(help="The recorded decision whose place it takes.")
    ] = None,
    tenant: TenantOption = None,
    deployment: Annotated[
        Path | None, typer.Option(help="Write the option as settings for `freehold up -f`.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Rank every way to serve a workload, with what it costs, and say why others are left out."""
    from freehold.cli.pages.decision import page
    from freehold.cli.pages.file import check_place, write_page
    from freehold.config import load
    from freehold.config.workload import read_workload, with_line
    from freehold.decide.compared.plain import plan_as_plain
    from freehold.operate.decisions.planning import nearest_to, planned, weigh

    with errors_in_a_sentence(as_json):
        if not record and (alias or supersede or tenant):
            raise UserError(
                Code.INVALID_VALUE, "--alias, --supersede and --tenant are of --record: add it."
            )
        if option and not record and deployment is None:
            raise UserError(
                Code.INVALID_VALUE, "--option is of --record or --deployment: add one of them."
            )
        if html is not None:
            check_place(html)
        decides = record or deployment is not None
        wanted = Wanted(file, option, tuple(alias or ()), supersede, tenant)
        if decides and html is None:
            return decide_for(load.home(), wanted, record, deployment, as_json)
        workload = read_workload(file)
        start = datetime.now(UTC).date()
        try:
            found = planned(load.home().path, workload, start)
        except UserError as error:
            raise with_line(error, file) from None
        if decides:
            decide_for(load.home(), wanted, record, deployment, as_json, found)
        nothing = nearest_to(found, start)
        more = None
        if as_json or html is not None:
            more = weigh(found, start)
        if html is not None and more is not None:
            write_page(html, page(more, workload, found.facts, start, nothing))
    if html is not None and decides and not as_json:
        console.print(f"{plain(html)} has all of it, to be opened in a browser.")
    if decides:
        return
    if as_json and more is not None:
        whole = plan_as_plain(found.plan, workload, found.facts, top, nothing)
        print_json(whole | more.as_plain())
    elif nothing is None:
        _show(found, top)
        if found.assumptions["for_a_dollar"].assumed and found.currency != "USD":
            console.print(f"In dollars: {_RATE.format(found.currency)}", soft_wrap=True)
    else:
        _show_nothing(nothing, found.plan, workload)
    if html is not None and not as_json:
        console.print(f"\n{plain(html)} has all of it, to be opened in a browser.")
    if nothing is not None:
        raise typer.Exit(1)


def _show(planned: "Planned", top: int) -> None:
    from freehold.decide.money.money import a_month, once
    from freehold.decide.ways.reasons import is_llm, unsaid

    found, workload = planned.plan, planned.workload
    best, months = found.ranked[0], workload.horizon_months
    console.print(f"{plain(workload.name)}: {plain(told(best))}.", soft_wrap=True)
    if best.predicted is not None:
        console.print(f"  {_answers(best.predicted)}", soft_wrap=True)
    for note in (*best.notes, *unsaid(workload)):
        console.print(f"  {plain(note)}", soft_wrap=True)
    console.print()
    table(
        [
            "way",
            "model",
            "LLM",
            "on",
            "a month",
            "once",
            f"{months} months",
            "days to deliver",
            "TTFT p95, ms",
        ],
        [
            [
                each.option.way.value,
                model_of(each),
                _LLM[is_llm(each.offer, planned.facts).verdict],
                place_of(each),
                f"{a_month(each.cost.parts):,.0f}",
                f"{once(each.cost.parts):,.0f}",
                f"{each.over_horizon:,.0f}",
                each.delivery.days,
                _first_token(each.predicted),
            ]
            for each in _worth_showing(found, top)
        ],
        "",
    )
    console.print(f"\nWhat the first costs, of {len(found.ranked):,} that are possible:")
    for part in best.cost.parts:
        console.print(f"  {_cost(part)} {plain(part.name)}: {plain(part.formula)}", soft_wrap=True)
    if workload.carbon is not None:
        console.print(f"  {plain(_emitted(best))}", soft_wrap=True)
    console.print()
    _show_reasons(found.rejected, workload.models)


def _show_nothing(nothing: "Nothing", found: "Plan", workload: "Workload") -> None:
    console.print(f"{plain(workload.name)}: {plain(nothing.conflict)}", soft_wrap=True)
    for near in nothing.near:
        console.print(f"  {plain(near.sentence)}", soft_wrap=True)
    console.print("What keeps options out:")
    _show_reasons(found.rejected, workload.models)


def _worth_showing(found: "Plan", top: int) -> list["Ranked"]:
    """The cheapest, and of each way the cheapest where it is not among them."""
    from freehold.decide.compared.plain import best_of_each_way

    shown = list(found.ranked[:top])
    return shown + [each for each in best_of_each_way(found).values() if each not in shown]


def _emitted(best: "Ranked") -> str:
    told = best.cost.emitted
    if told is None:
        return "What it emits is not known: nobody says where it is computed."
    return f"{told.kilograms_a_month:,.0f} kg CO2e a month: {told.formula}."


def _show_reasons(rejected: "Sequence[Rejected]", named: Sequence[str]) -> None:
    """What a person would look for by its name, then the rules that keep most out, as somebody can
    answer these, then what else does."""
    from freehold.decide.ways.at_hand import THIS_MACHINE

    by_name = {THIS_MACHINE, *named}
    for each in rejected:
        if each.what in by_name:
            why = " ".join(judged.why for judged in each.judged) or each.why
            console.print(f"  {plain(each.what)}: {plain(why)}", soft_wrap=True)
    others = [each for each in rejected if each.what not in by_name]
    counts = Counter((bool(each.judged), _why(each)) for each in others)
    for (_, why), count in sorted(counts.items(), key=lambda found: (not found[0][0], -found[1]))[
        :_REASONS
    ]:
        times = "once" if count == 1 else f"{count:,} times"
        console.print(f"  left out {times}: {plain(why)}", soft_wrap=True)


def _why(each: "Rejected") -> str:
    """The first rule that it does not pass, or what was said of it."""
    judged = next((judged for judged in each.judged if judged.verdict != "pass"), None)
    return each.why if judged is None else f"{judged.rule}: {judged.why}"


def _answers(predicted: "Predicted") -> str:
    told = [
        f"{name} {value:,.{places}f}{unit}"
        for name, value, places, unit in (
            ("the first token after", predicted.ttft_ms, 0, " ms"),
            ("each other", predicted.tpot_ms, 1, " ms"),
            ("all after", predicted.whole_s, 1, " s"),
        )
        if value is not None
    ]
    rate = "" if predicted.tokens_per_s is None else f"; {predicted.tokens_per_s:,.0f} tokens/s"
    return f"In the busiest hour, at p95 ({predicted.basis.value}): {', '.join(told)}{rate}."


def _first_token(predicted: "Predicted | None") -> str | None:
    if predicted is None or predicted.ttft_ms is None:
        return None
    return f"{predicted.ttft_ms:,.0f} {predicted.basis.value}"


def _cost(part: "Part") -> str:
    once = f" and {part.once:,.0f} once" if part.once else ""
    return f"{part.a_month:,.2f} a month{once},"
