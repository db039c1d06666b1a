"""What happened that somebody should know of: a closed list of kinds, each with how much it
matters. An event tells of machines and keys, never of people or of what they said."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum


class Severity(StrEnum):
    INFO = "info"
    WARNING = "warning"  # somebody should look today
    CRITICAL = "critical"  # somebody should get up

    @property
    def rank(self) -> int:
        return list(Severity).index(self)

    @property
    def and_above(self) -> "tuple[Severity, ...]":
        return tuple(each for each in Severity if each.rank >= self.rank)


class Kind(StrEnum):
    GATEWAY_STARTED = "gateway_started"
    RESTORED = "restored"
    ENGINE_DOWN = "engine_down"
    ENGINE_UP = "engine_up"
    OWN_ENGINES_FAILED = "own_engines_failed"
    ADAPTERS_REFUSED = "adapters_refused"
    USAGE_NOT_WRITTEN = "usage_not_written"
    USAGE_WRITTEN_AGAIN = "usage_written_again"
    AUDIT_UNAVAILABLE = "audit_unavailable"
    POLICIES_NOT_READ = "policies_not_read"
    KEYS_GUESSED = "keys_guessed"
    PROVIDER_UNREACHABLE = "provider_unreachable"
    BACKUP_FAILED = "backup_failed"
    KEY_DEPARTED = "key_departed"
    KEY_STEPPED_DOWN = "key_stepped_down"
    KEY_SUSPENDED = "key_suspended"
    KEY_CONFIRMED = "key_confirmed"
    DECISION_DEPARTED = "decision_departed"
    DECISION_HOLDS = "decision_holds"
    JOB_DONE = "job_done"
    JOB_FAILED = "job_failed"
    PROMOTED = "promoted"
    ROLLED_BACK = "rolled_back"


_SEVERITY: Mapping[Kind, Severity] = {
    Kind.GATEWAY_STARTED: Severity.INFO,
    Kind.RESTORED: Severity.WARNING,
    Kind.ENGINE_DOWN: Severity.CRITICAL,
    Kind.ENGINE_UP: Severity.INFO,
    Kind.OWN_ENGINES_FAILED: Severity.CRITICAL,
    Kind.ADAPTERS_REFUSED: Severity.WARNING,
    Kind.USAGE_NOT_WRITTEN: Severity.CRITICAL,
    Kind.USAGE_WRITTEN_AGAIN: Severity.INFO,
    Kind.AUDIT_UNAVAILABLE: Severity.CRITICAL,
    Kind.POLICIES_NOT_READ: Severity.CRITICAL,
    Kind.KEYS_GUESSED: Severity.WARNING,
    Kind.PROVIDER_UNREACHABLE: Severity.WARNING,
    Kind.BACKUP_FAILED: Severity.CRITICAL,
    Kind.KEY_DEPARTED: Severity.WARNING,
    Kind.KEY_STEPPED_DOWN: Severity.WARNING,
    Kind.KEY_SUSPENDED: Severity.WARNING,
    Kind.KEY_CONFIRMED: Severity.INFO,
    Kind.DECISION_DEPARTED: Severity.WARNING,
    Kind.DECISION_HOLDS: Severity.INFO,
    Kind.JOB_DONE: Severity.INFO,
    Kind.JOB_FAILED: Severity.WARNING,
    Kind.PROMOTED: Severity.INFO,
    Kind.ROLLED_BACK: Severity.WARNING,
}
Detail = str | int | float


@dataclass(frozen=True, slots=True)
class Happening:
    """What is told. `subject` is an id or a name of what it is about. Without a tenant it
    belongs to the installation."""

    kind: Kind
    text: str
    subject: str | None = None
    tenant_id: str | None = None
    environment: str | None = None
    details: Mapping[str, Detail] = field(default_factory=dict)

    @property
    def severity(self) -> Severity:
        return _SEVERITY[self.kind]


@dataclass(frozen=True, slots=True)
class Event:
    """A happening as it is kept."""

    id: str
    at_us: int
    severity: Severity
    what: Happening
