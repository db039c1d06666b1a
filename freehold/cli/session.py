"""`freehold session`: who is logged in, and its end."""

from typing import Annotated, Any

import typer

from freehold.cli.options.owner import TenantOption, chosen_tenant
from freehold.cli.reaching import reach
from freehold.cli.terminal.output import Json, console, errors_in_a_sentence, print_json, table
from freehold.config import load
from freehold.config.home import Home

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Who is logged in.")
_PATH = "/admin/v1/sessions"

Person = Annotated[str | None, typer.Option("--person", help="Only theirs: per_… of the list.")]


@app.command(name="list")
def list_(tenant: TenantOption = None, person: Person = None, as_json: Json = False) -> None:
    """The sessions of a tenant's people that have not ended."""
    with errors_in_a_sentence(as_json):
        found = _list(load.home(), _named(tenant=tenant, person=person))
    if as_json:
        print_json(found)
        return
    table(
        ["id", "who", "person", "of", "provider", "groups", "since", "last used", "ends by"],
        [
            [
                each["id"],
                each["name"],
                each["person"],
                each["kind"],
                each["provider"],
                ", ".join(each["groups"]),
                *(each[when][:16] for when in ("created_at", "last_used_at", "expires_at")),
            ]
            for each in found
        ],
        "Nobody is logged in.",
    )


@app.command()
def revoke(
    session: Annotated[
        str | None, typer.Argument(help="The id that `freehold session list` shows.")
    ] = None,
    person: Annotated[
        str | None,
        typer.Option("--person", help="All of this person's, and the tokens that they have."),
    ] = None,
    everybody: Annotated[
        bool, typer.Option("--all", help="All of the tenant's, and the tokens of its people.")
    ] = False,
    tenant: TenantOption = None,
    as_json: Json = False,
) -> None:
    """End sessions at once, also what they asked for and is still being answered. With
    --person or --all, a provider's tokens from before now are refused too."""
    if [session is not None, person is not None, everybody].count(True) != 1:
        raise typer.BadParameter("name one of a session, --person and --all")
    of = _named(tenant=tenant)
    with errors_in_a_sentence(as_json):
        if session is not None:
            ended = _revoke(load.home(), session, of)
        else:
            ended = _cut_off(load.home(), person, of)
    if as_json:
        print_json(ended)
    elif session is not None:
        console.print(f"The session {ended['id']} has ended.")
    else:
        console.print(
            f"Ended {ended['sessions_ended']} sessions; tokens from before now are refused."
        )


def _named(**given: str | None) -> dict[str, str]:
    return {name: value for name, value in given.items() if value is not None}


def _list(home: Home, of: dict[str, str]) -> list[dict[str, Any]]:
    gateway = reach.running(home)
    if gateway is not None:
        found: list[dict[str, Any]] = gateway.call("GET", _PATH, query=of)["data"]
        return found
    from freehold.serve.admin.sessions import shown_session

    with reach.offline(home) as (store, keyring, _):
        tenant = chosen_tenant(store, of.get("tenant"))
        now_us = keyring.clock.wall_us()
        return [shown_session(each) for each in store.sessions(tenant.id, now_us, of.get("person"))]


def _revoke(home: Home, session: str, of: dict[str, str]) -> dict[str, Any]:
    gateway = reach.running(home)
    if gateway is not None:
        path = f"{_PATH}/{reach.quoted(session)}"
        found: dict[str, Any] = gateway.call("DELETE", path, query=of)
        return found
    from freehold.serve.admin.sessions import no_session, shown_session

    with reach.offline(home) as (store, keyring, _):
        tenant = chosen_tenant(store, of.get("tenant"))
        ended = store.end_session(tenant.id, session, keyring.clock.wall_us(), "local")
        if ended is None:
            raise no_session(session)
        return shown_session(ended)


def _cut_off(home: Home, person: str | None, of: dict[str, str]) -> dict[str, Any]:
    gateway = reach.running(home)
    asked = {"all": True} if person is None else {"person": person}
    if gateway is not None:
        found: dict[str, Any] = gateway.call("DELETE", _PATH, query={**asked, **of})
        return found
    from freehold.serve.admin.sessions import CutOffQuery
    from freehold.serve.reading import validated

    validated(CutOffQuery, asked)
    with reach.offline(home) as (store, keyring, _):
        tenant = chosen_tenant(store, of.get("tenant"))
        ended = store.cut_off(tenant.id, person, keyring.clock.wall_us(), "local")
        return {"person": person, "sessions_ended": ended}
