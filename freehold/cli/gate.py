"""`freehold gate`: what evaluations decided of revisions."""

from typing import Annotated, Any

import typer

from freehold.cli import reach
from freehold.cli.eval_words import show_verdicts
from freehold.cli.output import Json, console, errors_in_a_sentence, labelled, print_json, table
from freehold.cli.owner import EnvironmentOption, Of, TenantOption
from freehold.config import load

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
        gateway = reach.require_running(load.home())
        query: dict[str, Any] = {**Of(tenant, environment).named(), "limit": 1000}
        if adapter is not None:
            query["adapter"] = adapter
        found = gateway.call("GET", _PATH, query=query)["data"]
    if as_json:
        print_json(found)
        return
    table(
        ["id", "base", "adapter", "suite", "passed", "made", "by"],
        [
            [
                each["id"], _short(each["base_digest"]), _short(each["adapter_digest"]),
                each["suite_name"], "yes" if each["passed"] else "no", each["made_at"][:16],
                each["made_by"],
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
        gateway = reach.require_running(load.home())
        path = f"{_PATH}/{reach.quoted(gate_id)}"
        found = gateway.call("GET", path, query=Of(tenant, environment).named())
    if as_json:
        print_json(found)
        return
    labelled(
        (label, found[name])
        for label, name in (
            ("id", "id"), ("base", "base_digest"), ("adapter", "adapter_digest"),
            ("suite", "suite_name"), ("suite's digest", "suite_digest"),
            ("held against", "incumbent_digest"), ("evaluation", "job"), ("made by", "made_by"),
        )
        if found[name]
    )  # fmt: skip
    console.print()
    show_verdicts(found["verdicts"])
    console.print("Passed." if found["passed"] else "NOT PASSED.")


def _short(digest: str | None) -> str:
    return "" if digest is None else digest.removeprefix("sha256:")[:12]
