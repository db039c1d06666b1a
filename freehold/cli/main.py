"""The `freehold` command."""

import os
import sys
from typing import Annotated

import typer

import freehold
from freehold.cli import (
    adapter,
    audit,
    backup,
    bench,
    chat,
    doctor,
    down,
    events,
    forget,
    key,
    limit,
    login,
    logins,
    model,
    policy,
    price,
    reach,
    role,
    route,
    session,
    status,
    tenant,
    tls,
    up,
    usage,
)
from freehold.cli.output import (
    Json,
    console,
    errors_in_a_sentence,
    plain,
    print_json,
    stderr,
)

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,  # brackets in a text are brackets
    pretty_exceptions_enable=False,
    help="Machines that you control, as a private multi-tenant LLM service.",
    epilog="FREEHOLD_HOME (default ~/.freehold) says where everything is kept.",
)
app.command()(up.up)
app.command()(down.down)
app.command()(status.status)
app.command()(chat.chat)
app.command()(login.login)
app.command()(login.logout)
app.command()(login.whoami)
app.command()(usage.usage)
app.command()(events.events)
app.command()(bench.bench)
app.command()(forget.forget)
app.command("restore")(backup.restore_)
app.add_typer(model.app, name="model")
app.add_typer(adapter.app, name="adapter")
app.add_typer(route.app, name="route")
app.add_typer(tenant.app, name="tenant")
app.add_typer(key.app, name="key")
app.add_typer(limit.app, name="limit")
app.add_typer(price.app, name="price")
app.add_typer(role.app, name="role")
app.add_typer(session.app, name="session")
app.add_typer(policy.app, name="policy")
app.add_typer(audit.app, name="audit")
app.add_typer(tls.app, name="tls")
app.add_typer(doctor.app, name="doctor")


@app.callback()
def _where(
    url: Annotated[
        str | None,
        typer.Option(
            envvar="FREEHOLD_URL", help="A gateway elsewhere, after `freehold login --url`."
        ),
    ] = None,
) -> None:
    with errors_in_a_sentence():
        reach.elsewhere.set(None if url is None else logins.checked(url))


app.add_typer(backup.app, name="backup")


@app.command()
def version(as_json: Json = False) -> None:
    """Show the version."""
    if as_json:
        print_json({"version": freehold.__version__})
    else:
        console.print(freehold.__version__)


def main() -> None:
    """Runs a command. What nobody foresaw ends in one sentence here too; the
    traceback goes to a file. All that is written is for its owner only."""
    os.umask(0o077)
    try:
        app()
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:
        sys.exit(1)
    except Exception as error:  # noqa: BLE001 - the process boundary
        from freehold.cli.crash import report

        stderr.print(f"[red]Error:[/red] {plain(report(error))}")
        sys.exit(1)


if __name__ == "__main__":
    main()
