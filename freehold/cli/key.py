"""`freehold key`: make, list and revoke API keys."""

from typing import Annotated, Any

import typer

from freehold.cli import reach
from freehold.cli.output import Json, console, errors_in_a_sentence, plain, print_json, table
from freehold.config import load
from freehold.config.home import Home
from freehold.core.binding import Environment, Scope
from freehold.core.errors import Code, UserError

app = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, help="Make, list and revoke API keys."
)


@app.command()
def create(
    name: Annotated[str, typer.Argument(help="What the key is for; shown in lists.")],
    scope: Annotated[
        list[Scope] | None, typer.Option(help="What it may do; repeat for several.")
    ] = None,
    model: Annotated[
        list[str] | None, typer.Option(help="Only these models; repeat for several.")
    ] = None,
    days: Annotated[int | None, typer.Option(min=1, help="Expires after so many days.")] = None,
    environment: Annotated[Environment, typer.Option(help="Where it is valid.")] = Environment.DEV,
    sha256: Annotated[
        str | None,
        typer.Option(help="Take over a key of another gateway that kept this SHA-256 of it."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Make a key. It is shown once and stored nowhere."""
    body = {
        "name": name,
        "environment": environment.value,
        "scopes": [entry.value for entry in scope or [Scope.INFER]],
        "models": model or None,
        "expires_in_days": days,
        "sha256": sha256,
    }
    with errors_in_a_sentence(as_json):
        created = _create(load.home(), body)
    if as_json:
        print_json(created)
        return
    console.print(f"Key {created['id']} ({plain(name)}) for {created['environment']}.")
    if "key" in created:
        console.print("It is shown this once:")
        console.print(created["key"], soft_wrap=True)
    else:
        console.print("Its owner's key works from now on.")


@app.command("list")
def list_keys(as_json: Json = False) -> None:
    """List the keys of this tenant, never their secrets."""
    with errors_in_a_sentence(as_json):
        keys = _keys(load.home())
    if as_json:
        print_json(keys)
        return
    table(
        ["id", "name", "environment", "scopes", "models", "state", "created", "expires"],
        [
            [
                key["id"],
                key["name"],
                key["environment"],
                ", ".join(key["scopes"]),
                "all" if key["models"] is None else ", ".join(key["models"]),
                key["state"],
                (key["created_at"] or "")[:19],
                (key["expires_at"] or "never")[:19],
            ]
            for key in keys
        ],
        "There are no keys yet: make one with `freehold key create NAME`.",
    )


@app.command()
def revoke(
    key_id: Annotated[str, typer.Argument(help="The id that `freehold key list` shows.")],
    as_json: Json = False,
) -> None:
    """Revoke a key. Effective at once; doing it again changes nothing."""
    with errors_in_a_sentence(as_json):
        revoked = _revoke(load.home(), key_id)
    if as_json:
        print_json(revoked)
    else:
        console.print(f"Key {revoked['id']} ({plain(revoked['name'])}) is revoked.")


def _create(home: Home, body: dict[str, Any]) -> dict[str, Any]:
    from freehold.serve import admin

    gateway = reach.running(home)
    if gateway is not None:
        found: dict[str, Any] = gateway.call("POST", "/admin/v1/keys", body)
        return found
    with reach.offline(home) as (_, keyring, tenant_id):
        wanted = admin.validated(admin.NewKey, body)
        record, key = keyring.mint(admin.key_request(wanted, tenant_id, keyring.clock))
        shown = admin.shown_key(record)
        return shown | ({"key": key.reveal()} if key else {})


def _keys(home: Home) -> list[dict[str, Any]]:
    from freehold.serve import admin

    gateway = reach.running(home)
    if gateway is not None:
        found: list[dict[str, Any]] = gateway.call("GET", "/admin/v1/keys")["data"]
        return found
    with reach.offline(home) as (store, _, tenant_id):
        return [admin.shown_key(record) for record in store.keys(tenant_id)]


def _revoke(home: Home, key_id: str) -> dict[str, Any]:
    from freehold.serve import admin

    gateway = reach.running(home)
    if gateway is not None:
        found: dict[str, Any] = gateway.call("DELETE", f"/admin/v1/keys/{key_id}")
        return found
    with reach.offline(home) as (_, keyring, tenant_id):
        record = keyring.revoke(tenant_id, key_id)
        if record is None:
            raise UserError(Code.NOT_FOUND, "There is no such key: see `freehold key list`.")
        return admin.shown_key(record)
