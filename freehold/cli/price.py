"""`freehold price`: what models cost, and whether that pays for the machine."""

from typing import Annotated, Any

import typer

from freehold.cli.reaching import reach
from freehold.cli.terminal.output import (
    Json,
    console,
    errors_in_a_sentence,
    money,
    print_json,
    table,
)
from freehold.config import load
from freehold.core.errors import Code, UserError

app = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, help="What models cost, and where that is from."
)


@app.command("list")
def list_prices(
    days: Annotated[
        int, typer.Option(min=1, max=3660, help="Compare what was billed in so many days.")
    ] = 30,
    as_json: Json = False,
) -> None:
    """Show what a million tokens cost with each model, and what the machine costs beside
    what its models were billed. The gateway must be running."""
    with errors_in_a_sentence(as_json):
        gateway = reach.running(load.home())
        if gateway is None:
            raise UserError(
                Code.GATEWAY_NOT_RUNNING,
                "Prices are known once models are served: start the gateway with `freehold up`.",
            )
        found: dict[str, Any] = gateway.call("GET", "/admin/v1/prices", query={"days": days})
    if as_json:
        print_json(found)
        return
    table(
        ["model", "upstream", "from tokens in", "input", "cached", "output", "source"],
        [
            [
                each["model"],
                each["upstream"],
                rates["from_tokens_in"],
                money(rates["input"]),
                money(rates["cached"]),
                money(rates["output"]),
                each["source"],
            ]
            for each in found["data"]
            for rates in each["rates"]
        ],
        "No price is known: set `prices` in the settings.",
    )
    console.print(f"In {found['currency']} for a million tokens.")
    if found["machine"] is not None:
        console.print(_told(found["machine"], found["currency"]), soft_wrap=True)


def _told(machine: dict[str, Any], currency: str) -> str:
    said = (
        f"The machine costs {money(machine['per_hour'])} {currency} an hour ({machine['source']}): "
        f"{money(machine['cost'])} in {machine['hours']:,.1f} hours, of which "
        f"{money(machine['billed'])} were billed."
    )
    if machine["assumed"]:
        said += " Say what it really costs in `prices.machine`."
    elif machine["busy_enough"] is not None and machine["billed"] < machine["cost"]:
        said += (
            f" Prices suppose it busy for {machine['busy']:.0%} of its time; they would have paid "
            f"for it with `prices.machine.busy: {machine['busy_enough']:.4f}`."
        )
    return said
