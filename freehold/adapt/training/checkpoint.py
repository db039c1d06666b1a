"""Where a training is, on the disk: what it goes on from after it was ended or killed.

A checkpoint appears whole or not at all, and belongs to one spec: with any other it is
not looked at. The order of the examples is known from the seed, nothing else is left to
chance, so what goes on from one ends where it would have ended.
"""

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from freehold.core.errors import Code, UserError
from freehold.engines.openvino import safetensors

_FILE = "checkpoint.safetensors"


@dataclass(slots=True)
class State:
    """Of the numbers: `step` is the next one; `best_*` are of the lowest loss on held-out
    examples so far, `worse` how many looks in a row did not lower it."""

    step: int = 0
    seconds: float = 0.0
    tokens: int = 0
    loss: float = 0.0
    held_out_before: float | None = None
    held_out: float | None = None
    best_loss: float | None = None
    best_step: int = 0
    worse: int = 0
    peak_bytes: int = 0


def write(
    folder: Path, owner: str, state: State, tensors: Mapping[str, npt.NDArray[np.float32]]
) -> None:
    """Raises `OSError` for a full disk; then the one before is still there."""
    told = {"owner": owner, "state": json.dumps(asdict(state))}
    safetensors.write(folder / _FILE, tensors, told)


def read(folder: Path, owner: str) -> tuple[State, dict[str, npt.NDArray[Any]]] | None:
    """None where there is none of this spec that is whole."""
    with suppress(OSError, ValueError, KeyError, TypeError, UserError):
        file = safetensors.Tensors(folder / _FILE)
        if file.metadata["owner"] == owner:
            state = State(**json.loads(file.metadata["state"]))
            return state, {name: np.array(file.raw(name)) for name in file}
    return None


def remove(folder: Path) -> None:
    (folder / _FILE).unlink(missing_ok=True)


def disk_full(folder: Path, error: OSError) -> UserError:
    return UserError(
        Code.DISK_FULL,
        f"{folder} cannot be written ({error.strerror}): make room there and start it again; it "
        "goes on from its last checkpoint.",
    )
