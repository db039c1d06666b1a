"""The llama.cpp servers of one process: one that takes what comes, and while it is being
replaced the one before.

llama.cpp reads adapters at its start only. A new adapter therefore means a new server
beside the old one, in the same process and on a socket of its own; calls that run end on
the old one, which is then closed. For that time the weights are in memory twice (but for
what both map from the file), and so is the KV cache. A dropped adapter stays loaded until
the next new server, and nobody can ask for it.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from freehold.core.engine import AdapterFiles
from freehold.core.errors import UserError
from freehold.core.gguf import read_header

if TYPE_CHECKING:
    from freehold.engines.lora_gguf import LoraFiles

Start = Callable[[str, Sequence[Path]], object]


def socket_of(first: str, number: int) -> str:
    """Where a server listens; the first one where the process was told to. llama.cpp takes
    only what ends in `.sock` for a socket."""
    return f"{first.removesuffix('.sock')}.{number}.sock" if number else first


class Servers:
    """Not safe from several threads. A server ends when nothing holds it."""

    def __init__(
        self, start: Start, socket: str, model: Path, cache: Path | None, max_bytes: int
    ) -> None:
        """`start` runs a server with these adapters loaded and none applied; it raises
        `RuntimeError` when llama.cpp does not."""
        self._start_one = start
        self._socket = socket
        self._model = model
        self._cache = cache or Path(socket).parent
        self._max_bytes = max_bytes
        self._files: LoraFiles | None = None
        self._running = {0: start(socket, ())}
        self._number = 0  # of the one that takes what comes
        self._count = 1
        self._loaded: frozenset[str] = frozenset()
        self._wanted: dict[str, Path] = {}

    def change(
        self, add: Sequence[AdapterFiles], drop: Collection[str], using: Collection[int]
    ) -> tuple[Mapping[str, str], int]:
        """The refused ones with the reason, and the number of the server that has all
        that is wanted now. Whatever neither is that one nor in `using` ends."""
        self._close_all_but({self._number, *using})
        added, refused = self._converted(add)
        if not added.keys() <= self._loaded:
            refused |= self._load(added, using)
        else:
            self._wanted |= added
        for digest in set(drop) & self._wanted.keys():
            del self._wanted[digest]
            self._lora().forget(digest)
        return refused, self._number

    def close(self) -> None:
        self._running.clear()

    def _lora(self) -> "LoraFiles":
        if self._files is None:
            from freehold.engines.lora_gguf import LoraFiles  # it takes 30 MB

            self._files = LoraFiles(self._cache / "lora", read_header(self._model))
        return self._files

    def _converted(self, add: Sequence[AdapterFiles]) -> tuple[dict[str, Path], dict[str, str]]:
        added: dict[str, Path] = {}
        refused: dict[str, str] = {}
        size = sum(path.stat().st_size for path in self._wanted.values())
        for each in [each for each in add if each.digest not in self._wanted]:
            files = self._lora()
            try:
                path = files.get(each)
            except UserError as error:
                refused[each.digest] = error.message
                continue
            size += path.stat().st_size
            if size > self._max_bytes:
                refused[each.digest] = (
                    f"all adapters together may take {self._max_bytes} bytes of memory "
                    "(`engines.llama_cpp.adapter_bytes`)"
                )
                size -= path.stat().st_size
                continue
            added[each.digest] = path
        return added, refused

    def _load(self, added: Mapping[str, Path], using: Collection[int]) -> dict[str, str]:
        """Of many that llama.cpp does not load together, only those it does not load
        alone are refused."""
        wanted = {**self._wanted, **added}
        try:
            self._replace(wanted, using)
        except RuntimeError:
            if len(added) == 1:
                return dict.fromkeys(added, "llama.cpp does not load it")
            names, half = list(added), len(added) // 2
            parts = (names[:half], names[half:])
            loads = [self._load({name: added[name] for name in part}, using) for part in parts]
            return loads[0] | loads[1]
        self._wanted = wanted
        return {}

    def _replace(self, wanted: Mapping[str, Path], using: Collection[int]) -> None:
        number, self._count = self._count, self._count + 1
        socket = socket_of(self._socket, number)
        self._running[number] = self._start_one(socket, list(wanted.values()))
        self._number, self._loaded = number, frozenset(wanted)
        self._close_all_but({number, *using})

    def _close_all_but(self, kept: Collection[int]) -> None:
        for number in self._running.keys() - set(kept):
            del self._running[number]
            Path(socket_of(self._socket, number)).unlink(missing_ok=True)
