"""What the graph reads of its slots is exactly what the step's adapters hold."""

import math
import mmap
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from openvino import opset15 as op

from freehold.engines.openvino.adapters import Adapter, read_adapter
from freehold.engines.openvino.shape import SITES, Shape
from freehold.engines.openvino.slots import Arrangement, Slots
from tests.engines.openvino import lora_files as lora

SIZES = lora.SHAPE.linears()
NAMES = {f"A.{i}.{site}" for i in (0, 1) for site, _ in SITES} | {
    f"B.{i}.{linear}" for i in (0, 1) for linear in lora.ALL
}


@pytest.fixture(scope="module")
def adapters(tmp_path_factory: pytest.TempPathFactory) -> list[Adapter]:
    """Of different ranks, and two that leave layers and linears alone."""
    folder = tmp_path_factory.mktemp("adapters")
    whole = [(rank, seed) for seed, rank in enumerate((8, 8, 8, 4, 3, 16, 8, 8, 8, 8))]
    made = [
        lora.write(folder, lora.settings(rank), lora.tensors(rank=rank, seed=seed))
        for rank, seed in whole
    ]
    for seed, linears in ((20, ["k_proj", "up_proj"]), (21, ["down_proj"])):
        content = lora.tensors(rank=5, layers=[1], linears=linears, seed=seed)
        made.append(lora.write(folder, lora.settings(5, target_modules=linears), content))
    return [read_adapter(files, lora.SHAPE, 16, "bf16") for files in made]


class Graph:
    """Stands where the graph stands: it keeps what it was given until it gets another."""

    def __init__(self, kind: Any = "bf16") -> None:
        self.slots = Slots(lora.SHAPE, kind, 4)
        self.inputs: dict[str, ov.Tensor] = {}
        self.given = 0

    def step(self, active: Sequence[Adapter | None]) -> Arrangement:
        arrangement = self.slots.arrange(active)
        self.given = len(arrangement.tensors)
        self.inputs.update(arrangement.tensors)
        return arrangement

    def read(self, name: str) -> np.ndarray[Any, Any]:
        tensor = self.inputs[name]
        kind = np.uint16 if tensor.element_type == ov.Type.bf16 else np.float32
        values = np.empty(list(tensor.shape), kind)
        flat = tensor.data.view(kind).reshape(-1)[: math.prod(tensor.shape)]
        values.reshape(-1)[:] = flat
        return values


def _naive(adapter: Adapter | None, name: str, rank: int) -> np.ndarray[Any, Any]:
    """One slot of one input, as it should be."""
    side, layer, rest = name.split(".")
    factors = adapter.factors if adapter else {}
    linears = dict(SITES)[rest] if side == "A" else (rest,)
    columns = []
    for linear in linears:
        inputs, outputs = SIZES[linear]
        size = (inputs, rank) if side == "A" else (rank, outputs)
        padded = np.zeros(size, np.uint16)
        found = factors.get((int(layer), linear))
        if found is not None:
            own = found[0] if side == "A" else found[1]
            padded[: own.shape[0], : own.shape[1]] = own
        columns.append(padded)
    return np.concatenate(columns, axis=1)


def _assert_right(graph: Graph, active: Sequence[Adapter | None], got: Arrangement) -> None:
    assert len(got.slots) == len(active)
    assert got.count == max(got.slots) + 1
    for adapter, slot in zip(active, got.slots, strict=True):
        assert graph.slots.digest(slot) == (adapter.digest if adapter else None)
    for name in NAMES:
        found = graph.read(name)
        assert found.shape[0] == got.count
        for adapter, slot in zip(active, got.slots, strict=True):
            np.testing.assert_array_equal(found[slot], _naive(adapter, name, got.rank))


_LONG = 520  # steps after which memory that is not used was given back
STEPS = st.lists(st.lists(st.integers(-1, 11), min_size=1, max_size=9), min_size=1, max_size=40)


@given(STEPS)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_after_any_steps_each_slot_holds_exactly_its_adapter(
    adapters: list[Adapter], steps: list[list[int]]
) -> None:
    graph = Graph()
    before: tuple[int, int] | None = None
    for step in steps:
        active = [adapters[number] if number >= 0 else None for number in step]
        got = graph.step(active)
        _assert_right(graph, active, got)
        assert graph.given in (0, len(NAMES))
        assert got.changed == bool(graph.given)
        assert got.is_bare == (active == [None] * len(active))
        if (got.count, got.rank) != before:
            assert got.changed
        before = got.count, got.rank


def test_the_first_step_sets_every_input_and_an_equal_one_none(adapters: list[Adapter]) -> None:
    graph = Graph()
    graph.step([adapters[0], adapters[1]])
    assert set(graph.inputs) == NAMES

    for active in ([adapters[0], adapters[1]], [adapters[1], adapters[0], adapters[1]]):
        assert not graph.step(active).changed


def test_the_base_alone_reads_one_slot_of_zeros_of_rank_one(adapters: list[Adapter]) -> None:
    graph = Graph()
    for _ in range(2):
        got = graph.step([None, None])
        assert (got.slots, got.count, got.rank) == ((0, 0), 1, 1)
        assert graph.slots.digest(0) is None
        assert not any(graph.read(name).any() for name in NAMES)
        graph.step([adapters[0]])
    assert graph.read("A.0.qkv").any()


def test_the_base_among_adapters_reads_zeros(adapters: list[Adapter]) -> None:
    graph = Graph()
    graph.step([adapters[0], adapters[5]])  # what lay in the slots before
    got = graph.step([adapters[1], None, adapters[2]])

    for name in NAMES:
        assert not graph.read(name)[got.slots[1]].any()


def test_a_slot_has_no_remains_of_the_tenant_before(adapters: list[Adapter]) -> None:
    """A full one of the highest rank first, then one of few linears in its place."""
    graph = Graph()
    for first in (adapters[5], adapters[0]):
        graph.step([first])
        part = adapters[11]
        for _ in range(8):  # until it has taken the first slot
            got = graph.step([part])
        assert got.slots == (0,)
        for name in NAMES - {"A.1.down", "B.1.down_proj"}:
            assert not graph.read(name)[0].any()
        _assert_right(graph, [part], got)


def test_ranks_are_rounded_up_to_eight_and_the_highest_counts(adapters: list[Adapter]) -> None:
    graph = Graph()
    assert graph.step([adapters[4]]).rank == 8
    assert graph.step([adapters[4], adapters[5]]).rank == 16
    assert graph.read("A.0.qkv").shape == (2, 16, 3 * 16)
    assert graph.read("B.1.up_proj").shape == (2, 16, 24)


def test_two_sets_that_alternate_settle_and_stay(adapters: list[Adapter]) -> None:
    graph = Graph()
    sets = [[adapters[0], adapters[1]], [adapters[2], adapters[6]]]
    for active in sets * 4:
        graph.step(active)
    settled = [graph.step(active).slots for active in sets]
    assert set(settled[0]).isdisjoint(settled[1])  # none takes the other's place
    for _ in range(50):
        for active, slots in zip(sets, settled, strict=True):
            assert graph.step(active).slots == slots


def test_one_that_remains_of_many_soon_has_the_first_slot(adapters: list[Adapter]) -> None:
    graph = Graph()
    many = [adapters[i] for i in (0, 1, 2, 6, 7, 8, 9)]
    graph.step(many)
    last = many[-1]
    steps = [graph.step([last]) for _ in range(4)]

    assert steps[-1].count == 1
    _assert_right(graph, [last], steps[-1])


def test_one_that_stays_keeps_its_slot_when_others_come_and_go(adapters: list[Adapter]) -> None:
    graph = Graph()
    slot = graph.step([adapters[0]]).slots[0]
    for number in (1, 2, 6, 7, 8, 9, 1, 2):
        for _ in range(3):
            assert graph.step([adapters[number], adapters[0]]).slots[1] == slot


def test_memory_follows_what_is_in_use(adapters: list[Adapter]) -> None:
    graph = Graph()
    graph.step([adapters[0]])
    small = graph.slots.size_bytes
    graph.step([adapters[i] for i in (0, 1, 2, 5, 6, 7)])
    assert graph.slots.size_bytes > small
    for _ in range(_LONG):
        got = graph.step([adapters[0]])
    assert graph.slots.size_bytes == small
    _assert_right(graph, [adapters[0]], got)
    for _ in range(_LONG):
        graph.step([None])
    assert graph.slots.size_bytes == 0


def test_memory_that_the_system_took_back_is_written_again() -> None:
    """With factors that fill pages."""
    shape = replace(lora.SHAPE, hidden=512, ffn=512, layers=1)
    slots = Slots(shape, "bf16", 8)
    many = [_filled(shape, number) for number in range(1, 8)]

    def assert_right(active: Sequence[Adapter]) -> None:
        got = slots.arrange(active)
        inputs.update(got.tensors)
        for adapter, slot in zip(active, got.slots, strict=True):
            found = inputs["A.0.gu"].data.view(np.uint16).reshape(got.count, 512, 2 * 8)[slot]
            assert set(found.flat) == {adapter.factors[0, "up_proj"][0][0, 0]}

    inputs: dict[str, ov.Tensor] = {}
    assert_right(many)
    high = slots.size_bytes
    pages = inputs["A.0.gu"].data.view(np.uint16).reshape(-1)
    for _ in range(_LONG):
        assert_right(many[:1])
    assert slots.size_bytes == high / 7
    assert not pages[-512:].any()
    for active in (many, many[::-1]):
        assert_right(active)


def _filled(shape: Shape, number: int) -> Adapter:
    factors = {
        (0, linear): (
            np.full((inputs, 8), number, np.uint16),
            np.full((8, outputs), number, np.uint16),
        )
        for linear, (inputs, outputs) in shape.linears().items()
    }
    return Adapter(f"sha256:{number}", 8, factors, 0)


def test_another_adapter_copies_none_of_those_that_are_there(adapters: list[Adapter]) -> None:
    """What the graph was given stays where it lies, whoever comes, as long as no rank grows."""
    graph = Graph()
    graph.step([adapters[0]])
    where = {name: tensor.data.ctypes.data for name, tensor in graph.inputs.items()}
    for count in range(2, 8):
        graph.step([adapters[i] for i in (0, 1, 2, 6, 7, 8, 9)[:count]])
        assert {name: t.data.ctypes.data for name, t in graph.inputs.items()} == where


def test_a_system_that_reserves_no_more_than_it_has_still_serves(
    adapters: list[Adapter], monkeypatch: pytest.MonkeyPatch
) -> None:
    given = mmap.mmap

    def strict(number: int, size_bytes: int, **options: Any) -> mmap.mmap:
        if size_bytes > limit:
            raise OSError(12, "Cannot allocate memory")
        return given(number, size_bytes, **options)

    active = [adapters[0], adapters[1], None]
    graph = Graph()
    graph.step([adapters[0]])
    limit = 4 * graph.slots.size_bytes
    monkeypatch.setattr(mmap, "mmap", strict)
    tight = Graph()
    for step in (active, active[::-1], [adapters[2], *active]):
        _assert_right(tight, step, tight.step(step))
    with pytest.raises(OSError, match="allocate"):
        tight.step([adapters[i] for i in (0, 1, 2, 6, 7)])


def test_factors_in_float32_are_as_exact(tmp_path: Path) -> None:
    content = lora.tensors()
    files = lora.write(tmp_path, lora.settings(lora_alpha=4), content)
    graph = Graph("f32")
    graph.step([read_adapter(files, lora.SHAPE, 16, "f32")])

    expected = lora.values_of(*content[lora.key(1, "up_proj", "B")]).T
    np.testing.assert_array_equal(graph.read("B.1.up_proj")[0, :4], expected)


def test_a_slot_that_the_graph_does_not_read_has_no_digest(adapters: list[Adapter]) -> None:
    graph = Graph()
    graph.step([adapters[0]])

    with pytest.raises(ValueError, match="does not read"):
        graph.slots.digest(1)


def test_the_runtime_sees_what_is_written_to_a_slot_later(adapters: list[Adapter]) -> None:
    """A request that was given the tensors once reads the memory at each inference."""
    slots = Slots(lora.SHAPE, "bf16", 4)
    factor = op.parameter([-1, 16, -1], ov.Type.bf16, name="A.0.o")
    factor.output(0).set_names({"A.0.o"})
    model = ov.Model([op.result(op.convert(factor, "f32"))], [factor], "sees")
    request = ov.Core().compile_model(model, "CPU").create_infer_request()

    def seen(active: list[Adapter]) -> Any:
        got = slots.arrange(active)
        for name, tensor in got.tensors:
            if name == "A.0.o":
                request.set_tensor(name, tensor)
        request.infer()
        return request.get_output_tensor(0).data[got.slots[0]].copy()

    for number in (0, 1, 2, 6, 0, 5, 7):
        exact = _naive(adapters[number], "A.0.o", 8 if number != 5 else 16)
        for _ in range(6):
            found = seen([adapters[number]])
        bits = found.view(np.uint32) >> 16
        np.testing.assert_array_equal(bits[:, : exact.shape[1]], exact[:, : bits.shape[1]])
