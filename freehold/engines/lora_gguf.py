"""PEFT adapters as the LoRA files that llama.cpp loads.

Laid out as by its `convert_lora_to_gguf.py`: each linear's `lora_a` is A and its `lora_b`
is B, and where the base has the rows of q and k in llama.cpp's own order, B has them so.
llama.cpp multiplies by `alpha / rank`, with one alpha for the whole file and each linear's
own rank; what differs from that (rank and alpha patterns, rsLoRA) is multiplied into B.
"""

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import numpy.typing as npt

from freehold.core import peft
from freehold.core.adapter import WEIGHTS
from freehold.core.engine import AdapterFiles
from freehold.core.errors import Code, UserError
from freehold.core.gguf import Header
from freehold.core.safetensors import Tensor, header_of

_LAYOUT = 1  # raised when the same adapter becomes another file
_LIMIT = peft.RankLimit()
_NUMBERS = {"F32": "<f4", "F16": "<f2", "BF16": "<u2"}
_NAMES = {
    "q_proj": "attn_q", "k_proj": "attn_k", "v_proj": "attn_v", "o_proj": "attn_output",
    "gate_proj": "ffn_gate", "up_proj": "ffn_up", "down_proj": "ffn_down",
}  # fmt: skip
_INTERLEAVED = frozenset({"llama"})  # bases whose q and k have rows in llama.cpp's order
_KNOWN = _INTERLEAVED | {"qwen2", "qwen3"}

Floats = npt.NDArray[np.float32]


class LoraFiles:
    """The converted adapters of one base, by digest. The folder is a cache: what is
    missing or damaged is made again. Processes may share it."""

    def __init__(self, folder: Path, base: Header) -> None:
        of = (_LAYOUT, base.architecture, base.heads, base.kv_heads, base.layers, base.linears)
        self._folder = folder / hashlib.sha256(repr(of).encode()).hexdigest()[:16]
        self._base = base

    def get(self, adapter: AdapterFiles) -> Path:
        """A file that is sound, named by the adapter's digest. Raises `UserError`:
        `FILE_INVALID`, `DIGEST_MISMATCH`, `STORAGE_UNAVAILABLE`, or `FILE_REFUSED` with the
        reason."""
        path = self._path(adapter.digest)
        if not _is_sound(path):
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            draft = path.with_suffix(f".{os.getpid()}")
            try:
                write(adapter, self._base, draft)
                _seal(path).write_text(_sum(draft))
                draft.replace(path)
            except OSError as error:
                raise UserError(
                    Code.STORAGE_UNAVAILABLE,
                    f"Its converted file cannot be written ({error.strerror}): free some space",
                ) from None
            finally:
                draft.unlink(missing_ok=True)
        return path

    def forget(self, digest: str) -> None:
        for path in (self._path(digest), _seal(self._path(digest))):
            path.unlink(missing_ok=True)

    def _path(self, digest: str) -> Path:
        return self._folder / f"{digest.removeprefix('sha256:')}.gguf"


def write(adapter: AdapterFiles, base: Header, path: Path) -> None:
    """Raises what `LoraFiles.get` does. What was checked is what is written: both files
    are read once."""
    if base.architecture not in _KNOWN or not base.linears or not base.heads * base.kv_heads:
        raise peft.refused(
            "llama.cpp's names for the linears of this base are not known",
            "choose a base of the Llama or Qwen family",
        )
    layers, linears = base.layers, base.linears
    config, weights = peft.load(adapter.config, adapter.weights, linears, layers, _LIMIT)
    if peft.digest_of(config, weights) != adapter.digest:
        raise UserError(
            Code.DIGEST_MISMATCH, "This adapter was changed on the disk: add the adapter again."
        )
    lora = peft.check(config, header_of(weights, WEIGHTS), linears, layers, _LIMIT)
    first = lora.factors[0]
    alpha = first.scale * first.rank
    writer: Any = gguf.GGUFWriter(path, base.architecture)
    writer.add_type("adapter")
    writer.add_string("adapter.type", "lora")
    writer.add_float32("adapter.lora.alpha", alpha)
    for name, values in _tensors(lora, weights, alpha, base):
        writer.add_tensor(name, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _tensors(
    lora: peft.Lora, weights: bytes, alpha: float, base: Header
) -> Iterator[tuple[str, Floats]]:
    heads = {"q_proj": base.heads, "k_proj": base.kv_heads}
    for each in lora.factors:
        name = f"blk.{each.layer}.{_NAMES[each.linear]}.weight"
        a, b = _read(each.a, weights), _read(each.b, weights)
        with np.errstate(over="ignore", invalid="ignore"):  # refused right afterwards
            b = b * np.float32(each.scale * each.rank / alpha)
        b = _finite(each.b, b)
        if base.architecture in _INTERLEAVED and each.linear in heads:
            b = _interleaved(b, heads[each.linear])
        yield f"{name}.lora_a", _finite(each.a, a)
        yield f"{name}.lora_b", b


def _read(tensor: Tensor, weights: bytes) -> Floats:
    kind, count = _NUMBERS[tensor.dtype], tensor.shape[0] * tensor.shape[1]
    numbers = np.frombuffer(weights, kind, count, tensor.begin).reshape(tensor.shape)
    if tensor.dtype == "BF16":
        return (numbers.astype(np.uint32) << 16).view(np.float32)
    with np.errstate(invalid="ignore"):  # signalling NaNs; they are refused afterwards
        return numbers.astype(np.float32)


def _finite(tensor: Tensor, values: Floats) -> Floats:
    if not np.isfinite(values).all():
        raise peft.refused(f"{tensor.name} holds a value that is not finite")
    return values


def _interleaved(rows: Floats, heads: int) -> Floats:
    """Pairs of neighbours from halves, in each head."""
    if rows.shape[0] % (2 * heads):
        raise peft.refused("the heads of its base are of odd size", "choose another base")
    halves = rows.reshape(heads, 2, rows.shape[0] // heads // 2, rows.shape[1])
    return np.ascontiguousarray(halves.swapaxes(1, 2).reshape(rows.shape))


def _seal(path: Path) -> Path:
    return path.with_suffix(".sha256")


def _is_sound(path: Path) -> bool:
    """Whether it is there as it was made: nobody else looks at these files again."""
    try:
        return _seal(path).read_text() == _sum(path)
    except OSError:
        return False


def _sum(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
