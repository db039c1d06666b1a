"""The commands by name. Each is imported when it is named, as most of them need what takes
longer to import than others take to answer; so what `freehold --help` says is written here."""

from importlib import import_module
from typing import Any, NamedTuple, cast

import typer
from typer.core import TyperCommand, TyperGroup


class Place(NamedTuple):
    """Where a command is, and the first sentence of what it says of itself."""

    module: str
    attribute: str
    summary: str


COMMANDS = {
    "up": Place("up", "up", "Serve models behind keys and a meter, on one machine, until Ctrl-C."),
    "down": Place(
        "down", "down", "Stop the running gateway: it finishes what it has begun, then ends."
    ),
    "status": Place(
        "status", "status", "Show replicas, queue, tokens/s and memory of the running gateway."
    ),
    "chat": Place("chat", "chat", "Chat with a model; the answer streams."),
    "login": Place(
        "login",
        "login",
        "Log in at a gateway with your identity provider; commands with --url then act as you.",
    ),
    "logout": Place("login", "logout", "End your session at a gateway, and forget it here."),
    "whoami": Place("login", "whoami", "Show who you are at the gateway, and what you may."),
    "usage": Place("usage", "usage", "Show tokens and requests by key, model and day (UTC)."),
    "events": Place(
        "events",
        "events",
        "Show events, oldest first: of one tenant's environment, or of the whole installation.",
    ),
    "bench": Place(
        "bench",
        "bench",
        "Measure how fast this machine serves a model; stop a running gateway before.",
    ),
    "fit": Place(
        "fit",
        "fit_",
        "Show whether a model fits, what memory it takes, how much context fits, and how fast it "
        "is.",
    ),
    "lineage": Place(
        "lineage",
        "lineage",
        "Show where answers come from: base, adapter, data, training, evaluation, promotion.",
    ),
    "forget": Place(
        "forget",
        "forget",
        "Forget somebody: address, names and e-mail in audit records about them cannot be read "
        "any more, in no copy either.",
    ),
    "restore": Place(
        "backup",
        "restore_",
        "Put a backup back, whole or not at all; what is there is moved aside, never lost.",
    ),
    "version": Place("version", "version", "Show the version."),
    "model": Place("model", "app", "Pull, list, show, measure, remove and verify models."),
    "adapter": Place("adapter", "app", "Add, list, sign, verify and remove adapters."),
    "data": Place("data", "app", "Check, add, list, show and remove data to train on."),
    "route": Place("route", "app", "Say where aliases lead: base and adapter."),
    "tenant": Place("tenant", "app", "Make, show, isolate, disable and remove tenants."),
    "key": Place("key", "app", "Make, list, change, rotate, confirm and revoke API keys."),
    "limit": Place(
        "limit", "app", "Budgets in money or tokens, requests a minute, requests at once."
    ),
    "price": Place("price", "app", "What models cost, and where that is from."),
    "role": Place("role", "app", "What groups of identity providers may."),
    "session": Place("session", "app", "Who is logged in."),
    "policy": Place("policy", "app", "Who may do what, in Cedar."),
    "audit": Place("audit", "app", "Who used what, and whether the records are whole."),
    "tls": Place("tls", "app", "Certificates for those who have none."),
    "doctor": Place(
        "doctor", "app", "Check this installation; `isolation` tries whether its tenants are apart."
    ),
    "decide": Place("decide", "app", "Should we host an LLM, and how?"),
    "eval": Place(
        "eval", "app", "Ask a route the questions of a suite, and decide whether it may serve."
    ),
    "gate": Place("gate", "app", "What evaluations decided of revisions."),
    "tune": Place("tune", "app", "Train an adapter from a dataset."),
    "promote": Place(
        "promote",
        "promote",
        "Let what an alias leads to into the next environment, whole or with a share of the "
        "conversations.",
    ),
    "rollback": Place(
        "promote", "rollback", "Let an alias lead to what it led to before its last promotion."
    ),
    "promotion": Place("promote", "app", "What was promoted, and how it does."),
    "backup": Place("backup", "app", "All of an installation in one file."),
}


class Commands(TyperGroup):
    """Lists, completes and suggests by the names alone."""

    def __init__(self, **attributes: Any) -> None:
        named = {name: TyperCommand(name, help=at.summary) for name, at in COMMANDS.items()}
        super().__init__(**{**attributes, "commands": named})

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        name, command, rest = super().resolve_command(ctx, args)
        return name, command and loaded(args[0]), rest

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except typer.BadParameter as error:  # as pydantic has it, which Typer asks
            error.message = error.message.removeprefix("Value error, ")
            raise


def loaded(name: str) -> Any:
    """The command itself, which may be a group of some."""
    place = COMMANDS[name]
    found = getattr(import_module(f"freehold.cli.{place.module}"), place.attribute)
    # Typer makes groups only whole: this one is for what is in it.
    around = typer.Typer(rich_markup_mode=None, add_completion=False)
    around.callback()(lambda: None)
    if isinstance(found, typer.Typer):
        around.add_typer(found, name=name)
    else:
        around.command(name)(found)
    return cast(TyperGroup, typer.main.get_command(around)).commands[name]
