"""`freehold decide FILE --record`, and what became of decisions that were recorded."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from freehold.cli.options.owner import TenantOption, chosen_tenant
from freehold.cli.reaching import reach
from freehold.cli.terminal.output import (
    Json,
    console,
    errors_in_a_sentence,
    plain,
    print_json,
    table,
)
from freehold.config import load
from freehold.config.home import Home
from freehold.core.errors import Code, UserError

if TYPE_CHECKING:
    from freehold.operate.decisions.planning import Planned

_PATH = "/admin/v1/decisions"
_Id = Annotated[str, typer.Argument(metavar="ID", help="As `freehold decide list` shows it.")]


@dataclass(frozen=True, slots=True)
class Wanted:
    """A decision to be recorded."""

    file: Path
    option: str | None = None
    aliases: tuple[str, ...] = ()
    supersede: str | None = None
    tenant: str | None = None


def recorded(home: Home, wanted: Wanted, found: "Planned | None" = None) -> dict[str, Any]:
    """Planned by the gateway that runs, with its facts, or here where none does, if it is not
    `found` yet."""
    from freehold.config.lined import read
    from freehold.config.workload import read_workload

    read_workload(wanted.file)  # so that what is wrong in it is told with its line
    body: dict[str, Any] = {
        "workload": read(wanted.file).content,
        "name": wanted.file.stem,
        "option": wanted.option,
        "aliases": list(wanted.aliases),
        "supersede": wanted.supersede,
        "tenant": wanted.tenant,
    }
    gateway = reach.running(home)
    if gateway is not None:
        answer: dict[str, Any] = gateway.call("POST", _PATH, body)
        return answer
    from freehold.serve.admin.decisions import (
        NewDecision,
        new_decision,
        record_asked,
        shown_decision,
    )
    from freehold.serve.reading import validated

    asked = validated(NewDecision, body)
    with reach.offline(home) as (store, keyring, _):
        tenant_id = chosen_tenant(store, wanted.tenant).id
        now_us = keyring.clock.wall_us()
        content = _content(home, record_asked(asked, now_us), found)
        new = new_decision(content, tenant_id, "local", now_us, wanted.supersede)
        store.add_decision(tenant_id, new)
        return shown_decision(new)


def _content(home: Home, asked: dict[str, Any], found: "Planned | None") -> dict[str, Any]:
    from freehold.operate.decisions import planning

    if found is None:
        return planning.JOBS["record"](home.path, asked)
    return planning.recorded(home.path, found, asked)


def decide_for(
    home: Home,
    wanted: Wanted,
    record: bool,
    deployment: Path | None,
    as_json: bool,
    found: "Planned | None" = None,
) -> None:
    """Keeps the decision, or writes it as settings, or both."""
    if deployment is not None:
        check_new(deployment)
    made = recorded(home, wanted, found) if record else None
    told = None
    if deployment is not None:
        if made is None:
            told = _deployment_of_plan(home, wanted, found)
        else:
            told = _deployment(home, made["id"], wanted.tenant)
        _write(deployment, told)
    if as_json:
        print_json(made if told is None else (made or {}) | {"deployment": told})
        return
    if made is not None:
        console.print(f"Recorded as {made['id']}, to be checked with `freehold decide check`.")
        _show(made)
    if deployment is not None and told is not None:
        _show_deployment(deployment, told)


def _deployment_of_plan(home: Home, wanted: Wanted, found: "Planned | None") -> dict[str, Any]:
    from datetime import UTC, datetime

    from freehold.catalog.store import ModelStore
    from freehold.config.lined import read
    from freehold.config.workload import read_workload
    from freehold.operate.decisions.deploying import as_plain, deployment

    read_workload(wanted.file)
    asked = {
        "workload": read(wanted.file).content,
        "name": wanted.file.stem,
        "option": wanted.option,
        "today": datetime.now(UTC).date().isoformat(),
    }
    stored = [each.name for each in ModelStore(home.path).list()]
    return as_plain(deployment(_content(home, asked, found), None, stored), None)


def deploy(
    decision_id: _Id,
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Must not exist.")],
    tenant: TenantOption = None,
    as_json: Json = False,
) -> None:
    """Write a recorded decision as settings for `freehold up -f`."""
    with errors_in_a_sentence(as_json):
        check_new(out)
        told = _deployment(load.home(), decision_id, tenant)
        _write(out, told)
    if as_json:
        print_json({"file": str(out), **told})
    else:
        _show_deployment(out, told)


def _deployment(home: Home, decision_id: str, tenant: str | None) -> dict[str, Any]:
    gateway = reach.running(home)
    if gateway is not None:
        path = f"{_PATH}/{reach.quoted(decision_id)}/deployment"
        found: dict[str, Any] = gateway.call("GET", path, query=_of(tenant))
        return found
    from freehold.catalog.store import ModelStore
    from freehold.operate.decisions.deploying import as_plain, deployment
    from freehold.store.decisions import no_decision

    with reach.offline(home, to_look=True) as (store, _, _):
        decision = store.decision(chosen_tenant(store, tenant).id, decision_id)
    if decision is None:
        raise no_decision(decision_id)
    stored = [each.name for each in ModelStore(home.path).list()]
    return as_plain(deployment(decision.content, decision.id, stored), decision.id)


def check_new(file: Path) -> None:
    if file.exists() or file.is_symlink():
        raise UserError(
            Code.CONFLICT, f"{file} is there already: name another file, or move it away."
        )


def _write(file: Path, told: dict[str, Any]) -> None:
    try:
        with file.open("x", encoding="utf-8") as new:
            new.write(told["text"])
    except FileExistsError:
        check_new(file)
        raise
    except OSError as error:
        raise UserError(
            Code.FILE_INVALID, f"{file} cannot be written ({error.strerror}): name another place."
        ) from None


def _show_deployment(file: Path, told: dict[str, Any]) -> None:
    _line(f"{file} is written. Before it is served:")
    for number, step in enumerate(told["steps"], 1):
        _line(f"  {number}. {step}")
    if told["not_expressed"]:
        console.print("What settings cannot say, and the file says in words:")
    for each in told["not_expressed"]:
        _line(f"  {each}")


def list_decisions(tenant: TenantOption = None, as_json: Json = False) -> None:
    """List the decisions that were recorded, newest first."""
    with errors_in_a_sentence(as_json):
        found = _list(load.home(), tenant)
    if as_json:
        print_json(found)
        return
    table(
        ["id", "at", "workload", "decided for", "a month", "by", "superseded by"],
        [
            [
                each["id"],
                each["at"][:16],
                each["name"],
                each["option"],
                f"{each['a_month']:,.2f}",
                each["made_by"],
                each["superseded_by"],
            ]
            for each in found
        ],
        "No decision is recorded: `freehold decide FILE --record` makes one.",
    )


def show(decision_id: _Id, tenant: TenantOption = None, as_json: Json = False) -> None:
    """Show a recorded decision: what was chosen and predicted, and what that rests on."""
    with errors_in_a_sentence(as_json):
        found = one(load.home(), decision_id, tenant)
    if as_json:
        print_json(found)
    else:
        _show(found)


def _list(home: Home, tenant: str | None) -> list[dict[str, Any]]:
    gateway = reach.running(home)
    if gateway is not None:
        found: list[dict[str, Any]] = gateway.call("GET", _PATH, query=_of(tenant))["data"]
        return found
    from freehold.serve.admin.decisions import decision_in_short

    with reach.offline(home) as (store, _, _):
        mine = chosen_tenant(store, tenant).id
        return [decision_in_short(each) for each in store.decisions(mine)]


def one(home: Home, decision_id: str, tenant: str | None) -> dict[str, Any]:
    gateway = reach.running(home)
    if gateway is not None:
        path = f"{_PATH}/{reach.quoted(decision_id)}"
        found: dict[str, Any] = gateway.call("GET", path, query=_of(tenant))
        return found
    from freehold.serve.admin.decisions import shown_decision
    from freehold.store.decisions import no_decision

    with reach.offline(home) as (store, _, _):
        decision = store.decision(chosen_tenant(store, tenant).id, decision_id)
        if decision is None:
            raise no_decision(decision_id)
        return shown_decision(decision)


def check(
    decision_id: Annotated[
        str | None, typer.Argument(metavar="ID", help="All that are not superseded without.")
    ] = None,
    since: Annotated[str, typer.Option(help="Hold it against so many days.")] = "30d",
    tenant: TenantOption = None,
    as_json: Json = False,
) -> None:
    """Hold decisions against what was measured since, and what would be decided today. Ends with
    1 where one does not hold any more."""
    from freehold.cli.reaching.traffic import days

    with errors_in_a_sentence(as_json):
        found = _checked(load.home(), decision_id, days(since), tenant)
    holds = all(each["holds"] for each in found)
    if as_json:
        print_json({"holds": holds, "data": found})
    else:
        for each in found:
            show_check(each)
        if not found:
            console.print("No decision is recorded: `freehold decide FILE --record` makes one.")
    if not holds:
        raise typer.Exit(1)


def _checked(
    home: Home, decision_id: str | None, days: int, tenant: str | None
) -> list[dict[str, Any]]:
    gateway = reach.running(home)
    if gateway is not None:
        asked = _of(tenant) | {"days": days}
        return [
            gateway.call("POST", f"{_PATH}/{reach.quoted(each)}/check", query=asked)
            for each in ([decision_id] if decision_id else _current(_list(home, tenant)))
        ]
    from freehold.cli.wiring.decisions import usage_of
    from freehold.operate.decisions.planning import JOBS
    from freehold.operate.decisions.watched import DAY_US, check_asked, shown_check
    from freehold.store.decisions import no_decision

    with reach.offline(home, to_look=True) as (store, keyring, _):
        mine, now_us = chosen_tenant(store, tenant).id, keyring.clock.wall_us()
        found = [
            each
            for each in store.decisions(mine)
            if each.id == decision_id or (decision_id is None and each.superseded_by is None)
        ]
        if decision_id is not None and not found:
            raise no_decision(decision_id)
        told = []
        for each in found:
            asked = check_asked(each, usage_of(store), now_us - days * DAY_US, now_us)
            told.append(shown_check(each, asked, JOBS["check"](home.path, asked), now_us))
        return told


def _current(found: list[dict[str, Any]]) -> list[str]:
    return [each["id"] for each in found if each["superseded_by"] is None]


def show_check(found: dict[str, Any]) -> None:
    holds = "holds" if found["holds"] else "does not hold any more"
    _line(f"{found['id']} ({found['name']}: {found['option']}) {holds}.")
    few = "" if found["is_judged"] else ": too little to judge figures by"
    _line(
        f"Since {found['since'][:16]} ({found['days']:,.1f} days) it answered "
        f"{found['requests']:,} requests with {found['tokens_in']:,} tokens in and "
        f"{found['tokens_out']:,} out{few}."
    )
    table(
        ["", "predicted", "measured", "as predicted"],
        [
            [
                _FIGURES.get(each["name"], each["name"]),
                _figure(each["name"], each["predicted"]),
                _figure(each["name"], each["measured"]),
                {True: "yes", False: "no", None: ""}[each["within"]],
            ]
            for each in found["figures"]
            if each["predicted"] is not None or each["measured"] is not None
        ],
        "",
    )
    for each in found["departures"]:
        _line(f"{each['what']} {each['cause']} Next: {each['next_step']}.")
    if found["a_month"] is not None:
        _line(f"It costs {found['a_month']:,.2f} a month now. For the same work today:")
    for each in found["alternatives"]:
        once = f" and {each['once']:,.0f} once" if each["once"] else ""
        _line(
            f"  {each['way'].replace('_', ' ')}: {each['a_month']:,.2f} a month{once}, {each['id']}"
        )
    console.print()


_FIGURES = {
    "requests_a_day": "requests a day",
    "prompt_tokens": "tokens of a prompt",
    "answer_tokens": "tokens of an answer",
    "tokens_a_second_busy": "tokens/s in the busiest hour",
    "ttft_p50_ms": "first token, p50, ms",
    "ttft_p95_ms": "first token, p95, ms",
    "tpot_p50_ms": "each token after it, p50, ms",
    "tpot_p95_ms": "each token after it, p95, ms",
    "per_million_reserved": "a million tokens, machines alone",
    "per_million": "a million tokens, all that is paid monthly",
    "utilization_busy": "busy in the busiest hour",
}


def _figure(name: str, value: float | None) -> str:
    if value is None:
        return ""
    if name == "utilization_busy":
        return f"{value:.1%}"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:,.4g}"


def _of(tenant: str | None) -> dict[str, Any]:
    return {} if tenant is None else {"tenant": tenant}


def _show(made: dict[str, Any]) -> None:
    """What was decided, in lines."""
    option, predicted = made["option"], made["predicted"]
    rank = f"option {made['rank']:,} of {made['options']:,}"
    _line(f"{made['name']}: {option['id']} ({option['way'].replace('_', ' ')}), {rank}.")
    _line(f"Decided by {made['made_by']} at {made['at'][:16]} with Freehold {made['version']}.")
    for name, field in (("Supersedes", "supersedes"), ("Superseded by", "superseded_by")):
        if made[field]:
            _line(f"{name} {made[field]}.")
    aliases = made["aliases"]
    _line(f"Requests of it: {'those to ' + ', '.join(aliases) if aliases else 'all'}.")
    console.print()
    for name, value in _predictions(predicted, made["horizon_months"]):
        _line(f"  {name}: {value}")
    console.print("\nWhat it costs:")
    for part in made["parts"]:
        once = f" and {part['once']:,.0f} once" if part["once"] else ""
        _line(f"  {part['a_month']:,.2f} a month{once}, {part['name']}: {part['formula']}")
    if made["runners_up"]:
        console.print("\nThe best of the other ways:")
    for each in made["runners_up"]:
        _line(
            f"  {each['way'].replace('_', ' ')}: {each['a_month']:,.2f} a month, "
            f"{each['over_horizon']:,.0f} in {made['horizon_months']} months, {each['id']}"
        )
    if made["rules"]:
        console.print("\nRules:")
    for each in made["rules"]:
        _line(f"  {each['verdict']}: {each['rule']}: {each['why']}")
    console.print("\nIt rests on:")
    for each in made["prices"]:
        at = f", {each['at']}" if each["at"] else ""
        _line(f"  {each['usd']:,.6g} USD per {each['each']}: {each['what']} ({each['source']}{at})")
    facts = made["facts"]
    dates = ", ".join(f"{part} of {at}" for part, at in facts["compiled"].items())
    _line(f"  facts {facts['digest'][:19]}: {dates}")
    for note in made["notes"]:
        _line(f"  {note}")


def _predictions(found: dict[str, Any], months: int) -> list[tuple[str, str]]:
    """Those that are known."""
    told = [
        ("requests a day", found["requests_a_day"], "{:,.0f}"),
        ("tokens of a prompt", found["prompt_tokens"], "{:,.0f}"),
        ("tokens of an answer", found["answer_tokens"], "{:,.0f}"),
        ("a month", found["a_month"], "{:,.2f}"),
        (f"in {months} months", found["over_horizon"], "{:,.0f}"),
        ("a million tokens, everything counted", found["per_million"], "{:,.4f}"),
        ("a million tokens, machines alone, busy or not", found["per_million_reserved"], "{:,.4f}"),
        ("tokens/s of answers in the busiest hour", found["tokens_a_second_busy"], "{:,.1f}"),
        ("tokens/s of answers that it can make", found["tokens_a_second_full"], "{:,.1f}"),
        ("busy in that hour", found["utilization_busy"], "{:.0%}"),
        ("first token, p95, ms", found["ttft_p95_ms"], "{:,.0f}"),
        ("each token after it, p95, ms", found["tpot_p95_ms"], "{:,.1f}"),
    ]
    return [(name, form.format(value)) for name, value, form in told if value is not None]


def _line(text: str) -> None:
    console.print(plain(text), soft_wrap=True)
