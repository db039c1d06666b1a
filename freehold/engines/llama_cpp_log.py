"""What llama.cpp says while it serves, without what clients said to it.

Its log quotes requests in errors, and prints whole grammars that it made of their schemas.
Until it serves, no client has spoken, and all is kept; from then on a line is kept up to
where a quotation can begin, and one that it does not begin in its own way is not kept.
"""

import os
import re
import threading

_MOST_BYTES = 64 * 1024
_HEAD = rb"[\d.]+ [A-Z]\b"  # time and level
_KEPT = [
    re.compile(pattern)
    for pattern in (
        _HEAD + rb" slot +\w+: id +\d+ \| task +-?\d+ \|.*",  # counts and times
        _HEAD + rb"[^:]*:[^:]*(?=:)",  # where, what; after that perhaps a quotation
        _HEAD + rb"[^:]*(?=:)",
        _HEAD,
        rb".*GGML_ASSERT\(.*",
        rb".*(?:CUDA|Metal|Vulkan|HIP) error(?=:)",
        rb"terminate called.*",
        rb"Traceback \(most recent call last\):",
        rb'  File "[^"]*", line \d+, in \S+',
        rb"\w*Error(?=:|$)",
        rb"#\d+ .*",  # a frame of a backtrace
    )
]


def kept(line: bytes) -> bytes | None:
    """What may be written of a line; None: nothing."""
    for pattern in _KEPT:
        found = pattern.match(line)
        if found:
            return found[0]
    return None


def clean() -> None:
    """From now on only that goes where this process writes to. Called once."""
    log = os.dup(2)
    reader, writer = os.pipe()
    for stream in (1, 2):
        os.dup2(writer, stream)
    os.close(writer)
    threading.Thread(target=_pass_on, args=(reader, log), name="log", daemon=True).start()


def _pass_on(reader: int, log: int) -> None:
    rest = b""
    while data := os.read(reader, _MOST_BYTES):
        *lines, rest = (rest + data).split(b"\n")
        rest = rest[-_MOST_BYTES:]
        written = b"".join(part + b"\n" for part in map(kept, lines) if part is not None)
        try:
            while written:
                written = written[os.write(log, written) :]
        except OSError:  # a full disk: the engine serves on
            continue
