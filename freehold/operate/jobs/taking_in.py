"""What becomes of a job's result: an adapter is taken in as if somebody had added it, and what
an evaluation found decides."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from freehold.catalog.adapters import Adapters, Wanted, stage, unstage
from freehold.config.home import write_private
from freehold.core.errors import Code, UserError
from freehold.core.job import Job, JobKind
from freehold.core.manifest import MANIFEST, as_plain, manifest_of
from freehold.operate.jobs.supervisor import TakeIn, Taken


class TakingIn:
    """`decided` makes the gate of an evaluation."""

    def __init__(self, home: Path, adapters: Adapters, decided: TakeIn) -> None:
        self._home = home
        self._adapters = adapters
        self._decided = decided

    def __call__(self, job: Job, result: Mapping[str, Any], work: Path) -> Taken:
        """Raises `UserError`; then nothing is kept of it."""
        if job.kind is JobKind.EVAL:
            return self._decided(job, result, work)
        manifest = manifest_of(result.get("manifest"))
        folder = _inside(work, result.get("folder"))
        write_private(folder / MANIFEST, json.dumps(as_plain(manifest)).encode())
        ticket = stage(self._home, folder)
        try:
            wanted = Wanted(ticket, manifest.base_digest, job.name, f"job:{job.id}", job.id)
            added = self._adapters.add(job.tenant_id, job.environment, wanted)
        finally:
            unstage(self._home, ticket)
        return Taken({"adapter": added.name, "adapter_digest": added.digest})


def _inside(work: Path, named: object) -> Path:
    """A job hands over what lies in its own work folder."""
    folder = (work / str(named)).resolve()
    if not folder.is_relative_to(work.resolve()) or not folder.is_dir():
        raise UserError(
            Code.FILE_INVALID, "The job names no folder of its own as its result: start it again."
        )
    return folder
