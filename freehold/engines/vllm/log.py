"""What vLLM and its processes say, without what clients said to them.

Until it serves, no client has spoken, and all is kept. From then on a line is kept up to
where a quotation can begin: when and where in the code it comes from, and the frames and
the name of an exception, but no text of either.
"""

import os
import re
import threading

_MOST_BYTES = 64 * 1024
_KEPT = [
    re.compile(pattern)
    for pattern in (
        rb"(?:\(\w+ pid=\d+\) )?(?:DEBUG|INFO|WARNING|ERROR|CRITICAL) [\d-]+ [\d:]+ \[[\w./:]+\]",
        rb"(?:\(\w+ pid=\d+\) )?Traceback \(most recent call last\):",
        rb'(?:\(\w+ pid=\d+\) )?  File "[^"]*", line \d+, in \S+',
        rb"(?:\(\w+ pid=\d+\) )?[\w.]*(?:Error|Exception)(?=:|$)",
    )
]


def kept(line: bytes) -> bytes | None:
    """What may be written of a line; None: nothing."""
    for pattern in _KEPT:
        found = pattern.match(line)
        if found:
            return found[0]
    return None


class Clean:
    """Passes on what this process and its children write, whole until `begin`."""

    def __init__(self) -> None:
        self._has_begun = False
        self._log = os.dup(2)
        self._reader, writer = os.pipe()
        for stream in (1, 2):
            os.dup2(writer, stream)
        os.close(writer)
        threading.Thread(target=self._pass_on, name="log", daemon=True).start()

    def begin(self) -> None:
        self._has_begun = True

    def _pass_on(self) -> None:
        rest = b""
        while data := os.read(self._reader, _MOST_BYTES):
            *lines, rest = (rest + data).split(b"\n")
            rest = rest[-_MOST_BYTES:]
            if self._has_begun:
                written = b"".join(part + b"\n" for part in map(kept, lines) if part is not None)
            else:
                written = b"".join(line + b"\n" for line in lines)
            try:
                while written:
                    written = written[os.write(self._log, written) :]
            except OSError:  # a full disk: the engine serves on
                continue


def start() -> Clean:
    return Clean()
