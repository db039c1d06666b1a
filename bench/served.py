"""`freehold up` with one engine, on a home of its own, for as long as something is measured."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil


@dataclass(frozen=True, slots=True)
class Served:
    engine: str
    url: str
    key: str
    model: str
    digest: str
    socket: str  # the engine's private one


@contextmanager
def served(engine: str, port: int, streams: int, context: int) -> Iterator[Served]:
    with tempfile.TemporaryDirectory() as folder:
        environment = {
            **os.environ,
            "FREEHOLD_HOME": folder,
            f"FREEHOLD_ENGINES__{engine.upper()}__STREAMS": str(streams),
            f"FREEHOLD_ENGINES__{engine.upper()}__CONTEXT_LENGTH": str(context),
        }
        program = str(Path(sys.executable).parent / "freehold")
        process = subprocess.Popen(
            [program, "up", "--engine", engine, "--port", str(port)],
            env=environment, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        try:
            if process.stdout is None or not any("Ctrl-C" in line for line in process.stdout):
                sys.exit("freehold up did not start")
            shown = subprocess.run(
                [program, "model", "list", "--json"], env=environment, capture_output=True,
                text=True, check=True,
            )  # fmt: skip
            card = json.loads(shown.stdout)[0]
            key = (Path(folder) / "admin.key").read_text().strip()
            yield Served(
                engine, f"http://127.0.0.1:{port}", key, card["name"], card["digest"],
                _socket_below(process.pid),
            )  # fmt: skip
        finally:
            process.terminate()
            process.wait(60)


def _socket_below(pid: int) -> str:
    """From the engine's own command line."""
    for child in psutil.Process(pid).children(recursive=True):
        for word in child.cmdline():
            if word.startswith("--socket="):
                return word.removeprefix("--socket=")
    raise SystemExit("no engine process was found")
