"""`freehold bench`: how fast engines serve a model on this machine."""

import asyncio
from dataclasses import asdict
from typing import Annotated, Any

import typer

from freehold.catalog.store import ModelStore
from freehold.cli import model as models
from freehold.cli.terminal.output import (
    Json,
    console,
    errors_in_a_sentence,
    plain,
    print_json,
    stderr,
    table,
)
from freehold.config import load
from freehold.deploy.autotune import (
    Candidate,
    Record,
    Records,
    Workload,
    candidates,
    measure,
    settings_for,
)
from freehold.deploy.probe import read_machine
from freehold.engines.base import LocalModel


def bench(
    name: Annotated[str | None, typer.Argument(help="A stored model; else the default.")] = None,
    autotune: Annotated[
        bool,
        typer.Option("--autotune", help="Try engines and threads, and let `up` use the best."),
    ] = False,
    streams: Annotated[int, typer.Option(min=1, max=256, help="Requests at once.")] = 8,
    prompt_tokens: Annotated[int, typer.Option(min=1, help="Tokens of each prompt.")] = 64,
    answer_tokens: Annotated[int, typer.Option(min=2, help="Tokens of each answer.")] = 64,
    adapters: Annotated[
        bool, typer.Option("--adapters", help="Only engines that mix adapters in a batch.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Measure how fast this machine serves a model; stop a running gateway before."""
    with errors_in_a_sentence(as_json):
        home = load.home()
        settings = load.settings(home.settings).engines
        store = ModelStore(home.path)
        card = store.get(name) if name else models.ensure_default(home, stderr)
        workload = Workload(streams, prompt_tokens, answer_tokens, adapters)
        machine, records = read_machine(), Records(home.cache)
        if autotune:
            tried = candidates(card, workload, machine.cores)
        else:
            chosen = settings_for(card, settings, records)
            tried = [Candidate(chosen.default, {})]
            settings = chosen
        local = LocalModel(card, store.path(card))
        with stderr.status("Measuring…") as status:

            def tell(what: str, done: int, total: int) -> None:
                status.update(plain(f"{what}, {done + 1} of {total}"))

            record = asyncio.run(measure(local, workload, settings, tried, home.cache, tell))
        if autotune:
            records.keep(card, machine, record)
        if as_json:
            print_json(_as_json(record))
        else:
            _show(record, card.name, is_kept=autotune)


def _as_json(record: Record) -> dict[str, Any]:
    best = record.best
    return {**asdict(record), "chosen": asdict(best) if best else None}


def _show(record: Record, name: str, is_kept: bool) -> None:
    workload = record.workload
    console.print(
        f"{name} on {record.machine}: {workload.streams} streams, prompts of "
        f"{workload.prompt_tokens} tokens, answers of {workload.answer_tokens}"
    )
    rows = [
        (
            str(trial.candidate),
            trial.tokens_per_s,
            trial.ttft_ms,
            trial.start_s,
            trial.rss_bytes // 2**20,
            trial.refused_because or ("chosen" if trial.candidate == record.best else ""),
        )
        for trial in record.trials
    ]
    columns = ("engine", "tokens/s", "TTFT ms", "start s", "MiB", "")
    table(columns, rows, "Nothing was measured: no engine can serve this model.")
    if is_kept and record.best is not None:
        console.print("`freehold up` uses it from now on; `--engine` overrides.")
