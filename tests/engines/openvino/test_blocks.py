"""The pool of KV blocks: none is lost, none is found by those whose it is not."""

from collections.abc import Sequence
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from freehold.core.errors import Fault
from freehold.engines.openvino.blocks import BlockPool, Chain

_SIZE = 2
_Root = tuple[str, str | None]
_Contents = tuple[_Root, tuple[int, ...]]  # what a full block holds: all tokens up to its end

# Pairs that a careless root would take for one another.
_roots = st.sampled_from(
    [("", None), ("", "x"), ("s", None), ("s", "x"), ("s", ""), ("sx", None), ("sx", "")]
)
_texts = st.text(st.sampled_from(["a", "b", "\0", "\x01", "é", "\ud800"]), max_size=3)
_tokens = st.lists(st.integers(0, 1), min_size=1, max_size=9)


@dataclass
class _Table:
    root: _Root
    tokens: list[int]
    chain: Chain | None
    blocks: list[int]
    computed: int


class PoolMachine(RuleBasedStateMachine):
    """Tables come, are computed block by block, grow and go, as sequences of the engine do.

    `written` is what a block truly holds, kept apart from the pool."""

    @initialize(count=st.integers(1, 9))
    def begin(self, count: int) -> None:
        self.pool = BlockPool(count, _SIZE)
        self.tables: list[_Table] = []
        self.written: dict[int, _Contents] = {}
        self.findable: dict[_Contents, int] = {}

    def _prefix(self, table: _Table, blocks: int) -> _Contents:
        return table.root, tuple(table.tokens[: blocks * _SIZE])

    def _free(self) -> int:
        return self.pool.count - len({b for table in self.tables for b in table.blocks})

    def _given(self, block: int, table: _Table) -> None:
        """The pool gave a block out, to be written anew."""
        assert all(block not in other.blocks for other in self.tables), "held already"
        if block in self.findable.values():
            held = {b for other in self.tables for b in other.blocks} | set(table.blocks)
            kept = set(self.findable.values())
            assert set(range(self.pool.count)) - held <= kept, "a blank one was to be had"
            self.findable = {what: b for what, b in self.findable.items() if b != block}
        self.written.pop(block, None)

    @rule(root=_roots, tokens=_tokens, spare=st.integers(0, 2))
    def a_table_comes(self, root: _Root, tokens: list[int], spare: int) -> None:
        pool = self.pool
        table = _Table(root, tokens, pool.chain(*root), [], 0)
        full = (len(tokens) - 1) // _SIZE
        found = pool.find(table.chain.keys(tokens, full)) if table.chain else []
        run = 0
        while root[0] and run < full and self._prefix(table, run + 1) in self.findable:
            run += 1
        assert len(found) == run, "exactly the longest run that is there"
        for index, block in enumerate(found):
            assert self.written[block] == self._prefix(table, index + 1)
        fresh = pool.blocks_for(len(tokens)) - run
        held = {b for other in self.tables for b in other.blocks}
        fits = self._free() - len(set(found) - held) - fresh >= spare
        blocks = pool.take(found, fresh, spare)
        assert (blocks is not None) == fits
        if blocks is None:
            return
        assert blocks[:run] == found
        table.blocks, table.computed = found, run * _SIZE
        for block in blocks[run:]:
            self._given(block, table)
            table.blocks = [*table.blocks, block]
        self.tables.append(table)

    @precondition(lambda self: self.tables)
    @rule(which=st.integers(0, 99), tokens=st.integers(1, 4))
    def some_of_it_is_computed(self, which: int, tokens: int) -> None:
        table = self.tables[which % len(self.tables)]
        before = table.computed // _SIZE
        table.computed = min(table.computed + tokens, len(table.tokens))
        for index in range(before, table.computed // _SIZE):
            block, contents = table.blocks[index], self._prefix(table, index + 1)
            assert [block in other.blocks for other in self.tables].count(True) == 1
            self.written[block] = contents
            if table.chain is not None:
                self.pool.register(block, table.chain.key(table.tokens, index))
                self.findable.setdefault(contents, block)

    @precondition(lambda self: self.tables)
    @rule(which=st.integers(0, 99), token=st.integers(0, 1))
    def it_grows_by_a_token(self, which: int, token: int) -> None:
        table = self.tables[which % len(self.tables)]
        if len(table.tokens) == len(table.blocks) * _SIZE:
            if not self._free():
                with pytest.raises(Fault):
                    self.pool.allocate()
                return
            block = self.pool.allocate()
            self._given(block, table)
            table.blocks.append(block)
        table.tokens.append(token)

    @precondition(lambda self: self.tables)
    @rule(which=st.integers(0, 99))
    def it_goes(self, which: int) -> None:
        table = self.tables.pop(which % len(self.tables))
        self.pool.free(table.blocks)

    @invariant()
    def every_block_is_where_it_should_be(self) -> None:
        self.pool.check(table.blocks for table in self.tables)
        assert self.pool.available == self._free()

    @invariant()
    def a_block_of_two_tables_holds_what_both_want(self) -> None:
        for table in self.tables:
            for index, block in enumerate(table.blocks):
                if any(block in other.blocks for other in self.tables if other is not table):
                    assert table.root[0], "who may not share shares nothing"
                    assert self.written[block] == self._prefix(table, index + 1)

    def teardown(self) -> None:
        for table in self.tables:
            self.pool.free(table.blocks)
        self.pool.check([])
        assert self.pool.available == self.pool.count


PoolMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestPool = PoolMachine.TestCase


@given(st.tuples(_texts, st.none() | _texts), st.tuples(_texts, st.none() | _texts))
def test_two_salts_or_two_adapters_never_have_a_key_in_common(one: _Root, other: _Root) -> None:
    keys = [Chain(*root, 2).keys([1, 2, 3, 4], 2) for root in (one, other)]
    if one == other:
        assert keys[0] == keys[1]
    else:
        assert not set(keys[0]) & set(keys[1])


@given(_tokens, _tokens)
def test_a_key_names_every_token_up_to_the_end_of_its_block(
    one: list[int], other: list[int]
) -> None:
    chains = [Chain("s", None, _SIZE) for _ in range(2)]
    for index in range(min(len(one), len(other)) // _SIZE):
        keys = [
            chain.key(tokens, index) for chain, tokens in zip(chains, (one, other), strict=True)
        ]
        end = (index + 1) * _SIZE
        assert (keys[0] == keys[1]) == (one[:end] == other[:end])


def _left(pool: BlockPool, salt: str, tokens: Sequence[int]) -> list[int]:
    """A sequence that was computed, and gone: its blocks can be found."""
    chain = pool.chain(salt, None)
    assert chain is not None
    table = pool.take([], pool.blocks_for(len(tokens)))
    assert table is not None
    for index, key in enumerate(chain.keys(list(tokens), len(tokens) // pool.block_size)):
        pool.register(table[index], key)
    pool.free(table)
    return table


def _found(pool: BlockPool, salt: str, tokens: list[int]) -> list[int]:
    return pool.find(Chain(salt, None, pool.block_size).keys(tokens, len(tokens) // _SIZE))


def test_what_was_used_longest_ago_is_forgotten_first_and_ends_before_beginnings() -> None:
    pool = BlockPool(6, _SIZE)
    first, second, third = ([n] * 4 for n in (1, 2, 3))
    for tokens in (first, second, third):
        _left(pool, "s", tokens)
    table = pool.take(_found(pool, "s", first), 0)  # used once more
    assert table is not None
    pool.free(table)
    lengths = []
    for _ in range(6):
        pool.allocate()
        lengths.append([len(_found(pool, "s", tokens)) for tokens in (first, second, third)])
    assert lengths == [[2, 1, 2], [2, 0, 2], [2, 0, 1], [2, 0, 0], [1, 0, 0], [0, 0, 0]]


def test_a_held_block_is_found_and_never_reused_while_anyone_holds_it() -> None:
    pool = BlockPool(3, _SIZE)
    _left(pool, "s", [1, 2])
    tables = [pool.take(_found(pool, "s", [1, 2]), 0) for _ in range(2)]
    assert tables[0] is not None
    assert tables[0] == tables[1]
    pool.free(tables[0])
    others = [pool.allocate(), pool.allocate()]
    assert not set(others) & set(tables[0])
    with pytest.raises(Fault):
        pool.allocate()


@pytest.mark.parametrize(
    "spoil",
    [
        lambda pool: pool._blank.pop(),
        lambda pool: pool._blank.append(pool._blank[0]),
        lambda pool: pool._blank.append(next(iter(pool._idle))),
        lambda pool: pool._idle.clear(),
        lambda pool: pool._found.clear(),
        lambda pool: pool._keys.clear(),
        lambda pool: pool._holders.__setitem__(0, 1),
        lambda pool: pool.allocate(),
    ],
)
def test_the_check_of_the_pool_sees_what_is_wrong(spoil: object) -> None:
    pool = BlockPool(4, _SIZE)
    _left(pool, "s", [1, 2, 3, 4])
    pool.check([])
    assert callable(spoil)
    spoil(pool)
    with pytest.raises(Fault):
        pool.check([])
