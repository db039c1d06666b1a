"""Typed identifiers: a prefix and a ULID, such as `req_01J…`."""

import hashlib
import os
import re
import time
from collections.abc import Mapping

_CROCKFORD = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_PAIRS = [a + b for a in _CROCKFORD for b in _CROCKFORD]
_ANSWER = re.compile(r"(?:chatcmpl-|cmpl-|resp_)([0-9A-Z]{26})\Z")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}\Z")


def new_id(prefix: str) -> str:
    """`prefix` and 26 characters: 48 bits of milliseconds, then 80 random bits."""
    return _written(prefix, _number())


class RisingIds:
    """Each comes after the one before, also within a millisecond and when the clock was set
    back. For one thread at a time."""

    def __init__(self) -> None:
        self._last = 0

    def new(self, prefix: str) -> str:
        self._last = max(self._last + 1, _number())
        return _written(prefix, self._last)


def _number() -> int:
    return (time.time_ns() // 1_000_000 << 80) | int.from_bytes(os.urandom(10))


def _written(prefix: str, number: int) -> str:
    pairs = [_PAIRS[(number >> shift) & 1023] for shift in range(120, -1, -10)]
    return f"{prefix}_{''.join(pairs)}"


def request_of(answer_id: str) -> str:
    """The id of the request behind an answer's `id`, such as `chatcmpl-01J…`; that of a request
    itself, and what is neither, as it is."""
    found = _ANSWER.match(answer_id)
    return f"req_{found[1]}" if found else answer_id


def is_digest(text: str) -> bool:
    """Whether `text` is `sha256:` and 64 lower-case hex digits."""
    return _DIGEST.match(text) is not None


def digest_of_files(files: Mapping[str, str]) -> str:
    """The digest of several files as one, from name to each one's own digest: the
    SHA-256 of the lines `name digest`, sorted, each ended by a newline."""
    lines = "".join(f"{name} {files[name]}\n" for name in sorted(files))
    return f"sha256:{hashlib.sha256(lines.encode()).hexdigest()}"
