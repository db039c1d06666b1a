"""`freehold tenant`: who is served here, and how far apart from each other."""

import shutil
import time
from enum import StrEnum
from typing import Annotated, Any

import typer

from freehold.cli.options.owner import Of, chosen_tenant
from freehold.cli.reaching import reach, resources
from freehold.cli.terminal.output import (
    Json,
    console,
    errors_in_a_sentence,
    labelled,
    print_json,
    table,
)
from freehold.config import load
from freehold.config.home import Home
from freehold.core.binding import Environment
from freehold.core.departure import OnDeparture
from freehold.core.ids import new_id
from freehold.core.tenant import IsolationClass, Tenant

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Make, show, isolate, disable and remove tenants.",
)
_PATH = "/admin/v1/tenants"


class Switch(StrEnum):
    ON = "on"
    OFF = "off"


Name = Annotated[str, typer.Argument(help="A tenant's name or id.")]
Class = Annotated[
    IsolationClass | None,
    typer.Option(
        help="shared: own adapters and cache; dedicated: own engine processes; weights: those, on "
        "an own copy of the weights."
    ),
]


@app.command()
def create(
    name: Annotated[str, typer.Argument(help="Small letters, digits, . _ -")],
    isolation: Class = None,
    as_json: Json = False,
) -> None:
    """Make a tenant. It has nothing yet: give it routes and keys."""
    body = {"name": name, "isolation": (isolation or IsolationClass.SHARED).value}
    with errors_in_a_sentence(as_json):
        made = _create(load.home(), body)
    if as_json:
        print_json(made)
        return
    console.print(f"Tenant {made['name']} ({made['id']}), {made['isolation']}.")
    console.print(
        f"Next: `freehold route set ALIAS --base MODEL --tenant {made['name']}` and "
        f"`freehold key create NAME --tenant {made['name']}`.",
        soft_wrap=True,
    )


@app.command("list")
def list_tenants(as_json: Json = False) -> None:
    """List all tenants."""
    with errors_in_a_sentence(as_json):
        found = _list(load.home())
    if as_json:
        print_json(found)
        return
    columns = ["name", "isolation", "state", "created", "id"]
    rows = [
        [each["name"], each["isolation"], each["state"], each["created_at"][:19], each["id"]]
        for each in found
    ]
    table(columns, rows, "There are no tenants yet.")


@app.command()
def show(name: Name, as_json: Json = False) -> None:
    """Show a tenant and what it has."""
    with errors_in_a_sentence(as_json):
        found = _show(load.home(), name)
    if as_json:
        print_json(found)
        return
    labelled(
        (
            ("name", found["name"]),
            ("id", found["id"]),
            ("isolation", found["isolation"]),
            ("state", found["state"]),
            ("created", found["created_at"][:19]),
            ("disabled", (found["disabled_at"] or "never")[:19]),
            ("content", "kept with audit records" if found["audit_content"] else "not kept"),
            ("feedback", "taken" if found["feedback"] else "not taken"),
            ("on departure", found["on_departure"]),
        )
    )
    _table(found["holdings"])


@app.command("set")
def set_tenant(
    name: Name,
    isolation: Class = None,
    audit_content: Annotated[
        Switch | None,
        typer.Option(help="Keep what is asked and answered, sealed, with audit records."),
    ] = None,
    feedback: Annotated[
        Switch | None,
        typer.Option(help="Let answers be rated, and become data to train on."),
    ] = None,
    on_departure: Annotated[
        OnDeparture | None,
        typer.Option(
            help="When one of its keys that chose nothing is used otherwise than before: notify, "
            "step-down, suspend; default: as the settings say."
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Isolate a tenant otherwise, from now on: what runs ends where it began. Or keep what is
    said with its audit records, or keep it no more; or take what people say of answers; or
    choose what follows when one of its keys is used otherwise than before."""
    body: dict[str, Any] = {}
    if isolation is not None:
        body["isolation"] = isolation.value
    if audit_content is not None:
        body["audit_content"] = audit_content is Switch.ON
    if feedback is not None:
        body["feedback"] = feedback is Switch.ON
    if on_departure is not None:
        body["on_departure"] = on_departure.value
    if not body:
        raise typer.BadParameter(
            "say what to set",
            param_hint="--isolation, --audit-content, --feedback or --on-departure",
        )
    with errors_in_a_sentence(as_json):
        changed = _change(load.home(), name, body)
    if as_json:
        print_json(changed)
        return
    kept = "is kept" if changed["audit_content"] else "is not kept"
    console.print(f"Tenant {changed['name']} is {changed['isolation']}; what it says {kept}.")
    if feedback is not None:
        taken = "is taken" if changed["feedback"] else "is not taken"
        console.print(f"What people say of answers {taken}.")
    if on_departure is not None:
        console.print(f"Keys that are used otherwise than before: {changed['on_departure']}.")


@app.command()
def disable(name: Name, as_json: Json = False) -> None:
    """Refuse a tenant's keys from now on, and cut what is being answered."""
    _able(name, True, as_json)


@app.command()
def enable(name: Name, as_json: Json = False) -> None:
    """Let a disabled tenant in again."""
    _able(name, False, as_json)


@app.command()
def rm(
    name: Name,
    force: Annotated[bool, typer.Option("--force", help="Also what it has.")] = False,
    as_json: Json = False,
) -> None:
    """Remove a tenant that has nothing left; with --force, what it has too, which is
    listed first. What it used stays in the ledger."""
    with errors_in_a_sentence(as_json):
        home = load.home()
        if not as_json:
            _table(_show(home, name)["holdings"])
        removed = _remove(home, name, force)
    if as_json:
        print_json(removed)
    else:
        console.print(f"Removed the tenant {removed['name']}.")


def _able(name: str, disabled: bool, as_json: bool) -> None:
    with errors_in_a_sentence(as_json):
        changed = _change(load.home(), name, {"disabled": disabled})
    if as_json:
        print_json(changed)
    else:
        console.print(f"Tenant {changed['name']} is {changed['state']}.")


def _table(holdings: list[dict[str, str]]) -> None:
    rows = [[each["kind"], each["environment"], each["name"], each["id"]] for each in holdings]
    table(["kind", "environment", "name", "id"], rows, "It has no keys, routes or adapters.")


def _create(home: Home, body: dict[str, Any]) -> dict[str, Any]:
    gateway = reach.running(home)
    if gateway is not None:
        found: dict[str, Any] = gateway.call("POST", _PATH, body)
        return found
    from freehold.serve.admin.tenants import NewTenant, shown_tenant
    from freehold.serve.reading import validated

    with reach.offline(home) as (store, _, _):
        wanted = validated(NewTenant, body)
        made = Tenant(new_id("ten"), wanted.name, wanted.isolation, _now_us())
        store.add_tenant(made.id, made.name, made.created_at_us, made.isolation)
        return shown_tenant(made)


def _list(home: Home) -> list[dict[str, Any]]:
    gateway = reach.running(home)
    if gateway is not None:
        found: list[dict[str, Any]] = gateway.call("GET", _PATH)["data"]
        return found
    from freehold.serve.admin.tenants import shown_tenant

    with reach.offline(home) as (store, _, _):
        return [shown_tenant(each) for each in store.tenants()]


def _show(home: Home, name: str) -> dict[str, Any]:
    gateway = reach.running(home)
    if gateway is not None:
        found: dict[str, Any] = gateway.call("GET", f"{_PATH}/{reach.quoted(name)}")
        return found
    from freehold.serve.admin.tenants import shown_holdings, shown_tenant

    with reach.offline(home) as (store, _, _):
        tenant = chosen_tenant(store, name)
        held = shown_holdings(store.holdings(tenant.id, _now_us()))
        return shown_tenant(tenant) | {"holdings": held}


def _change(home: Home, name: str, body: dict[str, Any]) -> dict[str, Any]:
    gateway = reach.running(home)
    if gateway is not None:
        found: dict[str, Any] = gateway.call("PATCH", f"{_PATH}/{reach.quoted(name)}", body)
        return found
    from freehold.serve.admin.tenants import check_not_default, shown_tenant

    with reach.offline(home) as (store, _, _):
        tenant = chosen_tenant(store, name)
        changed: Tenant | None = tenant
        if "audit_content" in body:
            changed = store.set_audit_content(tenant.id, body["audit_content"])
        if "feedback" in body:
            changed = store.set_feedback(tenant.id, body["feedback"])
        if "on_departure" in body:
            chosen = OnDeparture(body["on_departure"])
            changed = store.choose_for_tenant(tenant.id, chosen)
        if "isolation" in body:
            changed = store.set_isolation(tenant.id, IsolationClass(body["isolation"]))
        if "disabled" in body:
            if body["disabled"]:
                check_not_default(tenant)
            changed = store.disable_tenant(tenant.id, _now_us() if body["disabled"] else None)
        return shown_tenant(changed or tenant)


def _remove(home: Home, name: str, force: bool) -> dict[str, Any]:
    gateway = reach.running(home)
    if gateway is not None:
        found: dict[str, Any] = gateway.call(
            "DELETE", f"{_PATH}/{reach.quoted(name)}", query={"force": force}
        )
        return found
    from freehold.catalog.own_weights import own_cache
    from freehold.serve.admin.tenants import (
        check_empty,
        check_not_default,
        shown_holdings,
        shown_tenant,
    )

    with resources.offline(home, Of(name)) as rest:
        tenant = chosen_tenant(rest.store, name)
        check_not_default(tenant)
        held = rest.store.holdings(tenant.id, _now_us())
        if not force:
            check_empty(tenant, held)
        for each in held:  # routes first: they name the adapters
            if each.kind == "route":
                rest.store.remove_route(tenant.id, Environment(each.environment), each.name)
            elif each.kind == "adapter":
                rest.adapters.remove(tenant.id, Environment(each.environment), each.name)
            elif each.kind == "dataset":
                rest.datasets.remove(tenant.id, Environment(each.environment), each.id)
        rest.store.remove_tenant(tenant.id)
        shutil.rmtree(own_cache(home.cache, tenant.id), ignore_errors=True)
        return shown_tenant(tenant) | {"holdings": shown_holdings(held)}


def _now_us() -> int:
    return time.time_ns() // 1000
