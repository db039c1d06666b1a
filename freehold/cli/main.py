"""The `freehold` command."""

import os
import signal
import sys
from typing import Annotated

import typer

import freehold.cli.terminal.streams  # noqa: F401 - before what looks at them
from freehold.cli.commands import Commands
from freehold.cli.reaching import reach
from freehold.cli.terminal.output import errors_in_a_sentence, plain, stderr

app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    rich_markup_mode=None,  # brackets in a text are brackets
    pretty_exceptions_enable=False,
    help="Machines that you control, as a private multi-tenant LLM service.",
    epilog="FREEHOLD_HOME (default ~/.freehold) says where everything is kept.",
)


def _version(is_asked: bool) -> None:
    if is_asked:
        from freehold.cli.version import version

        version()
        raise typer.Exit


@app.callback()
def _where(
    url: Annotated[
        str | None,
        typer.Option(
            envvar="FREEHOLD_URL", help="A gateway elsewhere, after `freehold login --url`."
        ),
    ] = None,
    version: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    reach.elsewhere.set(None)
    if url is not None:
        from freehold.cli.reaching.logins import checked

        with errors_in_a_sentence():
            reach.elsewhere.set(checked(url))


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
        from freehold.cli.terminal.crash import report

        stderr.print(f"[red]Error:[/red] {plain(report(error))}")
        sys.exit(1)
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # a second Ctrl-C finds it ending


if __name__ == "__main__":
    main()
