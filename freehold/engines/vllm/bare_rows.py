"""On the CPU, vLLM 0.32 computes a request of the bare base under the adapter in the last
place, when it is in one batch with requests under adapters: its kernels mark such rows by
-1, which Python takes for the last. Here those rows get no adapter."""

from collections.abc import Callable
from typing import Any

_NAMES = ("bgmv_shrink", "bgmv_expand", "bgmv_expand_slice")  # the others call these


def keep_bare() -> None:
    """Before vLLM takes its kernels, in the process that computes."""
    from vllm.lora.ops import torch_ops
    from vllm.lora.ops.torch_ops import lora_ops

    for name in _NAMES:
        kept = _keeping(getattr(lora_ops, name), is_sum=name != "bgmv_shrink")
        setattr(lora_ops, name, kept)
        setattr(torch_ops, name, kept)


def _keeping(compute: Callable[..., None], is_sum: bool) -> Callable[..., None]:
    """What is added to stays as it was; what is written anew is nothing."""

    def computed(
        inputs: Any, weights: Any, output: Any, indices: Any, *rest: Any, **options: Any
    ) -> None:
        bare = (indices < 0).nonzero().flatten()
        before = output[bare].clone() if is_sum else 0
        compute(inputs, weights, output, indices, *rest, **options)
        output[bare] = before

    return computed
