"""`freehold route`: where aliases lead."""

from typing import Annotated, Any

import typer

from freehold.cli.options.owner import EnvironmentOption, Of, TenantOption
from freehold.cli.reaching import reach
from freehold.cli.reaching.resources import every_page, offline, one
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

app = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, help="Say where aliases lead: base and adapter."
)
_PATH = "/admin/v1/routes"


@app.command("set")
def set_route(
    alias: Annotated[str, typer.Argument(help="What clients will call the model.")],
    base: Annotated[str, typer.Option(help="A stored model's name or digest.")],
    adapter: Annotated[str | None, typer.Option(help="An adapter's name or digest.")] = None,
    force: Annotated[
        str | None, typer.Option(help="In staging and prod: why, without a gate that it passed.")
    ] = None,
    accept_licence: Annotated[
        str | None, typer.Option(help="There: why a licence that needs a reason allows this use.")
    ] = None,
    tenant: TenantOption = None,
    environment: EnvironmentOption = None,
    as_json: Json = False,
) -> None:
    """Let an alias lead to a base or an adapter of it. Requests that run finish as they
    began; an alias that is the name of a served model hides it until `route rm`."""
    body = {
        "alias": alias,
        "base": base,
        "adapter": adapter,
        "force": force,
        "accept_licence": accept_licence,
    }
    with errors_in_a_sentence(as_json):
        found = _set(load.home(), Of(tenant, environment), body)
    _print(found, as_json)


@app.command("list")
def list_routes(
    tenant: TenantOption = None, environment: EnvironmentOption = None, as_json: Json = False
) -> None:
    """List where the aliases of an environment lead."""
    with errors_in_a_sentence(as_json):
        found = _list(load.home(), Of(tenant, environment))
    if as_json:
        print_json(found)
        return
    table(
        ["alias", "base", "adapter", "engine", "set by", "since"],
        [
            [
                each["alias"],
                _base(each),
                each["adapter"] or (each["adapter_digest"] or "")[:19],
                each["engine"],
                "freehold up" if each["managed"] else "route set",
                each["created_at"][:19],
            ]
            for each in found
        ],
        "No alias leads anywhere there: `freehold route set ALIAS --base MODEL`.",
    )


@app.command()
def show(
    alias: Annotated[str, typer.Argument(help="What clients call the model.")],
    tenant: TenantOption = None,
    environment: EnvironmentOption = None,
    as_json: Json = False,
) -> None:
    """Show where an alias leads."""
    with errors_in_a_sentence(as_json):
        found = _show(load.home(), Of(tenant, environment), alias)
    _print(found, as_json)


@app.command()
def rm(
    alias: Annotated[str, typer.Argument(help="What clients call the model.")],
    tenant: TenantOption = None,
    environment: EnvironmentOption = None,
    as_json: Json = False,
) -> None:
    """Remove a route that was set. A served model of that name shows again."""
    with errors_in_a_sentence(as_json):
        removed = _remove(load.home(), Of(tenant, environment), alias)
    if as_json:
        print_json({"removed": removed["alias"]})
    else:
        console.print(f"Removed the route {plain(removed['alias'])}.")


def _set(home: Home, of: Of, body: dict[str, Any]) -> dict[str, Any]:
    gateway = reach.running(home)
    if gateway is not None:
        given = {name: value for name, value in body.items() if value is not None}
        found: dict[str, Any] = gateway.call("POST", _PATH, given | of.named())
        return found
    from freehold.serve.reading import validated
    from freehold.serve.routes import NewRoute

    with offline(home, of) as rest:
        return rest.shown_route(rest.set_route(validated(NewRoute, body)))


def _list(home: Home, of: Of) -> list[dict[str, Any]]:
    gateway = reach.running(home)
    if gateway is not None:
        return every_page(gateway, _PATH, of, "alias")
    with offline(home, of) as rest:
        return [rest.shown_route(each) for each in rest.routes().values()]


def _show(home: Home, of: Of, alias: str) -> dict[str, Any]:
    gateway = reach.running(home)
    if gateway is not None:
        return one(gateway, "GET", _PATH, alias, of)
    from freehold.serve.routes import no_route

    with offline(home, of) as rest:
        found = rest.routes().get(alias)
        if found is None:
            raise no_route(alias)
        return rest.shown_route(found)


def _remove(home: Home, of: Of, alias: str) -> dict[str, Any]:
    gateway = reach.running(home)
    if gateway is not None:
        return one(gateway, "DELETE", _PATH, alias, of)
    from freehold.serve.routes import not_removed

    with offline(home, of) as rest:
        removed = rest.store.remove_route(*rest.owner, alias)
        if removed is None:
            raise not_removed(alias, rest.routes().get(alias))
        return rest.shown_route(removed)


def _base(route: dict[str, Any]) -> str:
    return str(route["base"] or (route["base_digest"] or "")[:19])


def _print(route: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(route)
        return
    under = ""
    if route["adapter_digest"]:
        under = f" under {plain(route['adapter'] or '')} ({route['adapter_digest']})"
    console.print(
        f"{plain(route['alias'])} in {route['environment']} leads to {plain(_base(route))}{under}.",
        soft_wrap=True,
    )
