"""One real installation for all tests that want one: `freehold up` on an empty home."""

import fcntl
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
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
        return freehold(self.environment, *arguments, **options)

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


def environment_of(home: Path) -> dict[str, str]:
    return {**os.environ, "FREEHOLD_HOME": str(home), "CANARY_SECRET": "do-not-inherit"}


def freehold(
    environment: Mapping[str, str], *arguments: str, **options: object
) -> "subprocess.CompletedProcess[str]":
    """A command, as a person gives it."""
    return subprocess.run(
        [sys.executable, "-m", "freehold.cli.main", *arguments],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        **{"timeout": 120, **options},  # type: ignore[call-overload]
    )


def start(
    home: Path,
    *options: str,
    wait: bool = True,
    program: Sequence[str] = ("freehold.cli.main",),
    variables: Mapping[str, str] | None = None,
    **popen: Any,
) -> Installation:
    environment = environment_of(home) | dict(variables or {})
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


class First:
    """The first start of a test run, which its processes make once between them: whoever
    comes first starts on an empty home, and keeps in `home` the models that came of that;
    the others start with these."""

    def __init__(self, folder: Path) -> None:
        self.home = folder / "first"
        self._lock = folder / "first.lock"

    def start(self, home: Path) -> Installation:
        with self._alone():
            if self._has_models:
                share(self.home, home)
                return start(home)
            running = start(home)
            share(home, self.home)
            return running

    def is_made(self) -> bool:
        """Waits for who makes it, if anybody does."""
        with self._alone():
            return self._has_models

    @property
    def _has_models(self) -> bool:
        return (self.home / "models").exists()

    @contextmanager
    def _alone(self) -> Iterator[None]:
        with self._lock.open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


def share(source: Path, home: Path) -> None:
    """Gives a new home the models of another, and what engines made ready of them."""
    (home / "cache").mkdir(mode=0o700, parents=True, exist_ok=True)
    for file in (source / "cache").iterdir():
        if file.is_file():
            os.link(file, home / "cache" / file.name)
    for folder in ("blobs", "models"):
        shutil.copytree(source / folder, home / folder, copy_function=os.link)


def stock_tiny(home: Path) -> None:
    """Gives a new home an invented model, `tiny`, which the fake engine can serve."""
    file = write(home / "tiny.gguf", decoder_bytes())
    pull(ModelStore(home), home, f"file:{file}", progress=lambda *_: None)
    file.unlink()
