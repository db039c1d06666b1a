"""The adapters that vLLM answers under: each is a folder with the digest's name.

A digest stands for the same two files for ever, so a name is never given to other
weights: vLLM finds kept prefixes by an adapter's name and path.
"""

import asyncio
import hashlib
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from freehold.core.adapter import CONFIG, WEIGHTS
from freehold.core.ids import digest_of_files, is_digest


class Holder(Protocol):
    """What vLLM does with adapters."""

    async def load(self, digest: str, folder: Path) -> bool:
        """False if vLLM cannot read it."""
        ...

    async def remove(self, digest: str) -> None: ...


class Shelf:
    """At most `most` adapters are held; each is read once, because vLLM would read one that
    it had put away again, later, and unchecked."""

    def __init__(self, holder: Holder, folder: Path, most: int) -> None:
        self._holder = holder
        self._folder = folder
        self._most = most
        self._held: set[str] = set()
        self._leaving: set[str] = set()  # for no new request
        self._users: Counter[str] = Counter()
        self._changing = asyncio.Lock()

    def __contains__(self, digest: object) -> bool:
        return digest in self._held

    @contextmanager
    def used(self, digest: str | None) -> Iterator[None]:
        """Keeps the adapter with the engine until the request has ended."""
        if digest is None:
            yield
            return
        self._users[digest] += 1
        try:
            yield
        finally:
            self._users[digest] -= 1

    async def change(self, add: list[Mapping[str, str]], drop: list[str]) -> dict[str, str]:
        """Returns the refused ones with the reason."""
        refused = {}
        async with self._changing:
            dropped = self._held.intersection(drop)
            self._held -= dropped
            self._leaving |= dropped
            await self._let_go()
            for told in add:
                reason = await self._add(told)
                if reason is not None:
                    refused[told["digest"]] = reason
        return refused

    async def _add(self, told: Mapping[str, str]) -> str | None:
        digest = told["digest"]
        if digest not in self._held | self._leaving:
            if len(self._held) + len(self._leaving) >= self._most:
                return f"the engine holds {self._most} adapters already, its max_adapters"
            folder = self._folder_of(digest)
            reason = await asyncio.to_thread(_place, told, folder)
            if reason is not None:
                return reason
            if not await self._holder.load(digest, folder):
                shutil.rmtree(folder, ignore_errors=True)
                return "vLLM cannot load it"
        self._leaving.discard(digest)
        self._held.add(digest)
        return None

    async def _let_go(self) -> None:
        """Those that no request uses any more; the others at a later change."""
        for digest in [each for each in self._leaving if not self._users[each]]:
            await self._holder.remove(digest)
            shutil.rmtree(self._folder_of(digest), ignore_errors=True)
            self._leaving.discard(digest)
            del self._users[digest]

    def _folder_of(self, digest: str) -> Path:
        return self._folder / digest.removeprefix("sha256:")


def _place(told: Mapping[str, str], folder: Path) -> str | None:
    """Links the two files under the names that PEFT gives them; a reason, if they are not
    the ones that the digest stands for."""
    if not is_digest(told["digest"]):
        return "its name is no digest"
    paths = {CONFIG: Path(told["config"]), WEIGHTS: Path(told["weights"])}
    found = {}
    try:
        for name, path in paths.items():
            with path.open("rb") as file:
                found[name] = "sha256:" + hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return "its files cannot be read"
    if digest_of_files(found) != told["digest"]:
        return "its files were changed"
    folder.mkdir(parents=True, exist_ok=True)
    for name, path in paths.items():
        (folder / name).unlink(missing_ok=True)
        (folder / name).symlink_to(path.resolve())
    return None
