"""One real installation for all tests that want one: `freehold up` on an empty home."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from freehold.catalog.pull import pull
from freehold.catalog.store import ModelStore
from tests.catalog.making import decoder_bytes, write

_START_S = 240


@dataclass
class Installation:
    """A running `freehold up`, as a person has it in a terminal."""

    home: Path
    process: "subprocess.Popen[str]"
    url: str
    printed: str
    environment: dict[str, str]

    @property
    def key(self) -> str:
        return (self.home / "admin.key").read_text().strip()

    def run(self, *arguments: str, **options: object) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [sys.executable, "-m", "freehold.cli.main", *arguments],
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
            **options,  # type: ignore[call-overload]
        )

    def kill(self) -> None:
        """Ends it outright; nothing happens when it has ended."""
        self.process.kill()
        self.process.wait()
        if self.process.stdout is not None:
            self.process.stdout.close()

    def stop(self) -> str:
        self.process.send_signal(signal.SIGINT)
        output, _ = self.process.communicate(timeout=60)
        return output


def start(
    home: Path,
    *options: str,
    wait: bool = True,
    program: Sequence[str] = ("freehold.cli.main",),
    variables: Mapping[str, str] | None = None,
    **popen: Any,
) -> Installation:
    environment = {**os.environ, "FREEHOLD_HOME": str(home), "CANARY_SECRET": "do-not-inherit"}
    environment |= variables or {}
    process = subprocess.Popen(
        [sys.executable, "-u", "-m", *program, "up", "--port", "0", *options],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        **popen,
    )
    lines: list[str] = []
    deadline = time.monotonic() + _START_S
    assert process.stdout is not None
    while wait and time.monotonic() < deadline:
        line = process.stdout.readline()
        lines.append(line)
        if "Ctrl-C stops it" in line or not line:
            break
    printed = "".join(lines)
    found = re.search(r"serves at (https?://\S+)/v1", printed)
    assert found or not wait, printed
    return Installation(home, process, found[1] if found else "", printed, environment)


def stock(home: Path, source: Installation) -> None:
    """Gives a new home the models of another, so that it need not pull again."""
    for folder in ("models", "blobs"):
        shutil.copytree(source.home / folder, home / folder, copy_function=os.link)


def stock_tiny(home: Path) -> None:
    """Gives a new home an invented model, `tiny`, which the fake engine can serve."""
    file = write(home / "tiny.gguf", decoder_bytes())
    pull(ModelStore(home), home, f"file:{file}", progress=lambda *_: None)
    file.unlink()
