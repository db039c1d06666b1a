"""`freehold decide`: should this be hosted, and how? From a file that says what is to be served."""

import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from freehold.cli import decision
from freehold.cli.options.with_default import WithDefault
from freehold.cli.plan import plan_
from freehold.cli.simulate import simulate_
from freehold.cli.terminal.output import Json, console, errors_in_a_sentence, plain, print_json
from freehold.core.errors import Code, UserError

if TYPE_CHECKING:
    from freehold.config.workload_text import Answers
    from freehold.core.plan import Workload


class _Default(WithDefault):
    default = "plan"


app = typer.Typer(
    cls=_Default,
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Should we host an LLM, and how?",
)

app.command("plan")(plan_)
app.command("simulate")(simulate_)
app.command("list")(decision.list_decisions)
app.command("show")(decision.show)
app.command("check")(decision.check)
app.command("deploy")(decision.deploy)

_QUESTIONS = {
    "requests_per_day": ("--requests-per-day", "Requests a day, on average (1.5k is 1,500)", None),
    "prompt": ("--prompt", "Tokens of a prompt (one number, or {p50: 200, p95: 800})", "500"),
    "answer": ("--answer", "Tokens of an answer", "200"),
    "region": ("--region", "Where your own machines stand (de, eu-central-1; empty: not said)", ""),
    "data_class": (
        "--data-class",
        "What is in it (public, internal, confidential, personal, health)",
        "internal",
    ),
    "peak": ("--peak", "When requests come (always, office, evening)", "office"),
}
_DAY_S = 24 * 3600
_ALONE = "requests_per_day: 1\nprompt: 1\nanswer: 1\n"  # to which one answer is added


@app.command()
def init(
    file: Annotated[Path, typer.Argument(help="Must not exist.")] = Path("workload.yaml"),
    requests_per_day: Annotated[str | None, typer.Option(help="As 1.5k or 20000.")] = None,
    prompt: Annotated[str | None, typer.Option(help="Tokens, as in the file.")] = None,
    answer: Annotated[str | None, typer.Option(help="Tokens, as in the file.")] = None,
    region: Annotated[str | None, typer.Option(help="As de or eu-central-1.")] = None,
    data_class: Annotated[str | None, typer.Option(help="public, internal, personal, ...")] = None,
    peak: Annotated[str | None, typer.Option(help="always, office or evening.")] = None,
    trace: Annotated[
        Path | None,
        typer.Option(help="Learn of requests from a trace: JSON lines, or Azure's CSV."),
    ] = None,
    from_usage: Annotated[
        str | None,
        typer.Option(help="Learn of them from what was used here, of all tenants: 30d."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Write a workload file, from a few questions, options, a trace or what was used here."""
    given = {
        "requests_per_day": requests_per_day,
        "prompt": prompt,
        "answer": answer,
        "region": region,
        "data_class": data_class,
        "peak": peak,
    }
    with errors_in_a_sentence(as_json):
        decision.check_new(file)
        if trace is not None or from_usage is not None:
            answers = _learned(trace, from_usage, given)
        else:
            answers = _asked(given, may_ask=sys.stdin.isatty() and not as_json)
        made = _write(file, answers)
    if as_json:
        print_json({"file": str(file), "workload": as_plain(made)})
        return
    console.print(f"{plain(file)} is written: {_told(made)}", soft_wrap=True)
    if answers.learned_from:
        console.print(f"  Read from {plain(answers.learned_from)}.", soft_wrap=True)


@app.command("check-file")
def check_file(
    file: Annotated[Path, typer.Argument(help="A workload file.")] = Path("workload.yaml"),
    as_json: Json = False,
) -> None:
    """Say what a workload file means, or what is wrong with it."""
    from freehold.config.workload import read_workload

    with errors_in_a_sentence(as_json):
        found = read_workload(file)
    if as_json:
        print_json(as_plain(found))
        return
    console.print(f"{plain(found.name)}: {_told(found)}", soft_wrap=True)


def as_plain(workload: "Workload") -> dict[str, Any]:
    made = asdict(workload)
    made["rules"] |= {name: sorted(made["rules"][name]) for name in ("residency", "certifications")}
    return made


def _told(workload: "Workload") -> str:
    hours = workload.hours
    busiest = max(hours) * 24 / sum(hours) * max(workload.weekdays) * 7 / sum(workload.weekdays)
    an_hour = workload.requests_a_day / 24 * busiest
    return (
        f"{workload.requests_a_day:,.0f} requests a day, {an_hour:,.0f} in the busiest hour; "
        f"{workload.prompt.mean:,.0f} tokens of prompt and {workload.answer.mean:,.0f} of answer "
        "on average."
    )


def _asked(given: dict[str, str | None], *, may_ask: bool) -> "Answers":
    from freehold.config.workload_text import Answers

    needed = [name for name in ("requests_per_day", "prompt", "answer") if given[name] is None]
    if needed and not may_ask:
        options = ", ".join(_QUESTIONS[name][0] for name in needed)
        raise UserError(
            Code.INVALID_VALUE, f"There is nobody to ask: say {options}, or --trace FILE."
        )
    if may_ask:
        for name, (_, question, usual) in _QUESTIONS.items():
            if given[name] is None:
                given[name] = _ask(name, question, usual)
    said = {name: value for name, value in given.items() if value}
    _check_said(said)
    return Answers(**said)  # type: ignore[arg-type]  # its texts


def _check_said(said: dict[str, str]) -> None:
    for name, value in said.items():
        problem = _problem(name, value)
        if problem is not None:
            raise UserError(Code.INVALID_VALUE, f"{_QUESTIONS[name][0]}: {problem}")


def _ask(name: str, question: str, usual: str | None) -> str:
    """Until the file could have it."""
    while True:
        found: str = typer.prompt(question, default=usual, show_default=bool(usual))
        if not found.strip():
            return ""
        problem = _problem(name, found)
        if problem is None:
            return found
        console.print(plain(problem))


def _problem(name: str, found: str) -> str | None:
    """Why no file could have this, without the line of a file that is not there yet."""
    from freehold.config.workload import parse_workload

    rest = "".join(line for line in _ALONE.splitlines(True) if not line.startswith(f"{name}:"))
    try:
        parse_workload(f"{name}: {found}\n{rest}")
    except UserError as error:
        return error.message.partition(": ")[2].removeprefix(f"{name}: ")
    return None


def _learned(trace: Path | None, from_usage: str | None, given: dict[str, str | None]) -> "Answers":
    """What was said counts before what was learned."""
    from freehold.config.workload_text import Answers, lengths_written
    from freehold.decide.load.arrivals import Load, traffic

    if trace is not None and from_usage is not None:
        raise UserError(Code.INVALID_VALUE, "Say --trace or --from-usage, and not both.")
    if trace is not None:
        from freehold.config.trace import read_trace

        recorded, cached, origin = read_trace(trace), None, str(trace)
    else:
        from freehold.cli.reaching.traffic import days, used
        from freehold.config.load import home

        recorded, cached = used(home(), days(from_usage or ""))
        origin = f"what was used in {from_usage}"
    load = Load(*recorded[:5])
    found = traffic(load, recorded.starts_at_s)
    _check_said({name: value for name, value in given.items() if value})
    short = "" if load.span_s >= _DAY_S else ", less than a day: look at requests_per_day"
    is_even = len({*found.hours, *found.weekdays}) == 1
    return Answers(
        requests_per_day=given["requests_per_day"] or f"{found.requests_a_day:.6g}",
        prompt=given["prompt"] or lengths_written(found.prompt),
        answer=given["answer"] or lengths_written(found.answer),
        region=given["region"],
        data_class=given["data_class"] or "internal",
        peak=given["peak"],
        hours=None if given["peak"] or is_even else found.hours,
        weekdays=None if given["peak"] or is_even else found.weekdays,
        cached=cached,
        bursts=found.bursts,
        tenants_with_adapters=found.tenants_with_adapters,
        learned_from=f"{origin.splitlines()[0]}: {len(load):,} requests in "
        f"{load.span_s / 3600:,.1f} hours, which are in UTC{short}",
    )


def _write(file: Path, answers: "Answers") -> "Workload":
    """What is written was read before: nothing is left behind that cannot be."""
    from freehold.config.workload import parse_workload
    from freehold.config.workload_text import written

    text = written(answers)
    made = parse_workload(text, file)
    try:
        with file.open("x", encoding="utf-8") as new:
            new.write(text)
    except FileExistsError:
        decision.check_new(file)
        raise
    except OSError as error:
        raise UserError(
            Code.FILE_INVALID, f"{file} cannot be written ({error.strerror}): name another place."
        ) from None
    return made
