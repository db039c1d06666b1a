"""The adapter that is trained: the factors of all adapted linears in one flat piece."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from freehold.engines.openvino.shape import SITES, Shape


@dataclass(frozen=True, slots=True)
class Adapted:
    """A site's part, as `Site` takes it: the A of its adapted linears under each other, their
    B, and which of the site's outputs each changes."""

    slices: tuple[tuple[int, int], ...]
    a: Tensor
    bs: tuple[Tensor, ...]


class Adapter:
    """`values` are float32, and `grads` beside them what the way back adds up. Begins as
    PEFT's do: A by chance, known from the seed, and B zero."""

    def __init__(
        self, shape: Shape, rank: int, alpha: float, targets: Sequence[str], seed: int, on: str
    ) -> None:
        self.rank, self.scale = rank, alpha / rank
        self._linears = shape.linears()
        self._sites = [
            (layer, site, [name for name in names if name in targets])
            for layer in range(shape.layers)
            for site, names in SITES
            if not set(names).isdisjoint(targets)
        ]
        count = sum(sum(self._linears[name]) for _, _, names in self._sites for name in names)
        values = torch.zeros(count * rank)
        chance = torch.Generator().manual_seed(seed)
        for _, _, a, _ in self.factors(values):
            bound = a.shape[1] ** -0.5  # Kaiming's, with the slope that PEFT gives it
            a.uniform_(-bound, bound, generator=chance)
        self.values = values.to(on)
        self.grads = torch.zeros_like(self.values)
        self.sites = self._learning()

    def factors(self, values: Tensor) -> Iterator[tuple[int, str, Tensor, Tensor]]:
        """Layer, linear, A [rank, inputs] and B [outputs, rank], as views of `values`."""
        for (layer, _, names), (a, bs) in zip(self._sites, self._views(values), strict=True):
            for at, (name, b) in enumerate(zip(names, bs, strict=True)):
                yield layer, name, a[at * self.rank : (at + 1) * self.rank], b

    def _views(self, values: Tensor) -> Iterator[tuple[Tensor, list[Tensor]]]:
        at = 0

        def taken(rows: int, columns: int) -> Tensor:
            nonlocal at
            at += rows * columns
            return values[at - rows * columns : at].view(rows, columns)

        for _, _, names in self._sites:
            a = taken(len(names) * self.rank, self._linears[names[0]][0])
            yield a, [taken(self._linears[name][1], self.rank) for name in names]

    def _learning(self) -> dict[tuple[int, str], Adapted]:
        found = {}
        views = zip(self._sites, self._views(self.values), self._views(self.grads), strict=True)
        for (layer, site, names), (a, bs), (a_grad, b_grads) in views:
            for value, grad in ((a, a_grad), *zip(bs, b_grads, strict=True)):
                value.requires_grad_()
                value.grad = grad
            found[layer, site] = Adapted(self._slices(site, names), a, tuple(bs))
        return found

    def _slices(self, site: str, names: Sequence[str]) -> tuple[tuple[int, int], ...]:
        at, found = 0, []
        for name in dict(SITES)[site]:
            size = self._linears[name][1]
            if name in names:
                found.append((at, at + size))
            at += size
        return tuple(found)
