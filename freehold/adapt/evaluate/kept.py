"""Answers on the disk as they come, so that an evaluation that was cut off goes on where it
was. Its folder is for its owner only."""

import errno
import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any

from freehold.adapt.evaluate.example import Answer, Call
from freehold.config.home import write_private
from freehold.core.errors import Code, UserError


class Kept:
    def __init__(self, folder: Path, file: IO[bytes], answers: dict[str, Answer]) -> None:
        self._folder, self._file = folder, file
        self.answers = answers

    def add(self, key: str, answer: Answer) -> None:
        """On the disk before it is counted. Raises `UserError(DISK_FULL)`."""
        line = json.dumps({"key": key, "answer": asdict(answer)}, ensure_ascii=True).encode()
        with _told(self._folder):
            self._file.write(line + b"\n")
            self._file.flush()
        self.answers[key] = answer

    def end(self, result: dict[str, Any]) -> None:
        """From here on there is nothing to go on with: the next one asks anew."""
        with _told(self._folder):
            write_private(self._folder / "result.json", json.dumps(result).encode())
            (self._folder / "answers.jsonl").unlink()


@contextmanager
def kept(folder: Path, *, anew: bool = False) -> Iterator[Kept]:
    """For one evaluation at a time. What the last line lacks, as the machine stopped in it, is
    asked again."""
    with _told(folder):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle = os.open(
            folder / "answers.jsonl", os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600
        )
    with os.fdopen(handle, "r+b") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(
                Code.CONFLICT,
                "The same evaluation runs already: wait for it, or end it with Ctrl-C there.",
            ) from None
        if anew:
            file.truncate(0)
        answers, whole = _read(file)
        file.truncate(whole)
        yield Kept(folder, file, answers)


def _read(file: IO[bytes]) -> tuple[dict[str, Answer], int]:
    """With how many bytes of it are whole lines."""
    found: dict[str, Answer] = {}
    whole = 0
    for line in file:
        if not line.endswith(b"\n"):
            break
        try:
            told = json.loads(line)
            given = told["answer"]
            answer = Answer(**{**given, "calls": tuple(Call(**call) for call in given["calls"])})
            if answer.error is None:  # else it is asked again
                found[told["key"]] = answer
        except (ValueError, KeyError, TypeError):
            break
        whole += len(line)
    return found, whole


@contextmanager
def _told(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise UserError(
                Code.DISK_FULL,
                f"The disk of {folder} is full: make room, and give the same command; it goes on "
                "where it was.",
            ) from None
        raise UserError(
            Code.FILE_INVALID, f"{folder} cannot be written ({error.strerror}): make it yours."
        ) from None
