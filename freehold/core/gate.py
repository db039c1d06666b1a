"""Whether a revision was found good enough to serve: what an evaluation of ours decided."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from freehold.core.binding import Environment
from freehold.core.signature import Signer


@dataclass(frozen=True, slots=True)
class Verdict:
    """One thing that was held against what it needs, both in words for people."""

    name: str
    needed: str
    found: str
    passed: bool


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """Where a gate was decided that came here with a revision: by which installation, in whose
    file it came (`through`, where that is another one), its id and environment there, and what
    its evaluation measured, without any text."""

    signer: Signer
    through: Signer
    gate: str
    environment: Environment
    came_at_us: int
    figures: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Gate:
    """Of one revision: a base with an adapter, or by itself where `adapter_digest` is None.
    Made by the server from an evaluation of its own, never from what a client says.
    `environment` is where it was evaluated; it holds for those digests everywhere. One that was
    decided `elsewhere` is as it was made there, but for its id, its tenant and the environment,
    which is where it came into."""

    id: str
    tenant_id: str
    environment: Environment
    base_digest: str
    adapter_digest: str | None
    suite_name: str
    suite_digest: str
    incumbent_digest: str | None  # of the adapter that it was held against, else of the base
    passed: bool
    verdicts: tuple[Verdict, ...]
    job: str | None
    made_at_us: int
    made_by: str
    elsewhere: Elsewhere | None = None
