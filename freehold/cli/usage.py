"""`freehold usage`: what was used, by key, model and day."""

import dataclasses
import time
from typing import Annotated, Any

import typer

from freehold.cli.options.owner import EnvironmentOption, Of, TenantOption
from freehold.cli.reaching import reach
from freehold.cli.terminal.output import Json, errors_in_a_sentence, money, print_json, table
from freehold.config import load
from freehold.config.home import Home

_DAY_US = 86_400 * 1_000_000


def usage(
    days: Annotated[int, typer.Option(min=1, max=3660, help="How many days back.")] = 30,
    key: Annotated[str | None, typer.Option(help="Only this key id.")] = None,
    tenant: TenantOption = None,
    environment: EnvironmentOption = None,
    thumbs: Annotated[
        bool, typer.Option("--thumbs", help="What people said of answers, by model and adapter.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Show tokens and requests by key, model and day (UTC)."""
    with errors_in_a_sentence(as_json):
        found = _usage(load.home(), Of(tenant, environment), days, key)
    rows = found["thumbs" if thumbs else "data"]
    if as_json:
        print_json(rows)
        return
    if thumbs:
        table(
            ["model", "adapter", "up", "down"],
            [
                [each["alias"], (each["adapter_digest"] or "")[:19], each["up"], each["down"]]
                for each in rows
            ],
            f"Nobody said anything of answers in the last {days} days.",
        )
        return
    table(
        [
            "day",
            "key",
            "model",
            "adapter",
            "requests",
            "not ok",
            "tokens in",
            "cached",
            "tokens out",
            "cost",
        ],
        [
            [
                row["day"],
                row["key_id"],
                row["alias"],
                (row["adapter_digest"] or "")[:19],
                row["requests"],
                row["failed"],
                row["tokens_in"],
                row["tokens_cached"],
                row["tokens_out"],
                money(row["cost"]) + (" and unpriced" if row["unpriced"] else ""),
            ]
            for row in rows
        ],
        f"Nothing was used in the last {days} days.",
    )


def _usage(home: Home, of: Of, days: int, key: str | None) -> dict[str, Any]:
    gateway = reach.running(home)
    if gateway is not None:
        query: dict[str, Any] = {"days": days, **of.named()} | ({"key": key} if key else {})
        found: dict[str, Any] = gateway.call("GET", "/admin/v1/usage", query=query)
        return found
    from freehold.serve.admin.usage import shown_thumbs

    with reach.offline(home) as (store, _, _):
        tenant_id, chosen = of.resting(store)
        now_us = time.time_ns() // 1000
        since_us = (now_us // _DAY_US - days + 1) * _DAY_US
        rows = store.usage(tenant_id, since_us, now_us + 1, key, environment=chosen)
        said = shown_thumbs(store, tenant_id, chosen, since_us)
        return {"data": [dataclasses.asdict(row) for row in rows], "thumbs": said}
