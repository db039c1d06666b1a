"""`freehold key`: make, list, change, rotate, confirm and revoke API keys."""

from typing import Annotated, Any

import typer

from freehold.cli.options import span
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
from freehold.core.binding import Scope
from freehold.core.departure import OnDeparture

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Make, list, change, rotate, confirm and revoke API keys.",
)
_PATH = "/admin/v1/keys"


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
    network: Annotated[
        list[str] | None,
        typer.Option(help="Only from these networks (10.0.0.0/8); repeat for several."),
    ] = None,
    certificate: Annotated[
        list[str] | None,
        typer.Option(
            help="Only from clients whose certificate has this name (spiffe://acme/web, a DNS "
            "name, or a whole subject); repeat for several."
        ),
    ] = None,
    tenant: TenantOption = None,
    environment: EnvironmentOption = None,
    sha256: Annotated[
        str | None,
        typer.Option(help="Take over a key of another gateway that kept this SHA-256 of it."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Make a key. It is shown once and stored nowhere."""
    body = {
        "name": name,
        "scopes": [entry.value for entry in scope or [Scope.INFER]],
        "models": model or None,
        "networks": network or None,
        "certificates": certificate or None,
        "expires_in_days": days,
        "sha256": sha256,
    }
    with errors_in_a_sentence(as_json):
        created = _create(load.home(), Of(tenant, environment), body)
    if as_json:
        print_json(created)
        return
    console.print(f"Key {created['id']} ({plain(name)}) for {created['environment']}.")
    _tell(created, "Its owner's key works from now on.")


@app.command("list")
def list_keys(
    tenant: TenantOption = None, environment: EnvironmentOption = None, as_json: Json = False
) -> None:
    """List the keys of a tenant's environment, never their secrets."""
    with errors_in_a_sentence(as_json):
        keys = _keys(load.home(), Of(tenant, environment))
    if as_json:
        print_json(keys)
        return
    table(
        [
            "id",
            "name",
            "environment",
            "scopes",
            "models",
            "networks",
            "certificates",
            "state",
            "created",
            "expires",
            "replaced by",
        ],
        [
            [
                key["id"],
                key["name"],
                key["environment"],
                ", ".join(key["scopes"]),
                "all" if key["models"] is None else ", ".join(key["models"]),
                "all" if key["networks"] is None else ", ".join(key["networks"]),
                "all" if key["certificates"] is None else ", ".join(key["certificates"]),
                key["state"],
                (key["created_at"] or "")[:19],
                (key["expires_at"] or "never")[:19],
                key["replaced_by"],
            ]
            for key in keys
        ],
        "There are no keys yet: make one with `freehold key create NAME`.",
    )


@app.command("set")
def set_key(
    key_id: Annotated[str, typer.Argument(help="The id that `freehold key list` shows.")],
    on_departure: Annotated[
        OnDeparture,
        typer.Option(
            help="When it is used otherwise than before: notify tells of it, step-down leaves it "
            "models at batch priority, suspend refuses it, both until `freehold key confirm`; "
            "default: as its tenant has it."
        ),
    ],
    tenant: TenantOption = None,
    environment: EnvironmentOption = None,
    as_json: Json = False,
) -> None:
    """Choose what follows when a key is used otherwise than before, from the next time on."""
    body = {"on_departure": on_departure.value}
    with errors_in_a_sentence(as_json):
        changed = _change(load.home(), Of(tenant, environment), key_id, body)
    if as_json:
        print_json(changed)
    else:
        console.print(
            f"Key {changed['id']} ({plain(changed['name'])}), used otherwise than before: "
            f"{changed['on_departure']}.",
            soft_wrap=True,
        )


@app.command()
def rotate(
    key_id: Annotated[str, typer.Argument(help="The id that `freehold key list` shows.")],
    grace: Annotated[
        str, typer.Option(help="How long the old key goes on, such as 30m, 24h or 7d.")
    ] = "24h",
    token: Annotated[
        str | None,
        typer.Option(help="A name for this rotation: with another one it is somebody else's."),
    ] = None,
    tenant: TenantOption = None,
    environment: EnvironmentOption = None,
    as_json: Json = False,
) -> None:
    """Replace a key. Called again, the same new key is named and none is made; its secret
    is shown once. Lost? Rotate the new key with `--grace 0`."""
    found = span.seconds(grace)
    if found is None:
        raise typer.BadParameter("a number and s, m, h or d", param_hint="--grace")
    body = {"grace_s": found, "token": token}
    with errors_in_a_sentence(as_json):
        new = _rotate(load.home(), Of(tenant, environment), key_id, body)
    if as_json:
        print_json(new)
        return
    console.print(f"Key {plain(key_id)} is replaced by {new['id']} ({plain(new['name'])}).")
    _tell(new, "It was made, and shown, by an earlier call.")


@app.command()
def revoke(
    key_id: Annotated[str, typer.Argument(help="The id that `freehold key list` shows.")],
    tenant: TenantOption = None,
    environment: EnvironmentOption = None,
    as_json: Json = False,
) -> None:
    """Revoke a key. Effective at once, also for what it asked for and is still being
    answered; doing it again changes nothing."""
    with errors_in_a_sentence(as_json):
        revoked = _revoke(load.home(), Of(tenant, environment), key_id)
    if as_json:
        print_json(revoked)
    else:
        console.print(f"Key {revoked['id']} ({plain(revoked['name'])}) is revoked.")


@app.command()
def confirm(
    key_id: Annotated[str, typer.Argument(help="The id that `freehold key list` shows.")],
    tenant: TenantOption = None,
    environment: EnvironmentOption = None,
    as_json: Json = False,
) -> None:
    """Say that the use of a key is in order, after an event that it was used otherwise. A key
    that was suspended or stepped down for it may again what it might."""
    with errors_in_a_sentence(as_json):
        gateway = reach.require_running(load.home())
        path = f"{_PATH}/{reach.quoted(key_id)}/confirm"
        found = gateway.call("POST", path, query=Of(tenant, environment).named())
    if as_json:
        print_json(found)
    else:
        console.print(
            f"How {found['id']} ({plain(found['name'])}) is used now is usual from here on."
        )


def _tell(shown: dict[str, Any], otherwise: str) -> None:
    if "key" in shown:
        console.print("It is shown this once:")
        console.print(shown["key"], soft_wrap=True)
    else:
        console.print(otherwise)


def _create(home: Home, of: Of, body: dict[str, Any]) -> dict[str, Any]:
    gateway = reach.running(home)
    if gateway is not None:
        found: dict[str, Any] = gateway.call("POST", _PATH, body | of.named())
        return found
    from freehold.serve.admin.keys import NewKey, key_request, shown_key
    from freehold.serve.reading import validated

    with reach.offline(home) as (store, keyring, _):
        wanted = validated(NewKey, body)
        request = key_request(wanted, of.resting(store), keyring.clock)
        return shown_key(*keyring.mint(request))


def _keys(home: Home, of: Of) -> list[dict[str, Any]]:
    gateway = reach.running(home)
    if gateway is not None:
        found: list[dict[str, Any]] = gateway.call("GET", _PATH, query=of.named())["data"]
        return found
    from freehold.serve.admin.keys import shown_key

    with reach.offline(home) as (store, _, _):
        tenant_id, environment = of.resting(store)
        return [shown_key(each) for each in store.keys(tenant_id, environment=environment)]


def _change(home: Home, of: Of, key_id: str, body: dict[str, Any]) -> dict[str, Any]:
    gateway = reach.running(home)
    if gateway is not None:
        path = f"{_PATH}/{reach.quoted(key_id)}"
        found: dict[str, Any] = gateway.call("PATCH", path, body | of.named())
        return found
    from freehold.secure.rotation import no_key
    from freehold.serve.admin.keys import shown_key

    with reach.offline(home) as (store, _, _):
        chosen = OnDeparture(body["on_departure"])
        record = store.choose_for_key(*of.resting(store), key_id, chosen)
        if record is None:
            raise no_key()
        return shown_key(record)


def _rotate(home: Home, of: Of, key_id: str, body: dict[str, Any]) -> dict[str, Any]:
    gateway = reach.running(home)
    if gateway is not None:
        path = f"{_PATH}/{reach.quoted(key_id)}/rotate"
        found: dict[str, Any] = gateway.call("POST", path, body | of.named())
        return found
    from freehold.secure.rotation import rotate
    from freehold.serve.admin.keys import KeyRotation, shown_key
    from freehold.serve.reading import validated

    with reach.offline(home) as (store, keyring, _):
        asked = validated(KeyRotation, body).of(of.resting(store), key_id)
        return shown_key(*rotate(keyring, asked, None))


def _revoke(home: Home, of: Of, key_id: str) -> dict[str, Any]:
    gateway = reach.running(home)
    if gateway is not None:
        path = f"{_PATH}/{reach.quoted(key_id)}"
        found: dict[str, Any] = gateway.call("DELETE", path, query=of.named())
        return found
    from freehold.secure.rotation import no_key
    from freehold.serve.admin.keys import shown_key

    with reach.offline(home) as (store, keyring, _):
        tenant_id, environment = of.resting(store)
        record = keyring.revoke(tenant_id, key_id, environment=environment)
        if record is None:
            raise no_key()
        return shown_key(record)
