"""A job for tests: a real process that counts, writes checkpoints, and obeys SIGTERM."""

import os
import signal
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from freehold.adapt import job
from freehold.core.errors import Code, UserError
from tests.catalog.making import peft_folder

PROGRAM = ("-m", "tests.operate.jobs.counting")


def run(
    spec: Mapping[str, Any], work: Path, home: Path, tell: job.Tell
) -> Mapping[str, Any] | None:
    """Counts to `steps`, from its checkpoint on; `pause_s` between two. It kills itself at the
    step `die_at` each time that it comes there first, holds `hoard` bytes, breaks at `break_at`,
    refuses at `refuse_at`, and finds the disk full at `full_at`."""
    checkpoint = work / "checkpoint"
    count = int(checkpoint.read_text()) if checkpoint.exists() else 0
    if not Path(spec.get("train", work)).exists():
        raise UserError(Code.NOT_FOUND, "The data set is not there: add it again.")
    hoard = bytearray(os.urandom(1024)) * (spec.get("hoard", 0) // 1024)
    tell.log(f"from {count}")
    while count < spec["steps"]:
        if tell.must_end():
            checkpoint.write_text(str(count))
            return None
        count += 1
        _do_at(count, spec, checkpoint)
        tell.progress(step=count, steps=spec["steps"], loss=1 / count)
        time.sleep(spec.get("pause_s", 0))
    peft_folder(work / "adapter", spec.get("seed", 1))
    manifest = {"base_digest": spec["base"], "recipe": {"steps": count}, **spec.get("says", {})}
    return {"folder": "adapter", "count": count, "held": len(hoard), "manifest": manifest}


def _do_at(count: int, spec: Mapping[str, Any], checkpoint: Path) -> None:
    if count == spec.get("die_at"):
        checkpoint.write_text(str(count))
        os.kill(os.getpid(), signal.SIGKILL)
    if count == spec.get("break_at"):
        raise RuntimeError("what nobody thought of")
    if count == spec.get("refuse_at"):
        raise UserError(Code.FILE_INVALID, "Line 3 is no example.")
    if count == spec.get("full_at"):
        raise OSError(28, "No space left on device")
    if count == spec.get("hang_at"):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        time.sleep(600)


if __name__ == "__main__":
    job.main({"tune": ("tests.operate.jobs.counting", "run")})
