"""`freehold limit`: budgets, and what a minute may take."""

from typing import Annotated, Any

import typer

from freehold.cli.options.owner import EnvironmentOption, Of, TenantOption
from freehold.cli.reaching import reach
from freehold.cli.terminal.output import (
    Json,
    console,
    errors_in_a_sentence,
    money,
    print_json,
    table,
)
from freehold.config import load
from freehold.config.home import Home
from freehold.core.limit import Measure, Period

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Budgets in money or tokens, requests a minute, requests at once.",
)
_PATH = "/admin/v1/limits"
_PERIODS = {
    "minute": "a minute", "day": "a day", "month": "a month", "total": "in total",
    "at_once": "at once",
}  # fmt: skip


@app.command("set")
def set_limit(
    measure: Annotated[Measure, typer.Argument(help="What is limited.")],
    amount: Annotated[str, typer.Argument(help="How much; money in the settings' currency.")],
    per: Annotated[Period | None, typer.Option(help="Left out only for concurrency.")] = None,
    key: Annotated[
        str | None, typer.Option(help="Only this key, by id, and its successors.")
    ] = None,
    person: Annotated[str | None, typer.Option(help="Only this person, by id.")] = None,
    tenant: TenantOption = None,
    environment: EnvironmentOption = None,
    all_environments: Annotated[
        bool, typer.Option("--all-environments", help="All of the tenant's together.")
    ] = False,
    own: Annotated[
        bool, typer.Option("--own", help="One that the tenant's own admins may change.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Set a limit, in place of the one for the same. It holds at once, and counts what was
    used before in its window."""
    body: dict[str, Any] = {
        "measure": measure.value,
        "period": (per or Period.AT_ONCE).value,
        "amount": amount,
        "key": key,
        "person": person,
        "all_environments": all_environments,
        "own": own,
    }
    with errors_in_a_sentence(as_json):
        found = _set(load.home(), Of(tenant, environment), body)
    if as_json:
        print_json(found)
    else:
        console.print(
            f"{_what(found)} {_PERIODS[found['period']]} for {_whose(found)}: limit {found['id']}."
        )


@app.command("list")
def list_limits(
    tenant: TenantOption = None, environment: EnvironmentOption = None, as_json: Json = False
) -> None:
    """List the limits of a tenant's environment, and how much of each is used."""
    with errors_in_a_sentence(as_json):
        found = _list(load.home(), Of(tenant, environment))
    if as_json:
        print_json(found)
        return
    table(
        ["id", "for", "limit", "per", "used", "held", "frees", "set by"],
        [
            [
                each["id"],
                _whose(each),
                _what(each),
                each["period"].replace("_", " "),
                _shown(each, each["used"]),
                _shown(each, each["held"]),
                (each["frees_at"] or "")[:19],
                f"{each['set_by']}{' (own)' if each['own'] else ''}",
            ]
            for each in found
        ],
        "No limits: `freehold limit set money 100 --per month` makes one.",
    )


@app.command()
def rm(
    limit_id: Annotated[str, typer.Argument(help="The id that `freehold limit list` shows.")],
    tenant: TenantOption = None,
    environment: EnvironmentOption = None,
    as_json: Json = False,
) -> None:
    """Remove a limit."""
    with errors_in_a_sentence(as_json):
        removed = _remove(load.home(), Of(tenant, environment), limit_id)
    if as_json:
        print_json(removed)
    else:
        console.print(f"Removed the limit {removed['id']}.")


def _set(home: Home, of: Of, body: dict[str, Any]) -> dict[str, Any]:
    gateway = reach.running(home)
    if gateway is not None:
        found: dict[str, Any] = gateway.call("POST", _PATH, body | of.named())
        return found
    from freehold.secure.quota import Standing
    from freehold.serve.admin.limits import NewLimit, limit_of, shown_limit
    from freehold.serve.reading import validated

    with reach.offline(home) as (store, keyring, _):
        limit = limit_of(
            store,
            validated(NewLimit, body | of.named()),
            of.resting(store),
            is_own=bool(body["own"]),
            set_by="local",
            at_us=keyring.clock.wall_us(),
        )
        limit = store.set_limit(limit.tenant_id, limit)
        return shown_limit(Standing(limit, 0, 0, None), _currency(home))


def _list(home: Home, of: Of) -> list[dict[str, Any]]:
    gateway = reach.running(home)
    if gateway is not None:
        found: list[dict[str, Any]] = gateway.call("GET", _PATH, query=of.named())["data"]
        return found
    from freehold.secure.quota import resting
    from freehold.serve.admin.limits import shown_limit

    with reach.offline(home) as (store, keyring, _):
        tenant_id, environment = of.resting(store)
        now_us = keyring.clock.wall_us()
        return [
            shown_limit(resting(each, store.spent, now_us), _currency(home))
            for each in store.limits(tenant_id)
            if each.environment in (None, environment)
        ]


def _remove(home: Home, of: Of, limit_id: str) -> dict[str, Any]:
    gateway = reach.running(home)
    if gateway is not None:
        path = f"{_PATH}/{reach.quoted(limit_id)}"
        found: dict[str, Any] = gateway.call("DELETE", path, query=of.named())
        return found
    from freehold.serve.admin.limits import no_limit

    with reach.offline(home) as (store, _, _):
        if store.remove_limit(*of.resting(store), limit_id) is None:
            raise no_limit(limit_id)
        return {"id": limit_id, "removed": True}


def _currency(home: Home) -> str:
    return load.settings(home.settings).currency


def _whose(limit: dict[str, Any]) -> str:
    where = limit["environment"] or "all environments"
    return f"{limit['subject']} in {where}" if limit["subject"] else where


def _what(limit: dict[str, Any]) -> str:
    unit = limit["unit"].removeprefix("micro-")
    if limit["measure"] == Measure.CONCURRENCY.value:
        unit = "requests"
    return f"{_shown(limit, limit['amount'])} {unit}"


def _shown(limit: dict[str, Any], amount: int) -> str:
    return money(amount) if limit["measure"] == Measure.MONEY.value else f"{amount:,}"
