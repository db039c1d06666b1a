"""One real installation for all tests that want one: `freehold up` on an empty home."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

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

    def stop(self) -> str:
        self.process.send_signal(signal.SIGINT)
        output, _ = self.process.communicate(timeout=60)
        return output


def start(home: Path, *options: str, wait: bool = True) -> Installation:
    environment = {**os.environ, "FREEHOLD_HOME": str(home), "CANARY_SECRET": "do-not-inherit"}
    process = subprocess.Popen(
        [sys.executable, "-u", "-m", "freehold.cli.main", "up", "--port", "0", *options],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
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
    found = re.search(r"serves at (http://\S+)/v1", printed)
    assert found or not wait, printed
    return Installation(home, process, found[1] if found else "", printed, environment)


def stock(home: Path, source: Installation) -> None:
    """Gives a new home the models of another, so that it need not pull again."""
    for folder in ("models", "blobs"):
        shutil.copytree(source.home / folder, home / folder, copy_function=os.link)
