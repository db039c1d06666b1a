"""What every engine process does first: lose its privileges, and die with its parent."""

import ctypes
import os
import resource
import signal
import sys
import threading
from collections.abc import Iterable

_PR_SET_PDEATHSIG = 1
_PR_SET_NO_NEW_PRIVS = 38
_HARMLESS = ("PATH", "LANG", "LC_ALL", "TZ", "HOME", "TMPDIR", "LD_LIBRARY_PATH")


def clean_environment() -> dict[str, str]:
    """The only variables a child gets; keys and tokens of the parent stay there."""
    return {**inherited(_HARMLESS), "PYTHONUNBUFFERED": "1", "PYTHONDONTWRITEBYTECODE": "1"}


def inherited(names: Iterable[str]) -> dict[str, str]:
    return {name: os.environ[name] for name in names if name in os.environ}


def settle_in() -> None:
    """No core dumps (they would hold prompts), no new privileges, and an end when the
    parent ends: by signal on Linux, by the closed standard input everywhere."""
    os.umask(0o077)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "linux":
        libc = ctypes.CDLL(None, use_errno=True)
        libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    threading.Thread(target=_die_with_parent, name="lifeline", daemon=True).start()


def _die_with_parent() -> None:
    while os.read(0, 4096):
        pass
    os._exit(0)
