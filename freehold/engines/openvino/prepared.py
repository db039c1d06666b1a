"""A model as its graph wants it: linears of a site side by side, quantized, and kept on
the disk by digest and format, so that the next start only maps a file."""

import hashlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson

from freehold.core.errors import UserError
from freehold.engines.openvino import safetensors
from freehold.engines.openvino.quantize import Format, Matrix, quantize
from freehold.engines.openvino.shape import SITES, Shape
from freehold.engines.openvino.weights import Weights, open_weights

_VERSION = 2  # of what a kept file holds
_MODULES = {"qkv": "self_attn", "o": "self_attn", "gu": "mlp", "down": "mlp"}
_HEAD: Format = "int8"  # embedding and head lose most in four bits


@dataclass(frozen=True, slots=True)
class Prepared:
    """`matrices` and `vectors` by the names that `Graph` reads."""

    shape: Shape
    inverse_frequencies: npt.NDArray[np.float32]
    matrices: dict[str, Matrix] = field(default_factory=dict)
    vectors: dict[str, npt.NDArray[np.float32]] = field(default_factory=dict)


def prepare(
    digest: str,
    files: Mapping[str, Path],
    format: Format,
    kept_in: Path | None,
    told: Callable[[int, int], None] = lambda done, of: None,
) -> Prepared:
    """From `kept_in` if it is there whole, else made, and kept. `told` hears of layers."""
    kept = kept_in / f"{digest.removeprefix('sha256:')}-{format}.v{_VERSION}" if kept_in else None
    if kept is not None:
        # Damaged: made again.
        with suppress(OSError, ValueError, KeyError, TypeError, UserError):
            return _load(kept)
    made = _made(open_weights(files), format, told)
    if kept is not None:
        with suppress(OSError):  # a full disk: made again at the next start
            _keep(kept, made)
    return made


def _made(weights: Weights, format: Format, told: Callable[[int, int], None]) -> Prepared:
    shape = weights.shape
    made = Prepared(shape, weights.inverse_frequencies)
    head: Format = "float32" if format == "float32" else _HEAD
    made.matrices["embed_tokens"] = quantize(weights.read("embed_tokens.weight"), head)
    if not shape.tied:
        made.matrices["lm_head"] = quantize(weights.read("lm_head.weight"), head)
    made.vectors["norm.weight"] = weights.read("norm.weight")
    for layer in range(shape.layers):
        told(layer, shape.layers)
        for site, _ in SITES:
            matrix, bias = fused(weights, layer, site)
            made.matrices[f"{layer}.{site}"] = quantize(matrix, format)
            if bias is not None:
                made.vectors[f"{layer}.{site}.bias"] = bias
        for name in norms(shape):
            full = f"layers.{layer}.{name}.weight"
            made.vectors[full] = weights.read(full)
    return made


def fused(
    weights: Weights, layer: int, site: str
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32] | None]:
    """A site's linears side by side, and their biases if they have any."""
    names = [f"layers.{layer}.{_MODULES[site]}.{linear}" for linear in dict(SITES)[site]]
    matrix = np.concatenate([weights.read(f"{name}.weight") for name in names])
    if not any(weights.has(f"{name}.bias") for name in names):
        return matrix, None
    return matrix, np.concatenate([_bias(weights, name) for name in names])


def _bias(weights: Weights, name: str) -> npt.NDArray[np.float32]:
    if weights.has(f"{name}.bias"):
        return weights.read(f"{name}.bias")
    return np.zeros(weights.shape.linears()[name.rsplit(".", 1)[1]][1], np.float32)


def norms(shape: Shape) -> Iterator[str]:
    """A layer's, by their names."""
    yield from ("input_layernorm", "post_attention_layernorm")
    if shape.qk_norm:
        yield from ("self_attn.q_norm", "self_attn.k_norm")


def _keep(path: Path, prepared: Prepared) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    tensors: dict[str, npt.NDArray[Any]] = {"inverse_frequencies": prepared.inverse_frequencies}
    for name, matrix in prepared.matrices.items():
        tensors |= {f"matrix/{name}/{part}": found for part, found in matrix.parts().items()}
    tensors |= {f"vector/{name}": found for name, found in prepared.vectors.items()}
    formats = {name: matrix.format for name, matrix in prepared.matrices.items()}
    told = {
        "shape": orjson.dumps(asdict(prepared.shape)).decode(),
        "formats": orjson.dumps(formats).decode(),
        "sha256": _sha256(tensors),
    }
    safetensors.write(path, tensors, told)


def _load(path: Path) -> Prepared:
    file = safetensors.Tensors(path)
    tensors = {name: file.raw(name) for name in file}
    if _sha256(tensors) != file.metadata["sha256"]:
        raise ValueError("it was changed on the disk")
    found = Prepared(Shape(**orjson.loads(file.metadata["shape"])), tensors["inverse_frequencies"])
    for name, format in orjson.loads(file.metadata["formats"]).items():
        parts = {part: tensors.get(f"matrix/{name}/{part}") for part in ("scales", "zeros")}
        found.matrices[name] = Matrix(format, tensors[f"matrix/{name}/values"], **parts)
    for name in tensors:
        if name.startswith("vector/"):
            found.vectors[name.removeprefix("vector/")] = tensors[name]
    return found


def _sha256(tensors: Mapping[str, npt.NDArray[Any]]) -> str:
    sum_ = hashlib.sha256()
    for name, tensor in tensors.items():
        sum_.update(f"{name} {tensor.dtype} {tensor.shape}\n".encode())
        sum_.update(np.ascontiguousarray(tensor).data)
    return sum_.hexdigest()
