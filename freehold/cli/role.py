"""`freehold role`: what groups of identity providers may in a tenant's environment."""

from typing import Annotated, Any

import typer

from freehold.cli.options.owner import EnvironmentOption, Of, TenantOption
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
from freehold.core.binding import Role

app = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, help="What groups of identity providers may."
)
_PATH = "/admin/v1/roles"

RoleName = Annotated[Role, typer.Argument(help="A scope by its name in policies.")]
Group = Annotated[str, typer.Argument(help="As the provider's tokens name it.")]
Provider = Annotated[
    str | None, typer.Option(help="Its name or issuer; not needed where there is one.")
]


@app.command(name="list")
def list_(
    tenant: TenantOption = None, environment: EnvironmentOption = None, as_json: Json = False
) -> None:
    """The roles that were granted here; those of the settings stand there."""
    with errors_in_a_sentence(as_json):
        found = _list(load.home(), Of(tenant, environment))
    if as_json:
        print_json(found)
        return
    rows = [
        [
            each["group"],
            each["role"],
            each["environment"],
            each["provider"],
            (each["granted_at"] or "")[:16],
            each["granted_by"],
        ]
        for each in found
    ]
    table(
        ["group", "role", "environment", "provider", "granted", "by"],
        rows,
        "No roles were granted here: the groups have what the settings give them.",
    )


@app.command()
def grant(
    role: RoleName,
    group: Group,
    provider: Provider = None,
    tenant: TenantOption = None,
    environment: EnvironmentOption = None,
    as_json: Json = False,
) -> None:
    """Give a group a role, of those that you have yourself; it holds at once."""
    with errors_in_a_sentence(as_json):
        given = _grant(load.home(), Of(tenant, environment), _body(role, group, provider))
    if as_json:
        print_json(given)
    else:
        console.print(
            f"The group {plain(given['group'])} is {given['role']} in {given['environment']}."
        )


@app.command()
def revoke(
    role: RoleName,
    group: Group,
    provider: Provider = None,
    tenant: TenantOption = None,
    environment: EnvironmentOption = None,
    as_json: Json = False,
) -> None:
    """Take a role from a group; what it let in and is still being answered is cut."""
    with errors_in_a_sentence(as_json):
        taken = _revoke(load.home(), Of(tenant, environment), _body(role, group, provider))
    if as_json:
        print_json(taken)
    else:
        console.print(
            f"The group {plain(taken['group'])} is no {taken['role']} in "
            f"{taken['environment']} any more."
        )


def _body(role: Role, group: str, provider: str | None) -> dict[str, str]:
    named = {} if provider is None else {"provider": provider}
    return {"role": role.value, "group": group, **named}


def _list(home: Home, of: Of) -> list[dict[str, Any]]:
    gateway = reach.running(home)
    if gateway is not None:
        found: list[dict[str, Any]] = gateway.call("GET", _PATH, query=of.named())["data"]
        return found
    from freehold.serve.admin.roles import shown_grant

    with reach.offline(home) as (store, _, _):
        return [shown_grant(each) for each in store.role_grants(*of.resting(store))]


def _grant(home: Home, of: Of, body: dict[str, str]) -> dict[str, Any]:
    gateway = reach.running(home)
    if gateway is not None:
        found: dict[str, Any] = gateway.call("POST", _PATH, {**body, **of.named()})
        return found
    from freehold.serve.admin.roles import RoleOfGroup, shown_grant
    from freehold.serve.reading import validated

    asked = validated(RoleOfGroup, body)
    issuer = _issuer(home, asked.provider)
    with reach.offline(home) as (store, keyring, _):
        new = asked.grant(issuer, of.resting(store), keyring.clock.wall_us(), "local")
        store.grant_role(new)
        return shown_grant(new)


def _revoke(home: Home, of: Of, body: dict[str, str]) -> dict[str, Any]:
    gateway = reach.running(home)
    if gateway is not None:
        query = {**body, **of.named()}
        found: dict[str, Any] = gateway.call("DELETE", _PATH, query=query)
        return found
    from freehold.serve.admin.roles import RoleOfGroup, no_grant, shown_grant
    from freehold.serve.reading import validated

    asked = validated(RoleOfGroup, body)
    issuer = _issuer(home, asked.provider)
    with reach.offline(home) as (store, _, _):
        old = asked.grant(issuer, of.resting(store))
        if not store.revoke_role(old):
            raise no_grant(old)
        return shown_grant(old)


def _issuer(home: Home, name: str | None) -> str:
    """As the settings of this home have it."""
    from freehold.serve.admin.roles import chosen_issuer

    return chosen_issuer(load.settings(home.settings).identity_providers, name)
