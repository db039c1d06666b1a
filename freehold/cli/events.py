"""`freehold events`: what happened that somebody should know of."""

import time
from datetime import datetime
from typing import Annotated, Any

import orjson
import typer

from freehold.cli.options import span
from freehold.cli.options.owner import EnvironmentOption, Of, TenantOption
from freehold.cli.reaching import reach
from freehold.cli.terminal.output import Json, console, errors_in_a_sentence, plain, print_json
from freehold.config import load
from freehold.config.home import Home
from freehold.core.event import Severity

_PATH = "/admin/v1/events"
_LOOK_S = 1.0
_PAGE = 1000
_COLOURS = {"info": "default", "warning": "yellow", "critical": "red"}


def events(
    since: Annotated[
        str, typer.Option(help="How long ago (30m, 24h, 7d), or a time (2026-01-31T12:00:00Z).")
    ] = "7d",
    severity: Annotated[Severity, typer.Option(help="At least.")] = Severity.INFO,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on as they come.")] = False,
    tenant: TenantOption = None,
    environment: EnvironmentOption = None,
    as_json: Json = False,
) -> None:
    """Show events, oldest first: of one tenant's environment, or of the whole installation."""
    of = Of(tenant, environment)
    begin = span.since(since)
    with errors_in_a_sentence(as_json):
        home, after, shown = load.home(), "", list[dict[str, Any]]()
        if follow:
            reach.require_running(home)
        while True:
            page = _page(home, of, after, begin, severity)
            after = page[-1]["id"] if page else after
            if follow or not as_json:
                for each in page:
                    _show(each, as_json)
            shown += page
            if not page and not follow:
                break
            if not page:
                time.sleep(_LOOK_S)
    if as_json:
        print_json(shown)
    elif not shown:
        console.print("Nothing happened.")


def _show(event: dict[str, Any], as_json: bool) -> None:
    if as_json:
        typer.echo(orjson.dumps(event).decode())
        return
    colour = _COLOURS[event["severity"]]
    at = event["at"][:19].replace("T", " ")
    console.print(
        f"{at} [{colour}]{event['severity']:8}[/{colour}] {event['kind']}: {plain(event['text'])}",
        soft_wrap=True,
    )


def _page(
    home: Home, of: Of, after: str, since: datetime, severity: Severity
) -> list[dict[str, Any]]:
    named = of.named()
    gateway = reach.running(home)
    if gateway is not None:
        asked = {
            "after": after,
            "since_us": int(since.timestamp() * 1e6),
            "severity": severity.value,
        }
        whose = named or {"all": True}
        query = {**whose, **asked, "limit": _PAGE}
        found: list[dict[str, Any]] = gateway.call("GET", _PATH, query=query)["data"]
        return found
    from freehold.serve.events.webhooks import shown_event

    bounds: dict[str, Any] = {"since_us": int(since.timestamp() * 1e6), "least": severity}
    with reach.offline(home) as (store, _, _):
        if named:
            events = store.events(*of.resting(store), _PAGE, after, **bounds)
        else:
            events = store.every_event(_PAGE, after, **bounds)
        return [shown_event(each) for each in events]
