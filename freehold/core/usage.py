"""What a request used: reserved before dispatch, settled exactly once after."""

from dataclasses import dataclass
from enum import StrEnum


class Outcome(StrEnum):
    OK = "ok"
    CLIENT_GONE = "client_gone"
    CLIENT_TOO_SLOW = "client_too_slow"
    ENGINE_FAILED = "engine_failed"
    ENGINE_TIMEOUT = "engine_timeout"
    REFUSED = "refused"
    SHUTDOWN = "shutdown"
    ORPHANED = "orphaned"  # the gateway died; settled from the last progress mark
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Reservation:
    """Written before dispatch; survives the death of the process."""

    request_id: str
    tenant_id: str
    environment: str
    key_id: str
    alias: str
    endpoint: str
    engine: str
    base_digest: str | None
    adapter_digest: str | None
    conversation_id: str | None
    priority: str
    stream: bool
    created_at_us: int
    policies: str | None = None  # that admitted it, with spaces between
    account: str | None = None  # whose use it is, where that is not the key itself
    price: str | None = None  # as `Price.written` has it
    personal: str | None = None  # of its audit record, sealed
    idempotency: "IdempotencyClaim | None" = None


@dataclass(frozen=True, slots=True)
class KeptContent:
    """What was asked and answered, sealed under data keys of the subjects of the request."""

    tenant_id: str
    environment: str
    keys: tuple[str, ...]
    sealed: bytes
    digest: str


@dataclass(frozen=True, slots=True)
class Settlement:
    """Written once per reservation; survives the loss of power.

    Token counts are the engine's own where it gave them; `estimated` marks counts
    that the gateway had to derive from the chunks it saw.
    """

    request_id: str
    outcome: Outcome
    tokens_in: int
    tokens_out: int
    tokens_cached: int
    estimated: bool
    ttft_us: int | None
    duration_us: int
    settled_at_us: int
    error_code: str | None = None
    cost: int | None = None  # in micro-units; None where nobody knows the price
    content: KeptContent | None = None
    claim_slot: str | None = None  # the idempotency claim to fill or to give back
    replay: "StoredReply | None" = None


@dataclass(frozen=True, slots=True)
class IdempotencyClaim:
    """`slot` is a keyed hash of (tenant, key, route, Idempotency-Key)."""

    slot: str
    body_hash: str
    expires_at_us: int


@dataclass(frozen=True, slots=True)
class StoredReply:
    """A finished answer kept for a retry, sealed under the caller's own key."""

    request_id: str
    status: int
    content_type: str
    sealed_body: bytes


@dataclass(frozen=True, slots=True)
class UsageRow:
    """One line of the usage report: sums over the requests of a group."""

    key_id: str
    alias: str
    adapter_digest: str | None
    day: str
    requests: int
    failed: int
    tokens_in: int
    tokens_out: int
    tokens_cached: int
    cost: int = 0  # micro-units, of the requests whose price was known
    unpriced: int = 0  # requests whose price was not
