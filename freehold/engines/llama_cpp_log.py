"""What llama.cpp says while it serves, without what clients said to it.

Its log quotes requests in errors, and prints whole grammars that it made of their schemas.
Until it serves, no client has spoken, and all is kept; from then on a line is kept up to
where a quotation can begin, and one that it does not begin in its own way is not kept.
"""

import fcntl
import os
import re
import struct
import tempfile
import termios
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

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
    _redirect(writer)
    os.close(writer)
    threading.Thread(target=_pass_on, args=(reader, log), name="log", daemon=True).start()


@contextmanager
def set_aside() -> Iterator[None]:
    """What is said meanwhile waits in memory and is passed on at the end. Around calls that
    keep Python's lock: the thread that passes on cannot run then, and llama.cpp, once the
    pipe is full, would wait for it forever. Only after `clean`."""
    writer = os.dup(2)
    with _memory() as held:
        _redirect(held)
        try:
            _until_read(writer)  # a line may have been under way
            yield
        finally:
            _redirect(writer)
            at = 0
            while data := os.pread(held, _MOST_BYTES, at):
                at += len(data)
                while data:
                    data = data[os.write(writer, data) :]
            os.close(writer)


@contextmanager
def _memory() -> Iterator[int]:
    if hasattr(os, "memfd_create"):
        held = os.memfd_create("log")
        try:
            fcntl.fcntl(held, fcntl.F_SETFL, os.O_APPEND)
            yield held
        finally:
            os.close(held)
    else:
        with tempfile.TemporaryFile("ab+", buffering=0) as file:
            yield file.fileno()


def _redirect(target: int) -> None:
    for stream in (1, 2):
        os.dup2(target, stream)


def _until_read(pipe: int) -> None:
    """Returns when it has been empty for a moment."""
    empty = 0
    while empty < 3:
        time.sleep(0.002)
        (waiting,) = struct.unpack("i", fcntl.ioctl(pipe, termios.FIONREAD, bytes(4)))
        empty = 0 if waiting else empty + 1


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
