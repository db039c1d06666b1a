"""`freehold policy explain`: why somebody may do something, or may not."""

from typing import Annotated, Any

import typer

from freehold.cli.options.owner import EnvironmentOption, Of, TenantOption
from freehold.cli.reaching import reach
from freehold.cli.terminal.output import Json, console, errors_in_a_sentence, plain, print_json
from freehold.config import load
from freehold.config.home import Home
from freehold.core.action import Action

_PATH = "/admin/v1/policies/explain"


def explain(
    key: Annotated[str | None, typer.Option(help="A key, as `freehold key list` shows it.")] = None,
    person: Annotated[
        str | None, typer.Option(help="Somebody who logged in: per_… of `freehold session list`.")
    ] = None,
    group: Annotated[
        list[str] | None, typer.Option(help="Somebody with this group; repeat for several.")
    ] = None,
    provider: Annotated[
        str | None, typer.Option(help="Whose groups, if there are several.")
    ] = None,
    action: Annotated[Action, typer.Option(help="What they would do.")] = Action.INFER,
    model: Annotated[str | None, typer.Option(help="The alias, for infer.")] = None,
    address: Annotated[
        str | None, typer.Option(help="From where, if a policy looks at it.")
    ] = None,
    tenant: TenantOption = None,
    environment: EnvironmentOption = None,
    as_json: Json = False,
) -> None:
    """Say whether a key or a person may do something, by which policies, or what is missing."""
    body = {
        "key": key,
        "person": person,
        "groups": group or None,
        "provider": provider,
        "action": action.value,
        "model": model,
        "address": address,
    }
    given = {name: value for name, value in body.items() if value is not None}
    with errors_in_a_sentence(as_json):
        found = _explained(load.home(), Of(tenant, environment), given)
    if as_json:
        print_json(found)
    else:
        _tell(found)


def _tell(found: dict[str, Any]) -> None:
    console.print(f"{'Yes' if found['allowed'] else 'No'}: {plain(found['answer'])}")
    who = found["principal"]
    roles = ", ".join(who["roles"]) or "none"
    models = "" if who["models"] is None else f"; models: {', '.join(who['models'])}"
    console.print(plain(f"Its roles: {roles}{models}"))
    for each in found["policies"]:
        says = f": {each['says']}" if each["says"] else ""
        console.print(plain(f"\n{each['effect']} {each['name']}{says}"))
        console.print(plain("\n".join(f"  {line}" for line in each["text"].splitlines())))
    for each in found["missing"]:
        policies = ", ".join(each["policies"])
        console.print(
            plain(f"\nThe role {each['role']} (scope {each['scope']}) would do: {policies}")
        )


def _explained(home: Home, of: Of, body: dict[str, Any]) -> dict[str, Any]:
    gateway = reach.running(home)
    if gateway is not None:
        found: dict[str, Any] = gateway.call("POST", _PATH, {**body, **of.named()})
        return found
    from freehold.cli.wiring.people import build_explainer
    from freehold.serve.explain import Question
    from freehold.serve.reading import validated

    asked = validated(Question, body)
    settings = load.settings(home.settings)
    with reach.offline(home) as (store, keyring, _):
        explainer = build_explainer(settings, store, keyring.clock)
        return explainer.explain(asked, of.resting(store))
