"""The operations of a decoder whose weights stay and whose adapters learn, each with the
way back written out: it keeps less than PyTorch's own would, and computes no gradient of
what is frozen."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from freehold.adapt.training.base import Frozen

_SHORT = 384  # keys; up to here whole products beat the fused kernel on CPUs
_AT_ONCE = 256  # rows of the head: their logits are all that is ever held of them


class Site(Function):
    """x Wᵀ + bias, and what each linear's adapter adds: scale x (x Aᵀ) Bᵀ. `a` holds the A of
    all adapted linears under each other, `bs` their B, and `slices` which outputs each
    changes. `gated`: x is a gate beside what passes it, and silu(gate) times that is
    multiplied; it is made again on the way back."""

    @staticmethod
    def forward(
        ctx: Any,
        given: Tensor,
        gated: bool,
        frozen: Frozen,
        bias: Tensor | None,
        scale: float,
        slices: tuple[tuple[int, int], ...],
        a: Tensor | None,
        *bs: Tensor,
    ) -> Tensor:
        x = _gated(given) if gated else given
        dense = frozen.dense()
        out = x @ dense.T if bias is None else torch.addmm(bias, x, dense.T)
        ctx.gated, ctx.frozen, ctx.scale, ctx.slices = gated, frozen, scale, slices
        if a is None:
            ctx.save_for_backward(given)
            return out
        a, bs = a.to(x.dtype), tuple(b.to(x.dtype) for b in bs)
        low = x @ a.T
        rank = a.shape[0] // len(bs)
        for at, ((begin, end), b) in enumerate(zip(slices, bs, strict=True)):
            part = low[:, at * rank : (at + 1) * rank]
            out[:, begin:end].addmm_(part, b.T, alpha=scale)
        ctx.save_for_backward(given, low, a, *bs)
        return out

    @staticmethod
    def backward(ctx: Any, out: Tensor) -> Any:
        grad = out @ ctx.frozen.dense() if ctx.needs_input_grad[0] else None
        given, *kept = ctx.saved_tensors
        if not kept:
            return _before(given, grad, ctx.gated), *[None] * 6
        low, a, *bs = kept
        rank = a.shape[0] // len(bs)
        back = torch.empty_like(low)
        grads = []
        for at, ((begin, end), b) in enumerate(zip(ctx.slices, bs, strict=True)):
            mine, own = out[:, begin:end], slice(at * rank, (at + 1) * rank)
            back[:, own] = mine @ b
            grads.append((mine.T @ low[:, own]).float().mul_(ctx.scale))
        back.mul_(ctx.scale)
        if grad is not None:
            grad.addmm_(back, a)
        x = _gated(given) if ctx.gated else given
        before = _before(given, grad, ctx.gated)
        return before, *[None] * 5, (back.T @ x).float(), *grads


class Turn(Function):
    """The rotary embedding of [tokens, heads, size], in halves."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        ctx.save_for_backward(cos, sin)
        return _turned(x, cos, sin)

    @staticmethod
    def backward(ctx: Any, out: Tensor) -> Any:
        cos, sin = ctx.saved_tensors
        return _turned(out, cos, -sin), None, None


class Norm(Function):
    """RMS norm over the last dimension; keeps only what it was given."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weights: Tensor, eps: float) -> Tensor:
        wide = x.to(torch.float32, copy=True)
        root = torch.rsqrt(wide.square().mean(-1, keepdim=True).add_(eps))
        ctx.save_for_backward(x, weights, root)
        return wide.mul_(root).to(x.dtype).mul_(weights)

    @staticmethod
    def backward(ctx: Any, out: Tensor) -> Any:
        x, weights, root = ctx.saved_tensors
        normed, grad = x.float() * root, (out * weights).float()
        grad.sub_(normed.mul((grad * normed).mean(-1, keepdim=True)))
        return grad.mul_(root).to(out.dtype), None, None


class Seen(Function):
    """Attention of [rows, heads, queries, size] to [rows, shared heads, keys, size]. The last
    query sees every key, the one before all but the last, and so on."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        rows, heads, queries, size = q.shape
        shared = heads // k.shape[1]
        grouped = q.reshape(rows, k.shape[1], shared * queries, size)
        scores = (grouped @ k.transpose(2, 3)).mul_(size**-0.5)
        scores = scores.view(rows, k.shape[1], shared, queries, -1)
        hidden = ~_visible(queries, k.shape[2], q.device)
        weights = torch.softmax(scores.masked_fill_(hidden, float("-inf")), -1)
        weights = weights.view(rows, k.shape[1], shared * queries, -1)
        ctx.save_for_backward(grouped, k, v, weights)
        return (weights @ v).view(q.shape)

    @staticmethod
    def backward(ctx: Any, out: Tensor) -> Any:
        grouped, k, v, weights = ctx.saved_tensors
        shape = out.shape
        out = out.reshape(grouped.shape)
        grad_v = weights.transpose(2, 3) @ out
        grad = out @ v.transpose(2, 3)
        grad = torch._softmax_backward_data(grad, weights, -1, weights.dtype)
        grad.mul_(grouped.shape[-1] ** -0.5)
        return (grad @ k).view(shape), grad.transpose(2, 3) @ grouped, grad_v


class TokenLogprobs(Function):
    """Of the targets, from the normed last hidden states. Logits are held for some rows at a
    time; the gradient is worked out along with them, as it only has to be scaled later."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, head: Tensor, targets: Tensor, learns: bool) -> Tensor:
        found = torch.empty(len(targets), dtype=torch.float32, device=hidden.device)
        unit = torch.empty_like(hidden) if learns else None
        for at in range(0, len(targets), _AT_ONCE):
            some = slice(at, at + _AT_ONCE)
            wanted = targets[some, None]
            logits = (hidden[some] @ head.T).float()
            logprobs = torch.log_softmax(logits, -1)
            found[some] = logprobs.gather(1, wanted)[:, 0]
            if unit is not None:
                slope = logprobs.exp_().neg_()
                slope.scatter_add_(1, wanted, torch.ones_like(wanted, dtype=slope.dtype))
                unit[some] = slope.to(head.dtype) @ head
        if unit is not None:
            ctx.save_for_backward(unit)
        return found

    @staticmethod
    def backward(ctx: Any, out: Tensor) -> Any:
        (unit,) = ctx.saved_tensors
        return (unit * out[:, None]).to(unit.dtype), None, None, None


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """As `Seen`, by what is fastest."""
    if q.device.type == "cpu" and k.shape[2] <= _SHORT:
        found: Tensor = Seen.apply(q, k, v)
        return found
    times = q.shape[1] // k.shape[1]
    if times > 1:
        k, v = k.repeat_interleave(times, 1), v.repeat_interleave(times, 1)
    if q.shape[2] == k.shape[2]:
        return torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
    mask = _visible(q.shape[2], k.shape[2], q.device)
    return torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask)


def _gated(both: Tensor) -> Tensor:
    gate, up = both.chunk(2, -1)
    return torch.nn.functional.silu(gate).mul_(up)


def _before(both: Tensor, out: Tensor | None, gated: bool) -> Tensor | None:
    """The gradient of what a site was given, of that of what it multiplied."""
    if out is None or not gated:
        return out
    gate, up = both.chunk(2, -1)
    grad = torch.empty_like(both)
    sigmoid = torch.sigmoid(gate)
    torch.mul(gate, sigmoid, out=grad[:, up.shape[1] :]).mul_(out)
    slope = torch.addcmul(sigmoid, gate * sigmoid, 1 - sigmoid)
    torch.mul(slope, up, out=grad[:, : up.shape[1]]).mul_(out)
    return grad


def _visible(queries: int, keys: int, device: torch.device) -> Tensor:
    whole = torch.ones(queries, keys, dtype=torch.bool, device=device)
    return whole.tril_(keys - queries)


def _turned(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    half = x.shape[-1] // 2
    low, high = x[..., :half], x[..., half:]
    out = torch.empty_like(x)
    torch.mul(low, cos, out=out[..., :half]).addcmul_(high, sin, value=-1)
    torch.mul(high, cos, out=out[..., half:]).addcmul_(low, sin)
    return out
