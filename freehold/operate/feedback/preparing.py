"""A file of examples prepared in a process of its own, so that a gateway answers meanwhile.

`python -m freehold.operate.feedback.preparing` does one: JSON on its standard input, JSON on its
output.
"""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from freehold.core.errors import Code, UserError
from freehold.engines.child import inherited

_NICE = 10  # whoever waits for an answer goes first
_MOST_S = 25.0  # what commands wait for an answer is little more
_KEPT = ("PATH", "PYTHONPATH", "LD_LIBRARY_PATH", "VIRTUAL_ENV", "TMPDIR", "LANG")


def prepared(source: Path, folder: Path, format: str, wanted: Mapping[str, Any]) -> None:
    """As `prepare` does. May block. Raises `UserError` as it does, and `OVERLOADED`."""
    told = {"source": str(source), "folder": str(folder), "format": format, "wanted": wanted}
    try:
        done = subprocess.run(
            [sys.executable, "-m", "freehold.operate.feedback.preparing"],
            input=json.dumps(told).encode(),
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=inherited(_KEPT),
            timeout=_MOST_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise _late() from None
    if done.returncode:
        raise _late()
    refused = json.loads(done.stdout)
    if refused:
        raise UserError(Code(refused["code"]), refused["message"], param=refused["param"])


def _late() -> UserError:
    return UserError(
        Code.OVERLOADED,
        f"The examples were not prepared in {_MOST_S:.0f} seconds: take fewer, by --since or "
        "--alias, or try again when the machine is less busy.",
        retry_after_s=30,
    )


def main() -> None:
    # Numpy comes with it, which a gateway that only asks for this must not wait for.
    from freehold.adapt.dataset.prepare import Wanted, prepare
    from freehold.adapt.dataset.source import Format

    os.nice(_NICE)
    told = json.loads(sys.stdin.buffer.read())
    refused: dict[str, Any] = {}
    try:
        wanted = Wanted(format=Format(told["format"]), **told["wanted"])
        prepare(Path(told["source"]), Path(told["folder"]), wanted)
    except UserError as error:
        refused = {"code": error.code.value, "message": error.message, "param": error.param}
    sys.stdout.buffer.write(json.dumps(refused).encode())


if __name__ == "__main__":
    main()
