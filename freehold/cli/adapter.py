"""`freehold adapter`: add, list, show, sign, verify and remove adapters."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from freehold.cli.options import span
from freehold.cli.options.owner import EnvironmentOption, Of, TenantOption
from freehold.cli.reaching import reach
from freehold.cli.reaching.resources import every_page, offline, one
from freehold.cli.terminal import interrupt
from freehold.cli.terminal.output import (
    Json,
    console,
    errors_in_a_sentence,
    in_a_line,
    labelled,
    plain,
    print_json,
    table,
)
from freehold.config import load
from freehold.config.home import Home
from freehold.core.words import size

app = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, help="Add, list, sign, verify and remove adapters."
)
_PATH, _KEYS = "/admin/v1/adapters", "/admin/v1/signing-keys"


@app.command()
def add(
    path: Annotated[Path, typer.Argument(help="The folder that PEFT saved the adapter in.")],
    base: Annotated[str, typer.Option(help="The stored model it was trained on.")],
    name: Annotated[str | None, typer.Option(help="Default: the folder's name.")] = None,
    signature: Annotated[
        Path | None,
        typer.Option(help="Its signature, where that is not model.sig in the folder."),
    ] = None,
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
            folder = _Folder(path.expanduser(), signature and signature.expanduser())
            added = _add(load.home(), Of(tenant, environment), folder, body)
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
    licences = ", ".join(f"{name}: {value}" for name, value in manifest["licences"].items())
    return [
        ("made by", manifest["job"] or "somebody elsewhere"),
        ("dataset", manifest["dataset_digest"] or "unknown"),
        ("tokenizer", manifest["tokenizer_digest"] or "unknown"),
        ("template", manifest["template_digest"] or "unknown"),
        ("recipe", in_a_line(manifest["recipe"]) or "unknown"),
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


@app.command()
def verify(
    adapter: Annotated[str, typer.Argument(help="An adapter's name or digest.")],
    tenant: TenantOption = None,
    environment: EnvironmentOption = None,
    as_json: Json = False,
) -> None:
    """Read an adapter's files again, and check its signatures over them."""
    with errors_in_a_sentence(as_json):
        found = _verify(load.home(), Of(tenant, environment), adapter)
    _show_verified(found, as_json)
    if not found["holds"]:
        raise typer.Exit(1)


@app.command()
def sign(
    adapter: Annotated[str, typer.Argument(help="An adapter's name or digest.")],
    tenant: TenantOption = None,
    environment: EnvironmentOption = None,
    as_json: Json = False,
) -> None:
    """Sign an adapter with the key of this installation: you stand for where it comes from."""
    with errors_in_a_sentence(as_json):
        found = _sign(load.home(), Of(tenant, environment), adapter)
    _show_verified(found, as_json)


def _show_verified(found: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(found)
        return
    for each in found["signatures"]:
        said = f"signed by {plain(each['by'] or 'an unknown key')} on {each['made_at'][:10]}"
        said += f" ({each['key'][:16]})"
        console.print(said if each["holds"] else f"{said}: {plain(each['reason'])}", soft_wrap=True)
    why = found["spoilt"] or found["kept_out"] or "it is not signed"
    says = "holds" if found["holds"] else f"does not hold: {plain(why)}"
    console.print(f"{plain(found['name'])} {says}.", soft_wrap=True)


@app.command()
def keys(as_json: Json = False) -> None:
    """List the keys whose signatures on adapters count; --json has them in PEM."""
    with errors_in_a_sentence(as_json):
        found = _keys(load.home())
    if as_json:
        print_json(found)
        return
    table(
        ["key", "whose", "made", ""],
        [
            [
                each["id"][:16],
                each["by"],
                (each["made_at"] or "")[:10],
                "signs" if each["signs"] else _revocation(each),
            ]
            for each in found
        ],
        "There are none.",
    )


@app.command("rotate-key")
def rotate_key(as_json: Json = False) -> None:
    """Have another key sign from now on; what the ones before signed stays valid."""
    with errors_in_a_sentence(as_json):
        made = _rotate_key(load.home())
    if as_json:
        print_json(made)
    else:
        console.print(f"The key {made['id'][:16]} signs from now on.")


@app.command("revoke-key")
def revoke_key(
    key: Annotated[str, typer.Argument(help="A key's id, as `freehold adapter keys` shows it.")],
    since: Annotated[
        str | None,
        typer.Option(
            help="What was recorded here before stays valid: 2026-01-31T12:00:00Z, or how long "
            "ago, as 24h. Default: nothing does."
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Believe a key of this installation no more, as when it was stolen: what only it signed
    serves no more."""
    at = None if since is None else span.since(since)
    with errors_in_a_sentence(as_json):
        found = _revoke_key(load.home(), key, at)
    if as_json:
        print_json(found)
        return
    console.print(f"The key {found['id'][:16]} is {_revocation(found)}.", soft_wrap=True)
    if not found["kept_out"]:
        console.print("No adapter is kept out by that.")
        return
    names = [
        f"{each['name']} of {each['tenant']} in {each['environment']}" for each in found["adapters"]
    ]
    rest = found["kept_out"] - len(names)
    said = ", ".join(map(plain, names)) + (f" and {rest} more" if rest else "")
    console.print(
        f"Kept out now, and their routes answer 503: {said} ({found['kept_out']} in all). Look at "
        "each, and let it in again with `freehold adapter sign NAME`.",
        soft_wrap=True,
    )


def _revocation(key: dict[str, Any]) -> str:
    if not key["revoked"]:
        return ""
    since = key["invalid_since"]
    return "revoked" if since is None else f"revoked for what was recorded from {since} on"


@dataclass(frozen=True, slots=True)
class _Folder:
    path: Path
    signature: Path | None


def _add(home: Home, of: Of, folder: _Folder, body: dict[str, Any]) -> dict[str, Any]:
    reach.require_here("Adapters are added")
    gateway = reach.running(home)
    if gateway is not None:
        with _staged(home, folder) as ticket:
            found: dict[str, Any] = gateway.call(
                "POST", _PATH, body | of.named() | {"upload": ticket}
            )
            return found
    from freehold.serve.admin.adapters import NewAdapter
    from freehold.serve.reading import validated

    with offline(home, of) as rest, _staged(home, folder) as ticket:
        wanted = validated(NewAdapter, {**body, "upload": ticket})
        return rest.shown(rest.adapters.add(*rest.owner, wanted.wanted()))


@contextmanager
def _staged(home: Home, folder: _Folder) -> Iterator[str]:
    from freehold.catalog import adapters

    ticket = adapters.stage(home.path, folder.path, folder.signature)
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


def _verify(home: Home, of: Of, adapter: str) -> dict[str, Any]:
    gateway = reach.running(home)
    if gateway is not None:
        path, query = f"{_PATH}/{reach.quoted(adapter)}/signatures", of.named()
        found: dict[str, Any] = gateway.call("GET", path, query=query)
        return found
    with offline(home, of) as rest:
        return rest.verified(rest.adapters.get(*rest.owner, adapter))


def _sign(home: Home, of: Of, adapter: str) -> dict[str, Any]:
    gateway = reach.running(home)
    if gateway is not None:
        path, query = f"{_PATH}/{reach.quoted(adapter)}/signatures", of.named()
        found: dict[str, Any] = gateway.call("POST", path, query=query)
        return found
    with offline(home, of) as rest:
        meant = rest.adapters.get(*rest.owner, adapter)
        rest.adapters.sign(meant)
        return rest.verified(meant)


def _keys(home: Home) -> list[dict[str, Any]]:
    gateway = reach.running(home)
    if gateway is not None:
        found: list[dict[str, Any]] = gateway.call("GET", _KEYS)["data"]
        return found
    with offline(home, Of(None, None)) as rest:
        return rest.signing_keys()


def _rotate_key(home: Home) -> dict[str, Any]:
    gateway = reach.running(home)
    if gateway is not None:
        made: dict[str, Any] = gateway.call("POST", _KEYS)
        return made
    with offline(home, Of(None, None)) as rest:
        new = rest.adapters.signatures.rotate()
        return next(each for each in rest.signing_keys() if each["id"] == new.id)


def _revoke_key(home: Home, key: str, since: datetime | None) -> dict[str, Any]:
    body = {} if since is None else {"since": since.isoformat()}
    gateway = reach.running(home)
    if gateway is not None:
        path = f"{_KEYS}/{reach.quoted(key)}/revoke"
        found: dict[str, Any] = gateway.call("POST", path, body)
        return found
    with offline(home, Of(None, None)) as rest:
        return rest.revoke_key(key, since)
