"""A decoder of the Llama family with a LoRA adapter, as it is trained: from the ids of some
rows to the log-probabilities of those that are learned."""

from collections.abc import Sequence

import torch
from torch import Tensor

from freehold.adapt.training.adapter import Adapter
from freehold.adapt.training.base import Base
from freehold.adapt.training.batches import Part
from freehold.adapt.training.rows import Row
from freehold.adapt.training.sites import Norm, Site, TokenLogprobs, Turn, attend


class Decoder:
    """What all rows of a part begin with is computed once, in front of the rows; their
    gradients meet there, so that the result is that of each row by itself."""

    def __init__(self, base: Base, adapter: Adapter) -> None:
        self._base = base
        self._adapter = adapter
        self._on = base.embedding.device

    def logprobs(
        self, rows: Sequence[Row], part: Part, *, adapted: bool = True, learns: bool = False
    ) -> tuple[Tensor, Tensor]:
        """Of all learned ids of the part's rows, and to which of its rows each belongs.
        `adapted`: not the bare base's. `learns`: a way back is kept."""
        chosen = [rows[number] for number in part.rows]
        width = part.longest - part.shared
        ids = list(chosen[0].ids[: part.shared])
        for row in chosen:
            own = row.ids[part.shared :]
            ids += [*own, *[0] * (width - len(own))]
        places = [
            part.shared + at * width + place - 1 - part.shared
            for at, row in enumerate(chosen)
            for place in row.targets
        ]
        targets = [row.ids[place] for row in chosen for place in row.targets]
        whose = [at for at, row in enumerate(chosen) for _ in row.targets]
        with torch.set_grad_enabled(learns):
            hidden = self._hidden(self._ids(ids), part, adapted)[self._ids(places)]
            normed = self._norm(hidden, "norm.weight")
            found: Tensor = TokenLogprobs.apply(normed, self._base.head, self._ids(targets), learns)
        return found, self._ids(whose)

    def _ids(self, numbers: Sequence[int]) -> Tensor:
        return torch.tensor(numbers, dtype=torch.int64, device=self._on)

    def _hidden(self, ids: Tensor, part: Part, adapted: bool) -> Tensor:
        shape = self._base.shape
        cos, sin = self._angles(part)
        hidden = self._base.embedding[ids]
        for layer in range(shape.layers):
            name = f"layers.{layer}"
            normed = self._norm(hidden, f"{name}.input_layernorm.weight")
            seen = self._attention(layer, self._site(layer, "qkv", normed, adapted), part, cos, sin)
            hidden = hidden + self._site(layer, "o", seen, adapted)
            normed = self._norm(hidden, f"{name}.post_attention_layernorm.weight")
            both = self._site(layer, "gu", normed, adapted)
            hidden = hidden + self._site(layer, "down", both, adapted)
        return hidden

    def _angles(self, part: Part) -> tuple[Tensor, Tensor]:
        first = torch.arange(part.shared, device=self._on)
        rest = torch.arange(part.shared, part.longest, device=self._on)
        places = torch.cat([first, rest.repeat(len(part.rows))])
        angles = places[:, None, None] * self._base.inverse_frequencies
        return angles.cos().to(self._base.embedding), angles.sin().to(self._base.embedding)

    def _site(self, layer: int, site: str, x: Tensor, adapted: bool) -> Tensor:
        base, name = self._base, f"{layer}.{site}"
        own = self._adapter.sites.get((layer, site)) if adapted else None
        factors = (own.slices, own.a, *own.bs) if own else ((), None)
        found: Tensor = Site.apply(
            x,
            site == "down",
            base.matrices[name],
            base.vectors.get(f"{name}.bias"),
            self._adapter.scale,
            *factors,
        )
        return found

    def _norm(self, hidden: Tensor, name: str) -> Tensor:
        found: Tensor = Norm.apply(hidden, self._base.vectors[name], self._base.shape.rms_eps)
        return found

    def _attention(self, layer: int, mixed: Tensor, part: Part, cos: Tensor, sin: Tensor) -> Tensor:
        shape = self._base.shape
        heads, kv, size = shape.heads, shape.kv_heads, shape.head_dim
        split = mixed.view(len(mixed), heads + 2 * kv, size)
        turned = split[:, : heads + kv]
        if shape.qk_norm:
            turned = torch.cat(
                [
                    self._norm(turned[:, :heads], f"layers.{layer}.self_attn.q_norm.weight"),
                    self._norm(turned[:, heads:], f"layers.{layer}.self_attn.k_norm.weight"),
                ],
                1,
            )
        turned = Turn.apply(turned, cos, sin)
        q, k, v = turned[:, :heads], turned[:, heads:], split[:, heads + kv :]
        own = [_by_row(each[part.shared :], len(part.rows)) for each in (q, k, v)]
        if not part.shared:
            return _flat(attend(*own))
        first = [_by_row(each[: part.shared], 1) for each in (q, k, v)]
        keys, values = (
            torch.cat([shared.expand(len(part.rows), -1, -1, -1), each], 2)
            for shared, each in zip(first[1:], own[1:], strict=True)
        )
        return torch.cat([_flat(attend(*first)), _flat(attend(own[0], keys, values))])


def _by_row(x: Tensor, rows: int) -> Tensor:
    """[rows, heads, tokens, size] of [rows x tokens, heads, size]."""
    return x.reshape(rows, -1, *x.shape[1:]).transpose(1, 2)


def _flat(x: Tensor) -> Tensor:
    return x.transpose(1, 2).reshape(x.shape[0] * x.shape[2], -1)
