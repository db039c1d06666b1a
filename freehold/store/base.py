"""What the rest of Freehold asks of the store. The tenant is always an argument;
"not yours" and "not there" both come back as None or an empty list."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from freehold.core.binding import Environment, Route, Scope
from freehold.core.usage import Reservation, Settlement, StoredReply, UsageRow


@dataclass(frozen=True, slots=True)
class KeyRecord:
    """An API key as it is stored: never the key, only `HMAC(pepper, SHA-256(key))`."""

    id: str
    tenant_id: str
    environment: Environment
    name: str
    hash: bytes
    scopes: frozenset[Scope]
    models: frozenset[str] | None
    created_at_us: int
    expires_at_us: int | None
    revoked_at_us: int | None


class KeyStore(Protocol):
    def key_by_hash(self, hashed: bytes) -> KeyRecord | None:
        """The only read without a tenant: the hash itself proves who asks."""
        ...

    def keys(self, tenant_id: str) -> Sequence[KeyRecord]: ...

    def add_key(self, record: KeyRecord) -> None:
        """Raises `UserError(CONFLICT)` when the id or the hash is there already."""
        ...

    def revoke_key(self, tenant_id: str, key_id: str, at_us: int) -> KeyRecord | None:
        """Idempotent; the first revocation's time stays."""
        ...


class RouteStore(Protocol):
    def routes(self, tenant_id: str, environment: Environment) -> Sequence[Route]: ...

    def put_routes(self, tenant_id: str, environment: Environment, routes: Sequence[Route]) -> None:
        """Replaces all routes of the tenant's environment in one transaction."""
        ...


class UsageStore(Protocol):
    def usage(
        self, tenant_id: str, since_us: int, until_us: int, key_id: str | None = None
    ) -> Sequence[UsageRow]: ...


@dataclass(frozen=True, slots=True)
class ClaimState:
    """What an Idempotency-Key met: nothing (`claimed`), the same body still running
    (`running`), its stored reply, or another body (`mismatch`)."""

    claimed: bool = False
    running: bool = False
    mismatch: bool = False
    reply: StoredReply | None = None


class LedgerStore(Protocol):
    """One durable ledger; called by its one writer only."""

    def write(
        self,
        reservations: Sequence[Reservation],
        marks: Sequence[tuple[str, int, int]],
        settlements: Sequence[Settlement],
        *,
        survive_power_loss: bool,
    ) -> list[ClaimState | None]:
        """One transaction. `marks` are (request id, tokens in, tokens out) of running
        requests. A settlement of a request that is settled already changes nothing.
        Returns, for each reservation, what its idempotency claim met (None without
        a claim); a reservation whose claim was not `claimed` is not written."""
        ...

    def settle_orphans(self, now_us: int) -> int:
        """Settles every reservation left open by a process that died, from its last
        mark; returns how many. Only to be called before new ones are written."""
        ...
