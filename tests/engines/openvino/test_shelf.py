"""The shelf: bounded, shared by threads, and true to whoever holds an adapter."""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path, PosixPath

import numpy as np
import pytest
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from freehold.core.engine import AdapterFiles
from freehold.core.errors import Code, UserError
from freehold.engines.openvino.adapters import Adapter, Shelf, read_adapter
from tests.engines.openvino import lora_files as lora


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> list[AdapterFiles]:
    """Six adapters of equal size."""
    folder = tmp_path_factory.mktemp("adapters")
    return [lora.write(folder, lora.settings(), lora.tensors(seed=seed)) for seed in range(6)]


@pytest.fixture(scope="module")
def size(stored: list[AdapterFiles]) -> int:
    return read_adapter(stored[0], lora.SHAPE, 16, "bf16").size_bytes


def _shelf(stored: Sequence[AdapterFiles], max_bytes: int) -> Shelf:
    shelf = Shelf(lora.SHAPE, "bf16", max_bytes, max_rank=16)
    shelf.register(stored)
    return shelf


def _code(act: Callable[[], object]) -> Code:
    with pytest.raises(UserError) as refused:
        act()
    return refused.value.code


def test_an_unknown_adapter_is_an_error_and_never_the_base(stored: list[AdapterFiles]) -> None:
    shelf = _shelf(stored[:1], 10**9)

    assert _code(lambda: shelf.get(stored[1].digest)) is Code.NOT_FOUND
    assert _code(lambda: shelf.acquire("")) is Code.NOT_FOUND
    assert shelf.resident_bytes == 0


def test_an_adapter_in_memory_is_not_read_again(tmp_path: Path) -> None:
    files = lora.write(tmp_path, lora.settings(), lora.tensors())
    shelf = _shelf([files], 10**9)
    first = shelf.get(files.digest)
    files.weights.unlink()

    assert shelf.get(files.digest) is first


def test_the_longest_unused_one_makes_room(stored: list[AdapterFiles], size: int) -> None:
    shelf = _shelf(stored, 2 * size)
    a, b, c = (files.digest for files in stored[:3])
    held = {digest: shelf.get(digest) for digest in (a, b)}
    shelf.get(a)  # now b is the longest unused
    shelf.get(c)

    assert shelf.get(a) is held[a]
    assert shelf.get(b) is not held[b]
    assert shelf.resident_bytes == 2 * size


def test_one_in_use_is_never_evicted(stored: list[AdapterFiles], size: int) -> None:
    shelf = _shelf(stored, 2 * size)
    pinned = shelf.acquire(stored[0].digest)
    for files in stored[1:]:
        shelf.get(files.digest)

    assert shelf.get(stored[0].digest) is pinned
    shelf.release(stored[0].digest)
    shelf.get(stored[1].digest)
    shelf.get(stored[2].digest)
    assert shelf.get(stored[0].digest) is not pinned


def test_while_all_are_in_use_another_one_is_asked_to_come_again(
    stored: list[AdapterFiles], size: int
) -> None:
    shelf = _shelf(stored, 2 * size)
    a, b, c = (files.digest for files in stored[:3])
    with shelf.using(a), shelf.using(b):
        with pytest.raises(UserError) as refused:
            shelf.acquire(c)
        assert refused.value.code is Code.OVERLOADED
        assert refused.value.retry_after_s is not None

    assert shelf.get(c).digest == c


def test_one_larger_than_the_shelf_is_refused(stored: list[AdapterFiles], size: int) -> None:
    shelf = _shelf(stored, size - 1)

    for asked in (shelf.get, lambda _: shelf.check(stored[0])):
        with pytest.raises(UserError, match=r"raise `engines\.openvino\.adapter_bytes`") as refused:
            asked(stored[0].digest)
        assert refused.value.code is Code.FILE_REFUSED
    assert shelf.resident_bytes == 0


def test_one_dropped_in_use_stays_until_it_is_released_and_is_gone_then(
    stored: list[AdapterFiles], size: int
) -> None:
    shelf = _shelf(stored, 10**9)
    digest = stored[0].digest
    adapter = shelf.acquire(digest)
    shelf.acquire(digest)
    shelf.drop(digest)

    assert _code(lambda: shelf.acquire(digest)) is Code.NOT_FOUND
    shelf.release(digest)
    assert shelf.resident_bytes == size
    assert adapter.factors[0, "q_proj"][0].any()
    shelf.release(digest)
    assert shelf.resident_bytes == 0


def test_one_dropped_and_told_again_is_answered_under_again(stored: list[AdapterFiles]) -> None:
    shelf = _shelf(stored, 10**9)
    digest = stored[0].digest
    with shelf.using(digest) as adapter:
        shelf.drop(digest)
        shelf.drop(digest)
        shelf.register(stored[:1])
    assert shelf.get(digest) is adapter


def test_one_dropped_while_it_is_read_is_not_given_out(stored: list[AdapterFiles]) -> None:
    shelf = _shelf([], 10**9)
    digest = stored[0].digest

    class DropsWhenOpened(PosixPath):
        def __fspath__(self) -> str:
            shelf.drop(digest)
            return super().__fspath__()

    shelf.register([replace(stored[0], config=DropsWhenOpened(stored[0].config))])

    assert _code(lambda: shelf.acquire(digest)) is Code.NOT_FOUND
    assert shelf.resident_bytes == 0


def test_a_release_too_many_is_an_error(stored: list[AdapterFiles]) -> None:
    shelf = _shelf(stored, 10**9)
    shelf.get(stored[0].digest)

    with pytest.raises(ValueError, match="more often"):
        shelf.release(stored[0].digest)


def test_a_bad_adapter_is_refused_each_time_and_takes_no_room(tmp_path: Path) -> None:
    files = lora.write(tmp_path, lora.settings(use_dora=True), lora.tensors())
    shelf = _shelf([files], 10**9)

    for _ in range(2):
        assert _code(lambda: shelf.get(files.digest)) is Code.FILE_REFUSED
    assert _code(lambda: shelf.check(files)) is Code.FILE_REFUSED
    assert shelf.resident_bytes == 0


def test_what_is_checked_is_neither_known_nor_kept(stored: list[AdapterFiles]) -> None:
    shelf = _shelf([], 10**9)
    shelf.check(stored[0])

    assert _code(lambda: shelf.get(stored[0].digest)) is Code.NOT_FOUND
    assert shelf.resident_bytes == 0


def test_a_hundred_thousand_are_told_without_reading_one(stored: list[AdapterFiles]) -> None:
    shelf = Shelf(lora.SHAPE, "bf16", 10**9, 16)
    nowhere = Path("/nowhere")
    shelf.register(AdapterFiles(f"sha256:{i:064x}", nowhere, nowhere) for i in range(100_000))
    shelf.register(stored)

    assert shelf.get(stored[5].digest).digest == stored[5].digest
    assert _code(lambda: shelf.get(f"sha256:{7:064x}")) is Code.FILE_INVALID


def _at_once(count: int, act: Callable[[], Adapter]) -> list[Adapter]:
    start = threading.Barrier(count)

    def one() -> Adapter:
        start.wait()
        return act()

    with ThreadPoolExecutor(count) as threads:
        return [each.result() for each in [threads.submit(one) for _ in range(count)]]


def test_many_who_ask_at_once_get_the_same_one(stored: list[AdapterFiles], size: int) -> None:
    for _ in range(20):
        shelf = _shelf(stored, 10**9)
        found = _at_once(8, lambda shelf=shelf: shelf.acquire(stored[0].digest))  # type: ignore[misc]
        assert len({id(each) for each in found}) == 1
        assert shelf.resident_bytes == size
        for _ in range(8):
            shelf.release(stored[0].digest)


def test_many_who_ask_at_once_for_a_bad_one_are_all_refused(tmp_path: Path) -> None:
    files = lora.write(tmp_path, lora.settings(use_dora=True), lora.tensors())
    shelf = _shelf([files], 10**9)

    codes = _at_once(8, lambda: _code(lambda: shelf.acquire(files.digest)))  # type: ignore[arg-type,return-value]

    assert codes == [Code.FILE_REFUSED] * 8


def test_threads_that_take_and_drop_at_random_always_hold_what_they_asked_for(
    stored: list[AdapterFiles], size: int
) -> None:
    shelf = _shelf(stored, 3 * size)
    sound = {
        files.digest: read_adapter(files, lora.SHAPE, 16, "bf16").factors[1, "up_proj"][1]
        for files in stored
    }

    def work(seed: int) -> int:
        chance, served = np.random.default_rng(seed), 0
        for _ in range(60):
            files = stored[chance.integers(len(stored))]
            if chance.random() < 0.1:
                shelf.drop(files.digest)
                shelf.register([files])
            try:
                with shelf.using(files.digest) as adapter:
                    found = adapter.factors[1, "up_proj"][1]
                    assert (found == sound[files.digest]).all()
                    served += 1
            except UserError as error:
                if error.code not in (Code.NOT_FOUND, Code.OVERLOADED):
                    raise
        return served

    with ThreadPoolExecutor(6) as threads:
        assert min(threads.map(work, range(6))) > 0
    assert shelf.resident_bytes <= 3 * size
    for files in stored:
        shelf.drop(files.digest)
    assert shelf.resident_bytes == 0


class ShelfOverTime(RuleBasedStateMachine):
    """Any order of calls, against a plain account of what must be so."""

    files: Sequence[AdapterFiles] = ()
    size = 0
    room = 3

    def __init__(self) -> None:
        super().__init__()
        self.shelf = Shelf(lora.SHAPE, "bf16", self.room * self.size, 16)
        self.known: set[int] = set()
        self.pins: dict[int, int] = {}
        self.recent: list[int] = []  # resident, the longest unused first
        self.seen: dict[int, Adapter] = {}

    numbers = st.integers(0, 5)

    @rule(number=numbers)
    def register(self, number: int) -> None:
        self.shelf.register([self.files[number]])
        self.known.add(number)

    @rule(number=numbers)
    def drop(self, number: int) -> None:
        self.shelf.drop(self.files[number].digest)
        self.known.discard(number)
        self._settle(number)

    @rule(number=numbers)
    def acquire(self, number: int) -> None:
        digest = self.files[number].digest
        if number not in self.known:
            assert _code(lambda: self.shelf.acquire(digest)) is Code.NOT_FOUND
        elif number not in self.recent and len(self.pins) == self.room:
            assert _code(lambda: self.shelf.acquire(digest)) is Code.OVERLOADED
        else:
            adapter = self.shelf.acquire(digest)
            assert adapter.digest == digest
            if number in self.recent:
                assert adapter is self.seen[number]
                self.recent.remove(number)
            elif len(self.recent) == self.room:
                self.recent.remove(next(each for each in self.recent if each not in self.pins))
            self.recent.append(number)
            self.seen[number] = adapter
            self.pins[number] = self.pins.get(number, 0) + 1

    @precondition(lambda self: self.pins)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        number = data.draw(st.sampled_from(sorted(self.pins)))
        self.shelf.release(self.files[number].digest)
        self.pins[number] -= 1
        if not self.pins[number]:
            del self.pins[number]
        self._settle(number)

    def _settle(self, number: int) -> None:
        if number not in self.known and number not in self.pins and number in self.recent:
            self.recent.remove(number)

    @invariant()
    def memory_is_what_is_resident(self) -> None:
        assert self.shelf.resident_bytes == len(self.recent) * self.size
        assert len(self.recent) <= self.room


def test_any_order_of_calls_keeps_the_account(stored: list[AdapterFiles], size: int) -> None:
    class Machine(ShelfOverTime):
        pass

    Machine.files, Machine.size = stored, size
    machine = Machine.TestCase
    machine.settings = hypothesis_settings(max_examples=40, stateful_step_count=30, deadline=None)
    machine().runTest()
