"""`freehold policy`: who may do what, written in Cedar."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from freehold.cli.explain import explain
from freehold.cli.options.owner import TenantOption, chosen_tenant
from freehold.cli.reaching import reach
from freehold.cli.terminal.output import Json, console, errors_in_a_sentence, print_json, table
from freehold.config import load
from freehold.config.home import Home
from freehold.core.errors import Code, UserError
from freehold.core.policy import Policy

if TYPE_CHECKING:
    from freehold.store.sql import SqlStore

app = typer.Typer(no_args_is_help=True, help="Who may do what, in Cedar.")
app.command()(explain)
_PATH = "/admin/v1/policies"

Installation = Annotated[
    bool, typer.Option("--installation", help="For all tenants, and not one tenant's own.")
]
Name = Annotated[str, typer.Argument(help="As `freehold policy list` shows it.")]
File = Annotated[Path, typer.Argument(help="A file of Cedar; `-` reads standard input.")]


@app.command(name="list")
def list_(
    tenant: TenantOption = None, installation: Installation = False, as_json: Json = False
) -> None:
    """The policies that people wrote; `freehold policy schema --default` shows the others."""
    with errors_in_a_sentence(as_json):
        found = _list(load.home(), _of(tenant, installation))
    if as_json:
        print_json(found)
        return
    rows = [[each["name"], each["set_at"], each["set_by"]] for each in found]
    table(["name", "set at", "set by"], rows, "No policies: the default ones hold.")


@app.command()
def show(
    name: Name,
    tenant: TenantOption = None,
    installation: Installation = False,
    as_json: Json = False,
) -> None:
    """One policy's text."""
    with errors_in_a_sentence(as_json):
        found = _one(_list(load.home(), _of(tenant, installation)), name)
    if as_json:
        print_json(found)
    else:
        typer.echo(found["text"], nl=not found["text"].endswith("\n"))


@app.command(name="set")
def set_(
    name: Name,
    file: File,
    tenant: TenantOption = None,
    installation: Installation = False,
    as_json: Json = False,
) -> None:
    """Write a policy, in place of the one of the same name; it holds at once."""
    with errors_in_a_sentence(as_json):
        written = _put(load.home(), name, _text_of(file), _of(tenant, installation))
    if as_json:
        print_json(written)
    else:
        console.print(f"The policy {written['name']} holds from now on.")


@app.command()
def rm(
    name: Name,
    tenant: TenantOption = None,
    installation: Installation = False,
    as_json: Json = False,
) -> None:
    """Remove a policy: what it forbade or permitted is decided by the others."""
    with errors_in_a_sentence(as_json):
        removed = _remove(load.home(), name, _of(tenant, installation))
    if as_json:
        print_json(removed)
    else:
        console.print(f"Removed the policy {removed['name']}.")


@app.command()
def schema(
    default: Annotated[
        bool, typer.Option("--default", help="The policies that come with Freehold.")
    ] = False,
    as_json: Json = False,
) -> None:
    """What policies can speak of, as a Cedar schema."""
    from freehold.secure.policy import default_text, schema_text

    text = default_text() if default else schema_text()
    if as_json:
        print_json({"text": text})
    else:
        typer.echo(text, nl=False)


@app.command()
def check(file: File, as_json: Json = False) -> None:
    """Say whether a policy would be accepted, without writing it."""
    from freehold.secure import policy

    with errors_in_a_sentence(as_json):
        policy.check(Policy(file.stem or "-", _text_of(file)))
    if as_json:
        print_json({"valid": True})
    else:
        console.print("The policy is valid.")


@app.command(name="test")
def try_(
    cases: Annotated[Path, typer.Argument(help="A YAML list of cases; see docs/policies.md.")],
    with_: Annotated[
        list[Path] | None, typer.Option("--with", help="Policies to try, besides the default.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Try policies on questions whose answers you expect; fails when one is another."""
    from freehold.secure.policy import Policies
    from freehold.secure.policy_cases import cases_in, tried

    with errors_in_a_sentence(as_json):
        own = [Policy(file.stem, _text_of(file)) for file in with_ or ()]
        found = tried(Policies(own), cases_in(_yaml_in(cases)))
    wrong = [each for each in found if not each.is_right]
    if as_json:
        print_json(
            [
                {
                    "name": each.case.name,
                    "right": each.is_right,
                    "allowed": each.decision.is_allowed,
                    "because": list(each.decision.because),
                }
                for each in found
            ]
        )
    else:
        rows = [
            [
                str(number),
                each.case.name,
                each.case.expect,
                "allow" if each.decision.is_allowed else "deny",
                ", ".join(each.decision.because) or "no policy permits it",
                "" if each.is_right else "wrong",
            ]
            for number, each in enumerate(found, 1)
        ]
        table(["case", "name", "expected", "decided", "because", ""], rows, "No cases.")
        console.print(f"{len(found) - len(wrong)} of {len(found)} are as expected.")
    if wrong:
        raise typer.Exit(1)


def _of(tenant: str | None, installation: bool) -> dict[str, Any]:
    if tenant is not None and installation:
        raise typer.BadParameter("choose one of --tenant and --installation")
    if installation:
        return {"installation": True}
    return {} if tenant is None else {"tenant": tenant}


def _text_of(file: Path) -> str:
    try:
        return sys.stdin.read() if str(file) == "-" else file.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            Code.FILE_INVALID, f"{file} cannot be read as text ({error}): name another file."
        ) from None


def _yaml_in(file: Path) -> object:
    import yaml

    try:
        return yaml.safe_load(_text_of(file))
    except yaml.YAMLError as error:
        where = str(error).splitlines()[0]
        raise UserError(
            Code.FILE_INVALID, f"{file} is not valid YAML ({where}): correct it."
        ) from None


def _one(found: list[dict[str, Any]], name: str) -> dict[str, Any]:
    for each in found:
        if each["name"] == name:
            return each
    from freehold.serve.admin.policies import no_policy

    raise no_policy(name)


def _list(home: Home, of: dict[str, Any]) -> list[dict[str, Any]]:
    gateway = reach.running(home)
    if gateway is not None:
        found: list[dict[str, Any]] = gateway.call("GET", _PATH, query=of)["data"]
        return found
    from freehold.serve.admin.policies import shown_policy

    with reach.offline(home) as (store, _, _):
        return [shown_policy(each) for each in store.policies(_owner(store, of))]


def _put(home: Home, name: str, text: str, of: dict[str, Any]) -> dict[str, Any]:
    gateway = reach.running(home)
    body = {"name": name, "text": text, **of}
    if gateway is not None:
        found: dict[str, Any] = gateway.call("POST", _PATH, body)
        return found
    from freehold.secure import policy
    from freehold.serve.admin.policies import NewPolicy, shown_policy
    from freehold.serve.reading import validated

    with reach.offline(home) as (store, keyring, _):
        wanted = validated(NewPolicy, body)
        at_us = keyring.clock.wall_us()
        written = Policy(wanted.name, wanted.text, _owner(store, of), at_us, "local")
        policy.check(written)
        store.put_policy(written)
        return shown_policy(written)


def _remove(home: Home, name: str, of: dict[str, Any]) -> dict[str, Any]:
    gateway = reach.running(home)
    if gateway is not None:
        found: dict[str, Any] = gateway.call("DELETE", f"{_PATH}/{reach.quoted(name)}", query=of)
        return found
    from freehold.serve.admin.policies import no_policy

    with reach.offline(home) as (store, _, _):
        if not store.remove_policy(_owner(store, of), name):
            raise no_policy(name)
        return {"name": name, "removed": True}


def _owner(store: "SqlStore", of: dict[str, Any]) -> str | None:
    if of.get("installation"):
        return None
    return chosen_tenant(store, of.get("tenant")).id
