"""A decoder of the Llama family as an OpenVINO graph with adapter sites.

It is built in the form that the runtime knows (scaled dot product attention over a
growing state), and the runtime's own pass turns that into paged attention. Sites are
part of the graph, so that adapters are inputs: `A.<layer>.<site>` [slots, inputs,
linears x rank] and `B.<layer>.<linear>` [slots, rank, outputs], swapped without
compiling again. Rows of the batch are gathered by slot (`lora_rows` [slots, longest])
and results gathered back (`lora_back` [tokens]); a slot's product reads that slot's
rows and factors only, so that no tenant's numbers, infinities included, reach another.
Without `factor_type` the graph has no sites.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import openvino as ov
from openvino import Model, PartialShape, Type
from openvino import opset15 as op
from openvino._offline_transformations import paged_attention_transformation
from openvino.op.util import Variable, VariableInfo

from freehold.engines.openvino.quantize import Matrix
from freehold.engines.openvino.shape import SITES, Shape

_MASKED = -65504.0


class Graph:
    """`matrices` holds each site's fused linears by `<layer>.<site>`, `embed_tokens`,
    and `lm_head` unless tied; `vectors` norms and biases by checkpoint names, biases
    under their site (`<layer>.qkv.bias`)."""

    def __init__(
        self,
        shape: Shape,
        matrices: Mapping[str, Matrix],
        vectors: Mapping[str, np.ndarray[Any, Any]],
        inverse_frequencies: np.ndarray[Any, Any],
        factor_type: Type | None,
    ) -> None:
        self._shape = shape
        self._matrices = matrices
        self._vectors = vectors
        self._inverse_frequencies = inverse_frequencies
        self._factor_type = factor_type
        self._inputs: list[Any] = []
        self._states: list[Any] = []

    def build(self) -> Model:
        """Inputs of the paged model: `input_ids` and `position_ids` [tokens], `last`
        (the rows whose logits are wanted), `past_lens`, `subsequence_begins`,
        `block_indices`, `block_indices_begins`, `max_context_len`, the caches, and the
        adapters'. Output: logits [wanted rows, 1, vocabulary]."""
        ids = self._input("input_ids", [-1, -1], Type.i64)
        mask = self._input("attention_mask", [-1, -1], Type.i64)
        positions = self._input("position_ids", [-1, -1], Type.i64)
        beams = self._input("beam_idx", [-1], Type.i32)
        last = self._input("last", [-1], Type.i32)
        if self._factor_type is not None:
            self._rows = self._input("lora_rows", [-1, -1], Type.i32)
            self._back = self._input("lora_back", [-1], Type.i32)
        embedding = _dense(self._matrices["embed_tokens"])
        hidden = op.gather(embedding, op.convert(ids, "i32"), _ints(0, np.int32))
        self._begin_attention(ids, mask, positions, beams)
        for layer in range(self._shape.layers):
            hidden = op.add(hidden, self._attention(layer, hidden))
            hidden = op.add(hidden, self._feed_forward(layer, hidden))
        hidden = self._norm(op.gather(hidden, last, _ints(0)), "norm.weight")
        head = embedding if self._shape.tied else _dense(self._matrices["lm_head"])
        logits = op.result(op.matmul(hidden, head, False, True))
        logits.output(0).set_names({"logits"})
        model = Model([logits], self._states, self._inputs, "decoder")
        paged_attention_transformation(model)
        return model

    def _input(self, name: str, shape: Sequence[int], kind: Type) -> Any:
        made = op.parameter(PartialShape(list(shape)), kind, name=name)
        made.output(0).set_names({name})
        self._inputs.append(made)
        return made

    # attention

    def _begin_attention(self, ids: Any, mask: Any, positions: Any, beams: Any) -> None:
        """What all layers share: angles, mask, the batch's size."""
        frequencies = op.constant(self._inverse_frequencies.reshape(1, -1, 1))
        columns = op.unsqueeze(op.convert(positions, "f32"), _ints(1))
        half = op.transpose(op.matmul(frequencies, columns, False, False), _ints([0, 2, 1]))
        angles = op.concat([half, half], -1)
        self._cos = op.unsqueeze(op.cos(angles), _ints(1))
        self._sin = op.unsqueeze(op.sin(angles), _ints(1))
        seen = op.subtract(_float(1), op.convert(mask, "f32"))
        self._mask = op.unsqueeze(
            op.unsqueeze(op.multiply(seen, _float(_MASKED)), _ints(1)), _ints(1)
        )
        self._beams = beams
        self._batch = op.gather(op.shape_of(ids, "i64"), _ints([0]), _ints(0))

    def _attention(self, layer: int, hidden: Any) -> Any:
        shape = self._shape
        q_size, kv_size = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
        normed = self._norm(hidden, f"layers.{layer}.input_layernorm.weight")
        q, k, v = op.variadic_split(
            self._site(layer, "qkv", normed), _ints(2), _ints([q_size, kv_size, kv_size])
        ).outputs()
        q = self._turned(self._by_head(q, shape.heads, layer, "q_norm"))
        k = self._turned(self._by_head(k, shape.kv_heads, layer, "k_norm"))
        v = self._by_head(v, shape.kv_heads)
        keys, values = self._remembered(layer, "key", k), self._remembered(layer, "value", v)
        seen = op.scaled_dot_product_attention(q, keys, values, self._mask, causal=False)
        merged = op.reshape(op.transpose(seen, _ints([0, 2, 1, 3])), _ints([0, 0, q_size]), True)
        return self._site(layer, "o", merged)

    def _by_head(self, rows: Any, heads: int, layer: int = 0, norm: str = "") -> Any:
        split = op.reshape(rows, _ints([0, 0, heads, self._shape.head_dim]), True)
        if norm and self._shape.qk_norm:
            split = self._norm(split, f"layers.{layer}.self_attn.{norm}.weight")
        return op.transpose(split, _ints([0, 2, 1, 3]))

    def _turned(self, heads: Any) -> Any:
        """The rotary embedding, in halves."""
        half = self._shape.head_dim // 2
        step, axis = _ints([1]), _ints([3])
        low = op.slice(heads, _ints([0]), _ints([half]), step, axis)
        high = op.slice(heads, _ints([half]), _ints([2**31 - 1]), step, axis)
        swapped = op.concat([op.multiply(high, _float(-1)), low], -1)
        return op.add(op.multiply(heads, self._cos), op.multiply(swapped, self._sin))

    def _remembered(self, layer: int, kind: str, new: Any) -> Any:
        """All keys or values so far, repeated for the query heads that share them: the
        pattern that the pass replaces by its paged cache."""
        shape = self._shape
        info = VariableInfo()
        info.data_shape = PartialShape([-1, shape.kv_heads, -1, shape.head_dim])
        info.data_type = Type.f32
        info.variable_id = f"past_key_values.{layer}.{kind}present.{layer}.{kind}"
        state = Variable(info)
        sizes = [self._batch, _ints([shape.kv_heads]), _ints([0]), _ints([shape.head_dim])]
        empty = op.broadcast(_float(0), op.concat(sizes, 0))
        past = op.gather(ov.op.read_value(empty, state), self._beams, _ints(0), 0)
        grown = op.concat([past, new], 2)
        self._states.append(ov.op.assign(grown, state))
        shared = shape.heads // shape.kv_heads
        if shared == 1:
            return grown
        length = op.gather(op.shape_of(grown, "i64"), _ints([2]), _ints(0))
        target = [self._batch, _ints([shape.kv_heads]), _ints([shared]), length]
        wide = op.concat([*target, _ints([shape.head_dim])], 0)
        repeated = op.broadcast(op.unsqueeze(grown, _ints(2)), wide, "BIDIRECTIONAL")
        return op.reshape(repeated, _ints([0, shape.heads, -1, shape.head_dim]), True)

    # the rest of a layer

    def _feed_forward(self, layer: int, hidden: Any) -> Any:
        normed = self._norm(hidden, f"layers.{layer}.post_attention_layernorm.weight")
        gate, up = op.split(self._site(layer, "gu", normed), _ints(2), 2).outputs()
        return self._site(layer, "down", op.multiply(op.swish(gate), up))

    def _norm(self, hidden: Any, name: str) -> Any:
        squares = op.reduce_mean(op.power(hidden, _float(2)), _ints([-1]), True)
        root = op.sqrt(op.add(squares, _float(self._shape.rms_eps)))
        weights = op.constant(self._vectors[name].astype(np.float32))
        return op.multiply(op.multiply(hidden, op.divide(_float(1), root)), weights)

    def _site(self, layer: int, site: str, hidden: Any) -> Any:
        """The fused linears of a site, and on top what each row's adapter adds."""
        name = f"{layer}.{site}"
        out = op.matmul(hidden, _dense(self._matrices[name]), False, True)
        if f"{name}.bias" in self._vectors:
            out = op.add(out, op.constant(self._vectors[f"{name}.bias"].astype(np.float32)))
        if self._factor_type is None:
            return out
        return op.add(out, self._adapted(layer, site, hidden))

    def _adapted(self, layer: int, site: str, hidden: Any) -> Any:
        linears = dict(SITES)[site]
        sizes = self._shape.linears()
        inputs, outputs = sizes[linears[0]][0], sum(sizes[name][1] for name in linears)
        rows = op.gather(op.reshape(hidden, _ints([-1, inputs]), False), self._rows, _ints(0))
        first = self._factor(f"A.{layer}.{site}", [-1, inputs, -1])
        low = op.matmul(rows, first, False, False)
        parts = [low] if len(linears) == 1 else op.split(low, _ints(2), len(linears)).outputs()
        added = []
        for linear, part in zip(linears, parts, strict=True):
            second = self._factor(f"B.{layer}.{linear}", [-1, -1, sizes[linear][1]])
            added.append(op.matmul(part, second, False, False))
        whole = added[0] if len(added) == 1 else op.concat(added, 2)
        return op.gather(op.reshape(whole, _ints([-1, 1, outputs]), False), self._back, _ints(0))

    def _factor(self, name: str, shape: Sequence[int]) -> Any:
        made = self._input(name, shape, self._factor_type)
        return made if self._factor_type == Type.f32 else op.convert(made, "f32")


def _dense(matrix: Matrix) -> Any:
    """In the form whose decompression the runtime moves into the product itself."""
    rows, columns = matrix.shape
    if matrix.scales is None:
        return ov.op.Constant(matrix.values, True)
    scales = ov.op.Constant(matrix.scales, True)
    if matrix.format == "int8":
        values = op.convert(ov.op.Constant(matrix.values, True), "f16")
        return op.convert(op.multiply(values, scales), "f32")
    groups = matrix.values.shape[1]
    packed = ov.Tensor(matrix.values, ov.Shape([rows, groups, columns // groups]), Type.u4)
    values = op.convert(ov.op.Constant(packed, True), "f16")
    zeros = ov.op.Constant(matrix.zeros, True)
    if zeros.get_element_type() != Type.f16:
        zeros = op.convert(zeros, "f16")
    shifted = op.multiply(op.subtract(values, zeros), scales)
    return op.convert(op.reshape(shifted, _ints([rows, columns]), False), "f32")


def _ints(values: int | Sequence[int], kind: Any = np.int64) -> Any:
    return op.constant(np.array(values, kind))


def _float(value: float) -> Any:
    return op.constant(np.array(value, np.float32))
