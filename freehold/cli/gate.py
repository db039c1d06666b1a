"""`freehold gate`: what evaluations decided of revisions."""

from typing import Annotated, Any

import typer

from freehold.cli.options.owner import EnvironmentOption, Of, TenantOption
from freehold.cli.reaching import reach
from freehold.cli.reaching.resources import every_page, offline, one
from freehold.cli.terminal.output import (
    Json,
    console,
    errors_in_a_sentence,
    labelled,
    plain,
    print_json,
    table,
)
from freehold.cli.words.evaluation import show_verdicts
from freehold.config import load
from freehold.config.home import Home

_PATH = "/admin/v1/gates"
_Id = Annotated[str, typer.Argument(metavar="ID", help="As `freehold gate list` shows it.")]

app = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, help="What evaluations decided of revisions."
)


@app.command("list")
def list_gates(
    adapter: Annotated[str | None, typer.Option(help="Of this adapter alone, by digest.")] = None,
    tenant: TenantOption = None,
    environment: EnvironmentOption = None,
    as_json: Json = False,
) -> None:
    """List the gates that were made in an environment, newest first."""
    with errors_in_a_sentence(as_json):
        found = _list(load.home(), Of(tenant, environment), adapter)
    if as_json:
        print_json(found)
        return
    table(
        ["id", "base", "adapter", "suite", "passed", "made", "by"],
        [
            [
                each["id"], _short(each["base_digest"]), _short(each["adapter_digest"]),
                each["suite_name"], "yes" if each["passed"] else "no", each["made_at"][:16],
                _maker(each),
            ]
            for each in found
        ],
        "There are none there yet: `freehold eval ALIAS` makes one.",
    )  # fmt: skip


@app.command()
def show(
    gate_id: _Id,
    tenant: TenantOption = None,
    environment: EnvironmentOption = None,
    as_json: Json = False,
) -> None:
    """Show a gate, verdict by verdict."""
    with errors_in_a_sentence(as_json):
        found = _one(load.home(), Of(tenant, environment), gate_id)
    if as_json:
        print_json(found)
        return
    labelled((label, value) for label, value in _described(found) if value)
    there = found["elsewhere"]
    if there is not None and there["figures"]:
        console.print(plain(there["figures"].get("summary", "")), soft_wrap=True)
    console.print()
    show_verdicts(found["verdicts"])
    console.print("Passed." if found["passed"] else "NOT PASSED.")


def _list(home: Home, of: Of, adapter: str | None) -> list[dict[str, Any]]:
    gateway = reach.running(home)
    if gateway is not None:
        narrowed = {} if adapter is None else {"adapter": adapter}
        return every_page(gateway, _PATH, of, "id", "before", **narrowed)
    from freehold.cli.at_rest import paging
    from freehold.serve.admin.gates import shown_gate

    with offline(home, of) as rest:
        tenant_id, environment = rest.owner
        found = paging.every(
            lambda count, before: rest.store.gates(tenant_id, count, before, adapter, environment),
            lambda gate: gate.id,
        )
        return [shown_gate(each) for each in found]


def _one(home: Home, of: Of, gate_id: str) -> dict[str, Any]:
    gateway = reach.running(home)
    if gateway is not None:
        return one(gateway, "GET", _PATH, gate_id, of)
    from freehold.serve.admin.gates import gate_named, shown_gate

    with offline(home, of) as rest:
        return shown_gate(gate_named(rest.store, rest.owner, gate_id))


def _described(found: dict[str, Any]) -> list[tuple[str, Any]]:
    rows = [
        ("id", found["id"]),
        ("base", found["base_digest"]),
        ("adapter", found["adapter_digest"]),
        ("suite", found["suite_name"]),
        ("its digest", found["suite_digest"]),
        ("held against", found["incumbent_digest"]),
        ("evaluation", found["job"]),
        ("made", f"{found['made_at'][:19]} by {found['made_by']}"),
    ]
    there = found["elsewhere"]
    if there is None:
        return rows
    signer, through = there["signer"], there["through"]
    of = f"{signer['by']} (key {signer['key'][:16]}), in {there['environment']}"
    came = there["came_at"][:19]
    if through["key"] != signer["key"]:
        came += f", in a file of {through['by']} (key {through['key'][:16]})"
    return [*rows, ("decided by", f"{of}, as {there['gate']}"), ("came", came)]


def _maker(gate: dict[str, Any]) -> str:
    there = gate["elsewhere"]
    return gate["made_by"] if there is None else f"{gate['made_by']} of {there['signer']['by']}"


def _short(digest: str | None) -> str:
    return "" if digest is None else digest.removeprefix("sha256:")[:12]
