"""Fixed-size blocks of the KV cache: who holds which, and which can be found again.

A block that is full and computed may be registered under its key, a hash over all
that its contents depend on: the salt, the adapter, and every token up to its end. Two
salts or two adapters therefore never share a block, whatever their tokens. Registered
blocks stay findable when nobody holds them any more, until they are needed for others.
"""

import struct
from collections import Counter, OrderedDict
from collections.abc import Iterable
from hashlib import sha256

from freehold.core.errors import Fault


class Chain:
    """The keys of the full blocks of one sequence's tokens, each over the one before.

    The root names salt and adapter, each with its length before it, so that no text of
    one can be read as the other. Keys are made once: the tokens given may only grow.
    """

    __slots__ = ("_keys", "_last", "_pack", "_size")

    def __init__(self, salt: str, adapter: str | None, block_size: int) -> None:
        names = [salt] if adapter is None else [salt, adapter]
        root = sha256(b"freehold kv root\0" + bytes([len(names)]))
        for name in names:
            text = name.encode("utf-8", "surrogatepass")
            root.update(struct.pack("<Q", len(text)) + text)
        self._last = root.digest()
        self._keys: list[bytes] = []
        self._size = block_size
        self._pack = struct.Struct(f"<{block_size}I").pack

    def keys(self, tokens: list[int], count: int) -> list[bytes]:
        """Those of the first `count` blocks, all of which must be full."""
        for index in range(len(self._keys), count):
            packed = self._pack(*tokens[index * self._size : (index + 1) * self._size])
            self._last = sha256(b"freehold kv block\0" + self._last + packed).digest()
            self._keys.append(self._last)
        return self._keys[:count]

    def key(self, tokens: list[int], index: int) -> bytes:
        """That of one full block."""
        if index >= len(self._keys):
            self.keys(tokens, index + 1)
        return self._keys[index]


class BlockPool:
    """`count` blocks of `block_size` tokens. A block is held by one table or, when its
    contents were found by key, by several; it is free when no table holds it."""

    def __init__(self, count: int, block_size: int = 32) -> None:
        self.count = count
        self.block_size = block_size
        self._holders = [0] * count
        self._blank = list(reversed(range(count)))  # free, and nothing of worth in them
        self._idle: OrderedDict[int, None] = OrderedDict()  # free but findable, oldest first
        self._found: dict[bytes, int] = {}
        self._keys: dict[int, bytes] = {}

    @property
    def available(self) -> int:
        """Blocks that can be given out, those that can still be found included."""
        return len(self._blank) + len(self._idle)

    def blocks_for(self, tokens: int) -> int:
        return -(-tokens // self.block_size)

    def chain(self, salt: str, adapter: str | None) -> Chain | None:
        """None for an empty salt: such a sequence neither finds nor leaves anything."""
        return Chain(salt, adapter, self.block_size) if salt else None

    def find(self, keys: Iterable[bytes]) -> list[int]:
        """The blocks of the longest run of keys from the first that are all here. They are
        not held yet, so `take` them before anything else is allocated."""
        blocks = []
        for key in keys:
            block = self._found.get(key)
            if block is None:
                break
            blocks.append(block)
        return blocks

    def take(self, found: list[int], fresh: int, spare: int = 0) -> list[int] | None:
        """A table of the blocks `found` and as many `fresh` ones after them; None, and
        nothing taken, when fewer than `spare` blocks would stay available."""
        revived = sum(not self._holders[block] for block in found)
        if self.available - revived - fresh < spare:
            return None
        for block in found:
            if not self._holders[block]:
                del self._idle[block]
            self._holders[block] += 1
        return found + [self.allocate() for _ in range(fresh)]

    def allocate(self) -> int:
        """A block for one holder, which must write it before it reads it."""
        if self._blank:
            block = self._blank.pop()
        elif self._idle:
            block, _ = self._idle.popitem(last=False)
            del self._found[self._keys.pop(block)]
        else:
            raise Fault("a KV block was asked for and none is available")
        self._holders[block] = 1
        return block

    def register(self, block: int, key: bytes) -> None:
        """Makes a held, full and computed block findable. Of two blocks with the same
        contents the first stays the one that is found."""
        if key not in self._found and block not in self._keys:
            self._found[key] = block
            self._keys[block] = key

    def free(self, table: list[int]) -> None:
        """Gives up one table's hold. Its end is reused first: a beginning is worth more,
        and nothing after a lost block can be found."""
        for block in reversed(table):
            self._holders[block] -= 1
            if self._holders[block] == 0:
                if block in self._keys:
                    self._idle[block] = None
                else:
                    self._blank.append(block)

    def check(self, tables: Iterable[list[int]]) -> None:
        """Raises `Fault` unless `tables` are exactly what is held and no block is lost."""
        held = Counter(block for table in tables for block in table)
        free = Counter([*self._blank, *self._idle])
        if any(held[block] != holders for block, holders in enumerate(self._holders)):
            raise Fault("KV blocks are held by other tables than those that exist")
        if set(held) & set(free) or set(held) | set(free) != set(range(self.count)):
            raise Fault("a KV block is lost, or both free and held")
        if max(free.values(), default=1) != 1:
            raise Fault("a KV block is free twice")
        if {block: key for key, block in self._found.items()} != self._keys:
            raise Fault("the KV cache's keys and blocks do not match")
        if set(self._keys) & set(free) != set(self._idle):
            raise Fault("a findable KV block would be reused without being forgotten")
