"""`freehold adapter`: add, list, show and remove adapters."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from freehold.cli import interrupt, reach
from freehold.cli.output import (
    Json,
    console,
    errors_in_a_sentence,
    labelled,
    plain,
    print_json,
    size,
    table,
)
from freehold.cli.owner import EnvironmentOption, Of, TenantOption
from freehold.cli.routing import every_page, offline, one
from freehold.config import load
from freehold.config.home import Home

app = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, help="Add, list, show and remove adapters."
)
_PATH = "/admin/v1/adapters"


@app.command()
def add(
    path: Annotated[Path, typer.Argument(help="The folder that PEFT saved the adapter in.")],
    base: Annotated[str, typer.Option(help="The stored model it was trained on.")],
    name: Annotated[str | None, typer.Option(help="Default: the folder's name.")] = None,
    tenant: TenantOption = None,
    environment: EnvironmentOption = None,
    as_json: Json = False,
) -> None:
    """Check an adapter against its base, and keep it by its digest."""
    with errors_in_a_sentence(as_json):
        title = name or path.resolve().name
        body = {
            "base": base,
            "name": title,
            "source": f"file:{path.resolve()}"[:200],
        }
        with interrupt.once():
            added = _add(load.home(), Of(tenant, environment), path.expanduser(), body)
    if as_json:
        print_json(added)
        return
    console.print(
        f"Adapter {plain(added['name'])} of {plain(added['base'] or added['base_digest'])} for "
        f"{added['environment']}: {added['digest']}",
        soft_wrap=True,
    )
    console.print(
        f"Serve it with `freehold route set ALIAS --base {plain(base)} --adapter "
        f"{plain(added['name'])}`.",
        soft_wrap=True,
    )


@app.command("list")
def list_adapters(
    tenant: TenantOption = None, environment: EnvironmentOption = None, as_json: Json = False
) -> None:
    """List the adapters of an environment."""
    with errors_in_a_sentence(as_json):
        found = _list(load.home(), Of(tenant, environment))
    if as_json:
        print_json(found)
        return
    table(
        ["name", "base", "rank", "scaling", "modules", "size", "added", "digest"],
        [
            [
                each["name"],
                each["base"] or each["base_digest"][:19],
                each["rank"],
                each["scaling"],
                ", ".join(name.removesuffix("_proj") for name in each["target_modules"]),
                size(each["size_bytes"]),
                each["added_at"][:19],
                each["digest"][:19],
            ]
            for each in found
        ],
        "There are no adapters there yet: add one with `freehold adapter add`.",
    )


@app.command()
def show(
    adapter: Annotated[str, typer.Argument(help="An adapter's name or digest.")],
    tenant: TenantOption = None,
    environment: EnvironmentOption = None,
    as_json: Json = False,
) -> None:
    """Show all that is known of an adapter."""
    with errors_in_a_sentence(as_json):
        found = _show(load.home(), Of(tenant, environment), adapter)
    if as_json:
        print_json(found)
        return
    labelled(
        (
            ("name", found["name"]),
            ("environment", found["environment"]),
            ("digest", found["digest"]),
            ("base", f"{found['base'] or ''} {found['base_digest']}".strip()),
            ("rank", found["rank"]),
            ("scaling", found["scaling"]),
            ("modules", ", ".join(found["target_modules"])),
            ("size", size(found["size_bytes"])),
            ("source", found["source"]),
            ("added", found["added_at"][:19]),
            *_lineage(found["manifest"]),
        )
    )


def _lineage(manifest: dict[str, Any] | None) -> list[tuple[str, str]]:
    if manifest is None:
        return [("lineage", "unknown")]
    recipe = ", ".join(f"{name} {value}" for name, value in manifest["recipe"].items())
    licences = ", ".join(f"{name}: {value}" for name, value in manifest["licences"].items())
    return [
        ("made by", manifest["job"] or "somebody elsewhere"),
        ("dataset", manifest["dataset_digest"] or "unknown"),
        ("tokenizer", manifest["tokenizer_digest"] or "unknown"),
        ("template", manifest["template_digest"] or "unknown"),
        ("recipe", recipe or "unknown"),
        ("licences", licences or "unknown"),
    ]


@app.command()
def rm(
    adapter: Annotated[str, typer.Argument(help="An adapter's name or digest.")],
    tenant: TenantOption = None,
    environment: EnvironmentOption = None,
    as_json: Json = False,
) -> None:
    """Remove an adapter that no route names, and the files that no other one needs."""
    with errors_in_a_sentence(as_json):
        removed = _remove(load.home(), Of(tenant, environment), adapter)
    if as_json:
        print_json({"removed": removed["name"], "digest": removed["digest"]})
    else:
        console.print(f"Removed {plain(removed['name'])}.")


def _add(home: Home, of: Of, folder: Path, body: dict[str, Any]) -> dict[str, Any]:
    reach.require_here("Adapters are added")
    gateway = reach.running(home)
    if gateway is not None:
        with _staged(home, folder) as ticket:
            found: dict[str, Any] = gateway.call(
                "POST", _PATH, body | of.named() | {"upload": ticket}
            )
            return found
    from freehold.serve.admin import validated
    from freehold.serve.admin_routing import NewAdapter

    with offline(home, of) as rest, _staged(home, folder) as ticket:
        wanted = validated(NewAdapter, {**body, "upload": ticket})
        return rest.shown(rest.adapters.add(*rest.owner, wanted.wanted()))


@contextmanager
def _staged(home: Home, folder: Path) -> Iterator[str]:
    from freehold.catalog import adapters

    ticket = adapters.stage(home.path, folder)
    try:
        yield ticket
    finally:
        adapters.unstage(home.path, ticket)


def _list(home: Home, of: Of) -> list[dict[str, Any]]:
    gateway = reach.running(home)
    if gateway is not None:
        return every_page(gateway, _PATH, of, "name")
    with offline(home, of) as rest:
        return [rest.shown(each) for each in rest.every()]


def _show(home: Home, of: Of, adapter: str) -> dict[str, Any]:
    gateway = reach.running(home)
    if gateway is not None:
        return one(gateway, "GET", _PATH, adapter, of)
    with offline(home, of) as rest:
        return rest.shown(rest.adapters.get(*rest.owner, adapter))


def _remove(home: Home, of: Of, adapter: str) -> dict[str, Any]:
    gateway = reach.running(home)
    if gateway is not None:
        return one(gateway, "DELETE", _PATH, adapter, of)
    with offline(home, of) as rest:
        return rest.shown(rest.adapters.remove(*rest.owner, adapter))
