"""`freehold forget`: personal fields of audit records about somebody cannot be read any more."""

from typing import Annotated, Any

import typer

from freehold.cli import reach
from freehold.cli.output import Json, console, errors_in_a_sentence, plain, print_json
from freehold.cli.owner import TenantOption, chosen_tenant
from freehold.config import load
from freehold.config.home import Home

_PATH = "/admin/v1/subjects"


def forget(
    subject: Annotated[
        str,
        typer.Argument(help="A key's id, a person's (per_…), or an end user as requests say it."),
    ],
    tenant: TenantOption = None,
    as_json: Json = False,
) -> None:
    """Forget somebody: address, names and e-mail in audit records about them cannot be read
    any more, in no copy either. That it was done is recorded. Revoke a key besides: what it
    is used for later is recorded anew."""
    with errors_in_a_sentence(as_json):
        forgotten = _forget(load.home(), subject, tenant)
    if as_json:
        print_json(forgotten)
    else:
        console.print(f"Forgotten: {plain(forgotten['id'])}.")


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
