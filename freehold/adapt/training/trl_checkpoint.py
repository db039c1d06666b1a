"""Where a training by TRL is, on the disk. Its trainer writes a folder file by file; one that was
cut short lacks the mark that comes last, and is not gone on from."""

import json
import os
import shutil
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from freehold.adapt.training.checkpoint import State
from freehold.core.errors import UserError
from freehold.engines.openvino import safetensors

FOLDER = "trl"
_BEST, _MARK = "best.safetensors", "whole.json"

Arrays = Mapping[str, npt.NDArray[np.float32]]


@dataclass(frozen=True, slots=True)
class Kept:
    """`best`: the factors that did best so far."""

    folder: Path
    state: State
    best: dict[str, npt.NDArray[np.float32]]


def finish(folder: Path, owner: str, state: Mapping[str, Any], best: Arrays) -> None:
    """Marks what the trainer wrote as whole, and removes what was before it. Raises `OSError`
    for a full disk; then the one before is still there."""
    safetensors.write(folder / _BEST, best, {})
    for path in folder.iterdir():
        with path.open("rb") as file:
            os.fsync(file.fileno())
    half = folder / f"{_MARK}.half"
    half.write_text(json.dumps({"owner": owner, "state": dict(state)}))
    half.replace(folder / _MARK)
    for each in folder.parent.iterdir():
        if each != folder:
            shutil.rmtree(each, ignore_errors=True)


def newest(work: Path, owner: str) -> Kept | None:
    """None where there is none of this spec that is whole."""
    for folder in sorted(work.glob("checkpoint-*"), key=_step, reverse=True):
        with suppress(OSError, ValueError, KeyError, TypeError, UserError):
            mark = json.loads((folder / _MARK).read_text())
            if mark["owner"] == owner:
                best = safetensors.Tensors(folder / _BEST)
                found = {name: np.array(best.raw(name)) for name in best}
                return Kept(folder, State(**mark["state"]), found)
    return None


def _step(folder: Path) -> int:
    number = folder.name.rpartition("-")[2]
    return int(number) if number.isdecimal() else -1
