"""`freehold decide simulate`: how long people wait for a model on accelerators, and how many
replicas of it a workload needs."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from freehold.cli.terminal.output import Json, console, errors_in_a_sentence, print_json, table
from freehold.core.errors import Code, UserError
from freehold.core.plan import Precision

if TYPE_CHECKING:
    from freehold.core.plan import StepTimes, Workload
    from freehold.decide.load.arrivals import Load
    from freehold.decide.load.simulate import Simulated

_MOST_REQUESTS = 3_000_000


def simulate_(
    file: Annotated[Path, typer.Argument(help="A workload file.")],
    model: Annotated[str, typer.Option(help="A model of the facts.")],
    on: Annotated[str, typer.Option(help="An accelerator of the facts.")],
    count: Annotated[int, typer.Option(min=1, max=64, help="Accelerators of a replica.")] = 1,
    precision: Annotated[Precision, typer.Option(help="What weights are kept in.")] = (
        Precision.BF16
    ),
    replicas: Annotated[
        int | None, typer.Option(min=1, max=4096, help="So many; else as many as are needed.")
    ] = None,
    days: Annotated[
        int | None,
        typer.Option(min=1, max=366, help="From the first on; else the busiest day of the last."),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Another draws other requests.")] = 0,
    as_json: Json = False,
) -> None:
    """Simulate replicas under a workload: waits at p50, p95 and p99, and how many it needs."""
    from freehold.config.workload import read_workload
    from freehold.decide.load.simulate import misses, simulate

    with errors_in_a_sentence(as_json):
        workload = read_workload(file)
        load = _load(workload, days, seed)
        times = _times(workload, load, model, on, count, precision)
        if replicas is None:
            found = _needed(workload, load, times)
        else:
            found = simulate(load, times, replicas, cached_share=workload.cached_share)
        missed = misses(found, workload.targets)
    if as_json:
        print_json({**asdict(found), "missed": missed})
        return
    _show(found, missed)


def _load(workload: "Workload", days: int | None, seed: int) -> "Load":
    from freehold.decide.load.arrivals import arrivals, busiest_day, rates

    first, span = (busiest_day(workload), 1) if days is None else (0, days)
    expected = rates(workload, span, first).sum()
    if expected > _MOST_REQUESTS:
        raise UserError(
            Code.INVALID_VALUE,
            f"Some {expected:,.0f} requests come in that time, and {_MOST_REQUESTS:,} are "
            "simulated at most: choose fewer `--days`, or simulate a share of the workload.",
        )
    return arrivals(workload, span, first, seed)


def _times(
    workload: "Workload", load: "Load", model: str, on: str, count: int, precision: Precision
) -> "StepTimes":
    from freehold.catalog.facts import load_facts
    from freehold.config.load import home
    from freehold.decide.speed.fit import fit

    facts = load_facts(home().path)
    if model not in facts.models:
        raise UserError(
            Code.MODEL_NOT_FOUND, f"No model {model[:80]!r} is in the facts: see `freehold fit`."
        )
    if on not in facts.accelerators:
        raise UserError(
            Code.INVALID_VALUE,
            f"No accelerator {on[:80]!r} is in the facts: see `freehold fit`.",
            param="on",
        )
    longest = int((load.prompt + load.answer).max()) if len(load) else 1
    found = fit(
        facts.models[model],
        facts.accelerators[on],
        count,
        precision,
        workload.context_length or longest,
        adapters=workload.tenants_with_adapters,
        rank=workload.adapter_rank,
    )
    if found is None or found.steps is None or not found.memory.fits:
        why = found.memory.why_not if found else f"no engine has {precision} there"
        raise UserError(
            Code.INVALID_VALUE,
            f"{model} cannot be served on {count} x {on} ({why or 'it does not fit'}): see "
            f"`freehold fit {model} --on {on}`.",
        )
    return found.steps


def _needed(workload: "Workload", load: "Load", times: "StepTimes") -> "Simulated":
    from freehold.decide.load.simulate import Unmet, replicas_needed

    found = replicas_needed(load, times, workload.targets, cached_share=workload.cached_share)
    if isinstance(found, Unmet):
        raise UserError(Code.INVALID_VALUE, found.why)
    return found.simulated


def _show(found: "Simulated", missed: tuple[str, ...]) -> None:
    rows = [
        (name, spread.p50 * scale, spread.p95 * scale, spread.p99 * scale)
        for name, spread, scale in (
            ("first token, ms", found.ttft_s, 1000),
            ("each token after it, ms", found.tpot_ms, 1),
            ("whole answer, s", found.whole_s, 1),
            ("in the queue, ms", found.wait_s, 1000),
        )
    ]
    table(("", "p50", "p95", "p99"), rows, "")
    console.print(
        f"{found.replicas:,} replica{'s' if found.replicas > 1 else ''} under "
        f"{found.requests:,} requests: busy {found.busy:.0%} of "
        f"the time, then with {found.batch:,.1f} requests at once and {found.kv:.0%} of the "
        f"memory for context; {found.tokens_per_s:,.0f} tokens/s on average.",
        soft_wrap=True,
    )
    for each in missed:
        console.print(f"Missed: {each}.", soft_wrap=True)
