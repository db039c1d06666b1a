"""`freehold down`: stop the running gateway, let it drain, wait until it is gone."""

import os
import signal
import time
from typing import Annotated

import typer

from freehold.cli.reaching import reach
from freehold.cli.terminal.output import Json, console, errors_in_a_sentence, print_json
from freehold.config import load
from freehold.core.errors import Code, UserError


def down(
    wait_s: Annotated[float, typer.Option("--wait", min=1, help="Seconds to wait.")] = 60,
    as_json: Json = False,
) -> None:
    """Stop the running gateway: it finishes what it has begun, then ends."""
    with errors_in_a_sentence(as_json):
        pid = reach.require_running(load.home()).pid
        if pid is None:
            raise reach.not_here("A gateway is stopped")
        os.kill(pid, signal.SIGTERM)
        deadline = time.monotonic() + wait_s
        while _is_alive(pid):
            if time.monotonic() > deadline:
                raise UserError(
                    Code.CONFLICT,
                    f"The gateway (pid {pid}) still drains after {wait_s:g} seconds: "
                    "wait, or send SIGTERM again to stop at once.",
                )
            time.sleep(0.1)
    if as_json:
        print_json({"stopped": pid})
    else:
        console.print("Stopped.")


def _is_alive(pid: int) -> bool:
    """An ended process that its parent has not noticed yet counts as gone."""
    import psutil

    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
