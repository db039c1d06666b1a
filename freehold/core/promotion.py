"""A revision on its way from one environment to the next: what moved, on which evidence, who
let it, how much of the requests it has, and what it would go back to."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from freehold.core.binding import Environment, Route
from freehold.core.signature import Signer

# What is tried out in the first is let into the others on evidence alone.
GATED = (Environment.STAGING, Environment.PROD)


class PromotionState(StrEnum):
    """`SHARING` has a share of the requests of its alias, `WHOLE` got all of them, and may have
    been followed by another since. `ROLLED_BACK` gave back what it had."""

    SHARING = "sharing"
    WHOLE = "whole"
    ROLLED_BACK = "rolled_back"


@dataclass(frozen=True, slots=True)
class Watch:
    """When a revision is taken back by itself, beside what answered before it. `errors`: so much
    more of its requests fail, as a share. `latency`: its slow requests take so many times as
    long. `thumbs`: so much more of its thumbs are down. `judge`: an alias that marks answers of
    both, of which those of the new one may be worse by `score` of ten. None: not looked at.
    `least`: requests of each that must be there before anything is said; `seconds`: how long it
    is still watched once it has everything."""

    errors: float | None = 0.02
    latency: float | None = 1.5
    thumbs: float | None = 0.1
    judge: str | None = None
    score: float = 1.0
    least: int = 20
    seconds: float = 3600.0


@dataclass(frozen=True, slots=True)
class Bundle:
    """What goes together, by digests. `policies`: of the tenant's own that were in force, by name;
    `limits`: ids of those that came along and were not there before."""

    base: str | None
    adapter: str | None
    tokenizer: str | None = None
    template: str | None = None
    dataset: str | None = None
    policies: Mapping[str, str] = field(default_factory=dict)
    limits: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Promotion:
    """`source` is None where an alias was set by hand; what came from another installation came
    from that environment of `elsewhere`. `gate` is the evidence; without one
    somebody `forced` it, with this reason, over what is `overridden`. `accepted` says why licences
    that need it allow this use. `before` is the route that a rollback goes back to, None where the
    alias led nowhere. `figures` are those of the last comparison with what answered before."""

    id: str
    tenant_id: str
    environment: Environment
    source: Environment | None
    alias: str
    adapter: str | None  # its name
    bundle: Bundle
    gate: str | None
    forced: str | None
    overridden: tuple[str, ...]
    accepted: str | None
    share: float
    watch: Watch
    state: PromotionState
    before: Route | None
    made_at_us: int
    made_by: str
    whole_at_us: int | None = None
    ended_at_us: int | None = None
    ended_because: str | None = None
    ended_by: str | None = None
    figures: Mapping[str, Any] | None = None
    elsewhere: Signer | None = None

    @property
    def evidence(self) -> str:
        """What a route says it was let in by."""
        return self.gate or ("forced" if self.forced else "no adapter")
