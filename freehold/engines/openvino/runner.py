"""The compiled graph and its paged cache: one step in, logits out."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import openvino as ov
from openvino import Type

from freehold.engines.openvino.graph import Graph
from freehold.engines.openvino.prepared import Prepared

BLOCK = 32  # tokens in a block of the cache: what the runtime's kernels are made for
# A model of so little weight spends much of a step on the many small operations of the
# adapters' sites, so it gets a second graph without them; the weights are there twice then.
_SMALL_BYTES = 512 * 1024 * 1024
_QUANTIZED_ACTIVATIONS = 32  # values that share a scale when activations go to int8


@dataclass(frozen=True, slots=True)
class Options:
    """`exact`: float32 throughout, as transformers computes; otherwise bfloat16, with
    activations in int8 where the weights are."""

    threads: int
    kv_cache: Literal["u8", "bf16", "f32"] = "u8"
    exact: bool = False
    factors: Literal["bf16", "f32"] = "bf16"


@dataclass(frozen=True, slots=True)
class Part:
    """What a step computes of one sequence: `tokens` from position `start` on, its
    blocks from the first on, the slot of its adapter, and whether its last token's
    logits are wanted."""

    tokens: Sequence[int]
    start: int
    blocks: Sequence[int]
    slot: int
    wants_logits: bool


class Runner:
    """Used by one thread at a time."""

    def __init__(self, prepared: Prepared, options: Options, cache_bytes: int) -> None:
        self.shape = prepared.shape
        kind = Type.bf16 if options.factors == "bf16" else Type.f32
        compiled = _compiled(prepared, options, kind)
        self._request = compiled.create_infer_request()
        is_small = sum(each.values.nbytes for each in prepared.matrices.values()) <= _SMALL_BYTES
        self._plain = (
            _compiled(prepared, options, None).create_infer_request() if is_small else None
        )
        caches = [port for port in compiled.inputs if "cache." in port.get_any_name()]
        per_block = sum(_block_bytes(port) for port in caches)
        self.blocks = max(1, cache_bytes // per_block)
        self.bytes_per_token = per_block / BLOCK
        self._kept = [self._give_cache(port) for port in caches]
        # The runtime keeps no memory that it was lent for four-bit constants.
        self._lent = [each.values for each in prepared.matrices.values() if each.format == "int4"]
        self._factors: dict[str, ov.Tensor] = {}  # the request does not keep their memory

    def set_factors(self, tensors: Iterable[tuple[str, ov.Tensor]]) -> None:
        """What the slots of the coming steps hold."""
        for name, tensor in tensors:
            self._request.set_tensor(name, tensor)
            self._factors[name] = tensor

    def step(
        self, parts: Sequence[Part], every_row: bool = False, is_bare: bool = False
    ) -> npt.NDArray[np.float32]:
        """[parts that want logits, vocabulary], in their order; with `every_row` of all
        tokens. Valid until the next step. `is_bare`: the factors in use change nothing."""
        inputs = self._inputs(parts, every_row)
        request = self._request
        if is_bare and self._plain is not None:
            request = self._plain
            del inputs["lora_rows"], inputs["lora_back"]
        for name, values in inputs.items():
            request.set_tensor(name, ov.Tensor(values))
        request.infer()
        logits: npt.NDArray[np.float32] = request.get_output_tensor(0).data
        return logits.reshape(-1, self.shape.vocab)

    def _inputs(
        self, parts: Sequence[Part], every_row: bool
    ) -> dict[str, npt.NDArray[np.int32] | npt.NDArray[np.int64]]:
        tokens: list[int] = []
        positions: list[int] = []
        past: list[int] = []
        blocks: list[int] = []
        last: list[int] = []
        begins, block_begins = [0], [0]
        longest = 0
        for part in parts:
            count, end = len(part.tokens), part.start + len(part.tokens)
            tokens += part.tokens
            positions += range(part.start, end)
            past.append(part.start)
            begins.append(len(tokens))
            blocks += part.blocks[: -(-end // BLOCK)]
            block_begins.append(len(blocks))
            longest = max(longest, end)
            if part.wants_logits:
                last.append(len(tokens) - 1)
            if every_row:
                last[len(last) :] = range(len(tokens) - count, len(tokens))
        rows, back = by_slot([(part.slot, len(part.tokens)) for part in parts])
        return {
            "input_ids": np.array(tokens, np.int64),
            "position_ids": np.array(positions, np.int64),
            "past_lens": np.array(past, np.int32),
            "subsequence_begins": np.array(begins, np.int32),
            "block_indices": np.array(blocks, np.int32),
            "block_indices_begins": np.array(block_begins, np.int32),
            "max_context_len": np.array(longest, np.int32),
            "last": np.array(last, np.int32),
            "lora_rows": rows,
            "lora_back": back,
        }

    def _give_cache(self, port: Any) -> Any:
        """Zeros that the system hands out page by page as they are used."""
        sizes = [self.blocks, *(d.get_length() for d in list(port.get_partial_shape())[1:])]
        kind = port.get_element_type()
        if kind == Type.bf16:
            memory: Any = np.zeros(sizes, np.uint16)
            tensor = ov.Tensor(memory, ov.Shape(sizes), kind)
        else:
            memory = np.zeros(sizes, kind.to_dtype())
            tensor = ov.Tensor(memory, shared_memory=True)
        for request in filter(None, (self._request, self._plain)):
            request.set_tensor(port.get_any_name(), tensor)
        return memory, tensor


def by_slot(
    runs: Sequence[tuple[int, int]],
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]:
    """Of (slot, tokens) runs in batch order: which token each place of [slots, longest]
    holds, and each token's place, counted through. Empty places hold a token of their
    own slot, or where there is none the first; nobody reads what comes of them."""
    slots = max(slot for slot, _ in runs) + 1
    if slots == 1:
        all_of_them = np.arange(sum(count for _, count in runs), dtype=np.int32)
        return all_of_them.reshape(1, -1), all_of_them
    filled: list[list[int]] = [[] for _ in range(slots)]
    at = 0
    for slot, count in runs:
        filled[slot] += range(at, at + count)
        at += count
    longest = max(map(len, filled))
    rows = np.zeros((slots, longest), np.int32)
    back = np.zeros(at, np.int32)
    for slot, held in enumerate(filled):
        rows[slot, : len(held)] = held
        rows[slot, len(held) :] = held[0] if held else 0
        back[held] = range(slot * longest, slot * longest + len(held))
    return rows, back


def _compiled(prepared: Prepared, options: Options, factors: Type | None) -> Any:
    graph = Graph(
        prepared.shape,
        prepared.matrices,
        prepared.vectors,
        prepared.inverse_frequencies,
        factors,
    )
    return ov.Core().compile_model(graph.build(), "CPU", _settings(options))


def _settings(options: Options) -> dict[str, Any]:
    return {
        "INFERENCE_NUM_THREADS": options.threads,
        "INFERENCE_PRECISION_HINT": "f32" if options.exact else "bf16",
        "DYNAMIC_QUANTIZATION_GROUP_SIZE": 0 if options.exact else _QUANTIZED_ACTIVATIONS,
        "KV_CACHE_PRECISION": options.kv_cache,
        "ENABLE_CPU_PINNING": False,
    }


def _block_bytes(port: Any) -> int:
    sizes = [d.get_length() for d in list(port.get_partial_shape())[1:]]
    return int(np.prod(sizes)) * int(port.get_element_type().size)
