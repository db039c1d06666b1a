"""`freehold forget`: personal fields of audit records about somebody cannot be read any more."""

from typing import Annotated, Any

import typer

from freehold.cli.options.owner import TenantOption, chosen_tenant
from freehold.cli.reaching import reach
from freehold.cli.terminal.output import Json, console, errors_in_a_sentence, plain, print_json
from freehold.config import load
from freehold.config.home import Home

_PATH = "/admin/v1/subjects"
_REMOVED_BY = {"dataset": "data rm", "adapter": "adapter rm", "evaluation": "eval rm"}


def forget(
    subject: Annotated[
        str,
        typer.Argument(help="A key's id, a person's (per_…), or an end user as requests say it."),
    ],
    tenant: TenantOption = None,
    as_json: Json = False,
) -> None:
    """Forget somebody: address, names and e-mail in audit records about them cannot be read
    any more, in no copy either. What was made of their words for training is named. That it was
    done is recorded. Revoke a key besides: what it is used for later is recorded anew."""
    with errors_in_a_sentence(as_json):
        forgotten = _forget(load.home(), subject, tenant)
    if as_json:
        print_json(forgotten)
    else:
        console.print(f"Forgotten: {plain(forgotten['id'])}.")
        _say_where_still(forgotten["still_in"])


def _say_where_still(held: list[dict[str, Any]]) -> None:
    if held:
        console.print(
            "Datasets made of what people said, and what was made of those, hold it still:"
        )
    for each in held:
        name = each["id"] if each["kind"] == "evaluation" else each["name"]
        where = each["environment"]
        remove = f"freehold {_REMOVED_BY[each['kind']]} {name} --env {where}"
        console.print(f"  {each['kind']} {plain(each['name'])} in {where}: {plain(remove)}")


def _forget(home: Home, subject: str, tenant: str | None) -> dict[str, Any]:
    gateway = reach.running(home)
    if gateway is not None:
        query = {} if tenant is None else {"tenant": tenant}
        path = f"{_PATH}/{reach.quoted(subject)}"
        found: dict[str, Any] = gateway.call("DELETE", path, query=query)
        return found
    from freehold.serve.admin.subjects import forget

    with reach.offline(home) as (store, keyring, _):
        return forget(store, keyring, chosen_tenant(store, tenant).id, subject)
