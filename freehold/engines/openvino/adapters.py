"""LoRA adapters: checked when they are read, in memory as the graph wants them, and on a
shelf that holds as many as its bytes allow."""

import threading
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from freehold.core import peft
from freehold.core.adapter import WEIGHTS
from freehold.core.engine import AdapterFiles
from freehold.core.errors import Code, UserError
from freehold.core.safetensors import Tensor, header_of
from freehold.engines.openvino.shape import Shape

Kind = Literal["bf16", "f32"]
Values = npt.NDArray[Any]  # float32, or the 16 bits of bfloat16
NUMPY: Mapping[Kind, type[np.uint16] | type[np.float32]] = {"bf16": np.uint16, "f32": np.float32}
_MOST = 3.3895313892515355e38  # the largest bfloat16


@dataclass(frozen=True, slots=True, eq=False)
class Adapter:
    """`factors` are A [inputs, rank] and B [rank, outputs] with its scale in it, by layer
    and linear, for those that the adapter changes; nobody may write to them. `rank` is
    the highest."""

    digest: str
    rank: int
    factors: Mapping[tuple[int, str], tuple[Values, Values]]
    size_bytes: int


def read_adapter(files: AdapterFiles, shape: Shape, max_rank: int, kind: Kind) -> Adapter:
    """Raises `UserError`: `FILE_INVALID`, `DIGEST_MISMATCH`, or `FILE_REFUSED` with the
    reason. What was checked is what is used: both files are read once."""
    linears = shape.linears()
    limit = peft.RankLimit(max_rank, "engines.openvino.max_rank")
    config, weights = peft.load(files.config, files.weights, linears, shape.layers, limit)
    if peft.digest_of(config, weights) != files.digest:
        raise UserError(
            Code.DIGEST_MISMATCH, "This adapter was changed on the disk: add the adapter again."
        )
    tensors = header_of(weights, WEIGHTS)
    lora = peft.check(config, tensors, linears, shape.layers, limit)
    return _packed(files.digest, lora, weights, kind)


def _packed(digest: str, lora: peft.Lora, weights: bytes, kind: Kind) -> Adapter:
    """All factors in one piece of memory, which is freed as one."""
    sizes = [each.rank * (each.a.shape[1] + each.b.shape[0]) for each in lora.factors]
    memory: Values = np.empty(sum(sizes), NUMPY[kind])
    found: dict[tuple[int, str], tuple[Values, Values]] = {}
    at = 0
    for each in lora.factors:
        inputs, outputs = each.a.shape[1], each.b.shape[0]
        a = memory[at : at + inputs * each.rank].reshape(inputs, each.rank)
        at += a.size
        b = memory[at : at + each.rank * outputs].reshape(each.rank, outputs)
        at += b.size
        _fill(a, each.a, weights, 1.0)
        _fill(b, each.b, weights, each.scale)
        a.flags.writeable = b.flags.writeable = False
        found[each.layer, each.linear] = a, b
    return Adapter(digest, lora.rank, found, memory.nbytes)


def _fill(into: Values, tensor: Tensor, weights: bytes, scale: float) -> None:
    """The tensor turned over, times `scale`. Raises `FILE_REFUSED` for a value that is
    not finite, or would not be."""
    values = _float32(tensor, weights)
    largest = np.maximum(values.max(), -values.min())
    if not float(largest) * scale <= _MOST:  # also when it is no number
        raise peft.refused(f"{tensor.name} holds a value that is not finite")
    if scale != 1.0:
        values = values * np.float32(scale)
    into[:] = (values if into.dtype == np.float32 else bfloat16(values)).T


def _float32(tensor: Tensor, weights: bytes) -> npt.NDArray[np.float32]:
    numbers = np.frombuffer(
        weights,
        dtype={"F32": "<f4", "F16": "<f2", "BF16": "<u2"}[tensor.dtype],
        count=tensor.shape[0] * tensor.shape[1],
        offset=tensor.begin,
    ).reshape(tensor.shape)
    if tensor.dtype == "BF16":
        return (numbers.astype(np.uint32) << 16).view(np.float32)
    with np.errstate(invalid="ignore"):  # signalling NaNs; they are refused afterwards
        return numbers.astype(np.float32)


def bfloat16(values: npt.NDArray[np.float32]) -> npt.NDArray[np.uint16]:
    """The nearest bfloat16 of each finite value, of two equally near ones the even."""
    bits = values.view(np.uint32)
    nearest = bits >> 16
    nearest &= 1
    nearest += 0x7FFF
    nearest += bits
    return nearest.view(np.uint16)[..., 1::2]  # the upper halves


@dataclass(slots=True)
class _Held:
    adapter: Adapter
    pins: int = 0


class Shelf:
    """All adapters that the process was told of; the ones lately used are in memory.

    Safe from any thread. Loading happens in the thread that asks, once for all that ask
    at the same time; others are not kept waiting meanwhile.
    """

    def __init__(self, shape: Shape, kind: Kind, max_bytes: int, max_rank: int) -> None:
        self._shape, self._kind = shape, kind
        self._max_bytes, self._max_rank = max_bytes, max_rank
        self._lock = threading.Lock()
        self._files: dict[str, AdapterFiles] = {}
        self._held: OrderedDict[str, _Held] = OrderedDict()  # the longest unused first
        self._loading: dict[str, Future[None]] = {}
        self._bytes = 0

    @property
    def resident_bytes(self) -> int:
        return self._bytes

    def register(self, files: Iterable[AdapterFiles]) -> None:
        """Nothing is read yet. May be repeated."""
        with self._lock:
            self._files.update((each.digest, each) for each in files)

    def drop(self, digest: str) -> None:
        """From now on unknown. Whoever has acquired it may use it up."""
        with self._lock:
            self._files.pop(digest, None)
            self._forget_unless_needed(digest)

    def check(self, files: AdapterFiles) -> None:
        """Raises what `acquire` would raise every time. Nothing is registered or kept."""
        found = read_adapter(files, self._shape, self._max_rank, self._kind)
        self._check_size(found.size_bytes)

    def acquire(self, digest: str) -> Adapter:
        """Kept in memory until as many calls of `release`. Raises `NOT_FOUND` for one that
        is not registered, `OVERLOADED` while those in use leave no room, and what
        `read_adapter` raises."""
        while True:
            with self._lock:
                files = self._known(digest)
                held = self._held.get(digest)
                if held is not None:
                    held.pins += 1
                    self._held.move_to_end(digest)
                    return held.adapter
                loading = self._loading.get(digest)
                if loading is None:
                    ours = self._loading[digest] = Future()
                    break
            loading.result()  # raises what the load raised; else it is there now
        return self._load(files, ours)

    def release(self, digest: str) -> None:
        with self._lock:
            held = self._held[digest]
            if held.pins < 1:
                raise ValueError("released more often than acquired")
            held.pins -= 1
            self._forget_unless_needed(digest)

    @contextmanager
    def using(self, digest: str) -> Iterator[Adapter]:
        adapter = self.acquire(digest)
        try:
            yield adapter
        finally:
            self.release(digest)

    def get(self, digest: str) -> Adapter:
        """Like `acquire`, without keeping it in memory."""
        with self.using(digest) as adapter:
            return adapter

    def _known(self, digest: str) -> AdapterFiles:
        files = self._files.get(digest)
        if files is None:
            raise UserError(
                Code.NOT_FOUND, "The engine was not told of this adapter: add the adapter first."
            )
        return files

    def _load(self, files: AdapterFiles, ours: Future[None]) -> Adapter:
        try:
            adapter = read_adapter(files, self._shape, self._max_rank, self._kind)
            with self._lock:
                self._known(files.digest)  # it may have been dropped meanwhile
                self._make_room(adapter.size_bytes)
                self._check_room(adapter.size_bytes)
                self._held[files.digest] = _Held(adapter, 1)
                self._bytes += adapter.size_bytes
        except BaseException as error:
            self._end_loading(files.digest)
            ours.set_exception(error)
            raise
        self._end_loading(files.digest)
        ours.set_result(None)
        return adapter

    def _end_loading(self, digest: str) -> None:
        with self._lock:
            del self._loading[digest]

    def _make_room(self, size_bytes: int) -> None:
        for digest in [each for each, held in self._held.items() if not held.pins]:
            if self._bytes + size_bytes <= self._max_bytes:
                return
            self._bytes -= self._held.pop(digest).adapter.size_bytes

    def _check_size(self, size_bytes: int) -> None:
        if size_bytes > self._max_bytes:
            raise peft.refused(
                f"it takes {size_bytes} bytes of memory and all adapters together may take "
                f"{self._max_bytes}",
                "raise `engines.openvino.adapter_bytes`",
            )

    def _check_room(self, size_bytes: int) -> None:
        self._check_size(size_bytes)
        if self._bytes + size_bytes > self._max_bytes:
            raise UserError(
                Code.OVERLOADED,
                "The adapters in use leave no memory for another one: try again.",
                retry_after_s=1,
            )

    def _forget_unless_needed(self, digest: str) -> None:
        held = self._held.get(digest)
        if held is not None and not held.pins and digest not in self._files:
            self._bytes -= self._held.pop(digest).adapter.size_bytes
