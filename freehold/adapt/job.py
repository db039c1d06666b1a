"""The process of one job: `python -m freehold.adapt.job`.

It is told what to do on standard input, and says on standard output how far it is, a JSON object
a line, and what came of it. Standard output is a file in its work folder, so that it needs nobody
who listens. SIGTERM asks it to write a checkpoint and end; started again with the same work folder
it goes on from there.
"""

import errno
import fcntl
import json
import os
import resource
import signal
import sys
import time
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, TextIO

from freehold.core.errors import Code, FreeholdError, UserError

# Each with what does it: called with the spec, the work folder, the home and a `Tell`; returns
# the result. Imported only here, as training takes seconds to import.
_DONE_BY = {
    "tune": ("freehold.adapt.training.as_job", "run"),
    "eval": ("freehold.adapt.evaluate.as_job", "run"),
}
_PROGRESS_EVERY_S = 1.0
_PATIENCE_S = 20.0
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT)


class Tell:
    """What the work may say. `must_end()`: write a checkpoint and return None."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._must_end = False
        self._told_at = 0.0
        signal.signal(signal.SIGTERM, self._asked)
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's, which is not ours

    def must_end(self) -> bool:
        return self._must_end

    def progress(self, **figures: Any) -> None:
        """Once a second at most; what comes sooner is left out."""
        now = time.monotonic()
        if now - self._told_at >= _PROGRESS_EVERY_S or figures.get("step") == figures.get("steps"):
            self._told_at = now
            self.say({"progress": figures})

    def log(self, text: str) -> None:
        self.say({"log": text})

    def say(self, content: Mapping[str, Any]) -> None:
        self._out.write(json.dumps(content) + "\n")
        self._out.flush()

    def _asked(self, number: int, frame: object) -> None:
        self._must_end = True


Work = Callable[[Mapping[str, Any], Path, Path, Tell], Mapping[str, Any] | None]


def main(done_by: Mapping[str, tuple[str, str]] = _DONE_BY) -> None:
    asked = json.loads(sys.stdin.read())
    os.umask(0o077)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # it would hold what is trained on
    work = Path(asked["work"])
    tell = Tell(sys.stdout)
    _take(work)
    try:
        _do(asked, work, tell, done_by)
    except OSError as error:
        if error.errno not in _NO_ROOM:
            raise
        tell.say(_error(disk_full(work)))


def _take(work: Path) -> None:
    """Makes the folder this process's own until it ends. One that was killed may hold it for a
    moment: it is gone when the last of its threads is."""
    lock = os.open(work / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    until_s = time.monotonic() + _PATIENCE_S
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() > until_s:
                raise SystemExit("another process does this job already") from None
            time.sleep(0.1)


def _do(
    asked: Mapping[str, Any], work: Path, tell: Tell, done_by: Mapping[str, tuple[str, str]]
) -> None:
    try:
        module, name = done_by[asked["kind"]]
        do: Work = getattr(import_module(module), name)
        result = do(asked["spec"], work, Path(asked["home"]), tell)
    except FreeholdError as error:
        tell.say(_error(error))
        return
    if result is not None:
        tell.say({"result": result})


def disk_full(work: Path) -> UserError:
    return UserError(
        Code.DISK_FULL,
        f"The disk of {work} is full: make room, and resume the job.",
    )


def _error(error: FreeholdError) -> dict[str, Any]:
    return {"error": {"code": error.code.value, "message": error.message}}


if __name__ == "__main__":
    main()
