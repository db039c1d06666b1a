"""Whether a revision was found good enough to serve: what an evaluation of ours decided."""

from dataclasses import dataclass

from freehold.core.binding import Environment


@dataclass(frozen=True, slots=True)
class Verdict:
    """One thing that was held against what it needs, both in words for people."""

    name: str
    needed: str
    found: str
    passed: bool


@dataclass(frozen=True, slots=True)
class Gate:
    """Of one revision: a base with an adapter, or by itself where `adapter_digest` is None.
    Made by the server from an evaluation of its own, never from what a client says.
    `environment` is where it was evaluated; it holds for those digests everywhere."""

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
