"""`freehold version`."""

import freehold
from freehold.cli.terminal.output import Json, console, print_json


def version(as_json: Json = False) -> None:
    """Show the version."""
    if as_json:
        print_json({"version": freehold.__version__})
    else:
        console.print(freehold.__version__)
