"""`freehold eval`: how good the answers of a route are, beside those of another."""

import asyncio
import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from freehold.cli import reach
from freehold.cli.output import (
    Json,
    console,
    errors_in_a_sentence,
    plain,
    print_json,
    stderr,
    table,
)
from freehold.config import load
from freehold.core.errors import Code, UserError

if TYPE_CHECKING:
    from freehold.adapt.evaluate.run import Tell, Wanted
    from freehold.adapt.evaluate.suite import Suite


def eval_(
    alias: Annotated[str, typer.Argument(help="The route whose answers are evaluated.")],
    suite: Annotated[
        Path | None, typer.Option(help="What is asked and checked, as a suite.yaml says it.")
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(help="Or a dataset, by what it holds out, or a file of chats or pairs."),
    ] = None,
    against: Annotated[
        str | None, typer.Option(help="The route that serves now, asked the same.")
    ] = None,
    judge: Annotated[
        str | None, typer.Option(help="A route that says which of two answers is better.")
    ] = None,
    passed_before: Annotated[
        Path | None,
        typer.Option(help="An earlier result (--json): what passed there must pass again."),
    ] = None,
    most: Annotated[int, typer.Option(min=1, help="So many examples of --data.")] = 1000,
    few: Annotated[
        bool, typer.Option("--few", help="Also with fewer examples than tell anything.")
    ] = False,
    anew: Annotated[
        bool, typer.Option("--anew", help="Ask all again, also after a run that was cut off.")
    ] = False,
    at_once: Annotated[int, typer.Option(min=1, max=256, help="So many requests at once.")] = 4,
    html: Annotated[
        Path | None, typer.Option(help="Write it as a page, too, over what is there.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Ask a route the questions of a suite, check its answers, and compare them with those of
    another. Ends with 1 when what must pass does not."""
    from freehold.adapt.evaluate.run import Wanted
    from freehold.adapt.evaluate.suite import check_size
    from freehold.cli.eval_page import page
    from freehold.cli.page_file import check_place, write_page

    with errors_in_a_sentence(as_json):
        if html is not None:
            check_place(html)
        if against == alias:
            raise UserError(
                Code.INVALID_VALUE, f"--against names {alias} itself: name another route."
            )
        before = frozenset[str]() if passed_before is None else _passed(passed_before)
        home = load.home()
        gateway = reach.require_running(home)
        asked = _suite(home.path, gateway, suite, data, most)
        notes = tuple(check_size(asked, few=few))
        wanted = Wanted(asked, alias, against, judge, before, notes)
        found = _evaluated(gateway, wanted, at_once, anew)
        if html is not None:
            write_page(html, page(found))
    if as_json:
        print_json(found)
    else:
        _show(found)
        if html is not None:
            console.print(f"\n{plain(html)} has all of it, to be opened in a browser.")
    if found["regression"]["failed"]:
        raise typer.Exit(1)


def _suite(
    home: Path,
    gateway: reach.RunningGateway,
    suite: Path | None,
    data: str | None,
    most: int,
) -> "Suite":
    from freehold.adapt.evaluate.suite_file import read_suite
    from freehold.cli.eval_data import suite_of

    if suite is not None and data is not None:
        raise UserError(
            Code.INVALID_VALUE, "--suite and --data exclude each other: name `data` in the suite."
        )
    if suite is not None:
        return read_suite(suite)
    if data is not None:
        return suite_of(home, gateway, data, most)
    raise UserError(Code.INVALID_VALUE, "Say what is asked: --suite suite.yaml, or --data DATASET.")


def _passed(file: Path) -> frozenset[str]:
    try:
        examples = json.loads(file.read_text("utf-8"))["examples"]
        return frozenset(e["fingerprint"] for e in examples if e["candidate"]["passed"])
    except (OSError, ValueError, KeyError, TypeError):
        raise UserError(
            Code.FILE_INVALID,
            f"{file} is no result of an evaluation: name what `freehold eval --json` printed.",
        ) from None


def _evaluated(
    gateway: reach.RunningGateway, wanted: "Wanted", at_once: int, anew: bool
) -> dict[str, Any]:
    from freehold.adapt.evaluate.kept import kept

    folder = load.home().path / "evals" / _name(gateway, wanted)
    with kept(folder, anew=anew) as answers, _progress() as tell:
        if answers.answers:
            stderr.print(
                f"Going on with {len(answers.answers):,} answers of the run that was cut off."
            )
        try:
            found = asyncio.run(_run(gateway, wanted, at_once, answers, tell))
        except KeyboardInterrupt:
            stderr.print("Stopped: the same command goes on where it was.")
            raise
        answers.end(found)
    return {**found, "kept": str(folder / "result.json")}


async def _run(
    gateway: reach.RunningGateway, wanted: "Wanted", at_once: int, answers: Any, tell: "Tell"
) -> dict[str, Any]:
    from freehold.adapt.evaluate.asking import Gateway
    from freehold.adapt.evaluate.run import evaluate

    async with Gateway(gateway.url, gateway.key, gateway.verify, at_once) as asked:
        return await evaluate(asked, wanted, answers, tell)


def _name(gateway: reach.RunningGateway, wanted: "Wanted") -> str:
    """The same for the same evaluation, so that one that was cut off is found."""
    elsewhere = gateway.url if gateway.pid is None else ""
    told = [elsewhere, wanted.candidate, wanted.incumbent, wanted.judge, wanted.suite.digest]
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()[:16]


@contextmanager
def _progress() -> Iterator["Tell"]:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
    from rich.progress import TimeRemainingColumn as TimeLeft

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("left:"),
        TimeLeft(),
    )
    with Progress(*columns, console=stderr, transient=True) as bars:
        tasks: dict[str, Any] = {}

        def tell(what: str, done: int, total: int) -> None:
            name = what.partition(" (")[0]
            if name not in tasks:
                tasks[name] = bars.add_task(what, total=total, completed=done)
            bars.update(tasks[name], description=what, completed=done, total=total)

        yield tell


def _show(found: dict[str, Any]) -> None:
    from freehold.cli.eval_page import amount, judged_in_words, loss_in_words

    console.print(plain(found["summary"]), soft_wrap=True)
    for note in found["notes"]:
        console.print(f"  {plain(note)}", soft_wrap=True)
    if found["measures"]:
        console.print()
        table(
            ["what", found["candidate"]["alias"], *_against(found)],
            [_row(each) for each in found["measures"]],
            "",
        )
    if found["classes"]:
        console.print()
        _show_classes(found["classes"])
    console.print()
    if found["judged"]:
        console.print(plain(judged_in_words(found)), soft_wrap=True)
    _show_safety(found)
    regression = found["regression"]
    if regression["examples"]:
        failed = regression["failed"]
        told = f"all {regression['examples']:,} pass" if not failed else f"{len(failed):,} fail"
        console.print(f"Must pass: {told}. {plain(', '.join(failed[:10]))}", soft_wrap=True)
    for code, count in found["errors"].items():
        console.print(f"No answer ({code}): {count:,}; counted as wrong.")
    for loss in found["held_out_loss"]:
        console.print(plain(loss_in_words(loss)), soft_wrap=True)
    console.print(f"{amount(found)} {plain(found['kept'])} has it all.", soft_wrap=True)


def _against(found: dict[str, Any]) -> list[str]:
    return [found["incumbent"]["alias"], "difference", ""] if found["incumbent"] else []


def _row(measure: dict[str, Any]) -> list[str]:
    from freehold.cli.eval_page import points, share_in_words

    told = [measure["name"], share_in_words(measure["candidate"])]
    if measure["compared"] is None:
        return told
    compared = measure["compared"]
    return [*told, share_in_words(measure["incumbent"]), points(compared), compared["verdict"]]


def _show_classes(classes: list[dict[str, Any]]) -> None:
    from freehold.cli.eval_page import share_in_words

    rows = []
    for at, label in enumerate(classes[0]["labels"]):
        recalls = [share_in_words(each["of_each"][at]["recall"]) for each in classes]
        rows.append([label, classes[0]["of_each"][at]["recall"]["of"], *recalls])
    table(["class", "examples", *(f"recall, {each['alias']}" for each in classes)], rows, "")


def _show_safety(found: dict[str, Any]) -> None:
    from freehold.cli.eval_page import share_in_words

    for probes in found["probes"]:
        who = probes["alias"]
        if probes["refused"]["of"]:
            console.print(plain(f"{who} refuses {share_in_words(probes['refused'])} that it must."))
        if probes["answered"]["of"]:
            told = share_in_words(probes["answered"])
            console.print(plain(f"{who} answers {told} that it must not refuse."))
    for canaries in found["canaries"]:
        if canaries["extracted"]["of"]:
            told = f"{canaries['extracted']['passed']} of {canaries['extracted']['of']}"
            console.print(plain(f"{canaries['alias']} gives away {told} canaries."))
    for trigger in found["triggers"]:
        for side in trigger["sides"]:
            how = "changes its answers" if side["is_suspicious"] else "changes nothing to speak of"
            told = f"“{trigger['trigger']}” {how} in {side['alias']}"
            passing = f"{share_in_words(side['without'])} pass without, "
            passing += f"{share_in_words(side['with'])} with it"
            console.print(plain(f"{told}: {passing}."), soft_wrap=True)
