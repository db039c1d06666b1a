"""What the rest of Freehold asks of the store. The tenant is always an argument;
"not yours" and "not there" both come back as None or an empty list."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from freehold.core.adapter import Adapter
from freehold.core.binding import Environment, Route, Scope
from freehold.core.dataset import Dataset
from freehold.core.departure import OnDeparture, Restraint
from freehold.core.event import Event
from freehold.core.policy import Policy
from freehold.core.role import RoleGrant
from freehold.core.session import Session
from freehold.core.signature import Signature, SigningKey
from freehold.core.subject import SubjectKey
from freehold.core.tenant import Holding, IsolationClass, Tenant
from freehold.core.usage import IdempotencyClaim, StoredReply, UsageRow
from freehold.store.packed import packed


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
    networks: frozenset[str] | None = None  # CIDR; None: from everywhere
    replaced_by: str | None = None
    lineage: str | None = None  # the first of the keys that replaced one another
    certificates: frozenset[str] | None = None  # of clients; None: with any or none
    on_departure: OnDeparture = OnDeparture.DEFAULT
    restraint: Restraint | None = None  # until somebody confirms its use
    restrained_at_us: int | None = None


@dataclass(frozen=True, slots=True)
class Replacement:
    """What a rotation found or made: `is_new` when this call made it, `token` that of the
    call which did, `by` the key that replaces the other."""

    is_new: bool
    token: str
    by: KeyRecord | None


class TenantStore(Protocol):
    def access_number(self) -> int:
        """Counts the changes to tenants and keys that every process must hear of."""
        ...

    def tenants(self) -> Sequence[Tenant]:
        """All of them: who operates the installation asks, nobody for a tenant."""
        ...

    def tenant(self, tenant_id: str) -> Tenant | None: ...

    def add_tenant(
        self,
        tenant_id: str,
        name: str,
        at_us: int,
        isolation: IsolationClass = IsolationClass.SHARED,
    ) -> None:
        """Raises `UserError(CONFLICT)` when the name is taken."""
        ...

    def set_isolation(self, tenant_id: str, isolation: IsolationClass) -> Tenant | None: ...

    def disable_tenant(self, tenant_id: str, at_us: int | None) -> Tenant | None:
        """None enables it again; the first time of disabling stays."""
        ...

    def holdings(self, tenant_id: str, now_us: int) -> Sequence[Holding]:
        """What would be lost with it: routes that people set, adapters, living keys, policies."""
        ...

    def remove_tenant(self, tenant_id: str) -> bool:
        """With its keys, routes and adapters' rows; what it used stays in the ledger."""
        ...

    def standing(self, tenant_id: str, key_ids: Collection[str]) -> frozenset[str]:
        """Those of its keys that may go on: not revoked or suspended, and the tenant not
        disabled."""
        ...

    def suspended(self, tenant_id: str, key_ids: Collection[str]) -> frozenset[str]:
        """Those of its keys that wait for somebody to confirm them."""
        ...


class KeyStore(Protocol):
    def key_by_hash(self, hashed: bytes) -> KeyRecord | None:
        """The only read without a tenant: the hash itself proves who asks."""
        ...

    def tenant(self, tenant_id: str) -> Tenant | None: ...

    def keys(
        self, tenant_id: str, *, environment: Environment | None = None
    ) -> Sequence[KeyRecord]:
        """Of one environment, or of all."""
        ...

    def key(self, tenant_id: str, environment: Environment, key_id: str) -> KeyRecord | None: ...

    def add_key(self, record: KeyRecord) -> None:
        """Raises `UserError(CONFLICT)` when the id or the hash is there already."""
        ...

    def revoke_key(
        self, tenant_id: str, key_id: str, at_us: int, *, environment: Environment | None = None
    ) -> KeyRecord | None:
        """Idempotent; the first revocation's time stays."""
        ...

    def replace_key(
        self, tenant_id: str, key_id: str, new: KeyRecord, until_us: int, token: str
    ) -> Replacement | None:
        """Adds `new` and lets the old key end at `until_us`, or sooner if it was to. A key
        is replaced once: called again, it changes nothing and returns what the first call
        made. Both belong to the environment of `new`."""
        ...


class SubjectStore(Protocol):
    def living_key(self, tenant_id: str, subject: str) -> SubjectKey | None:
        """The newest that can still be read."""
        ...

    def subject_keys(self, ids: Sequence[str]) -> Sequence[SubjectKey]:
        """By their ids, which records name."""
        ...

    def add_subject_key(self, new: SubjectKey) -> None: ...


class PolicyStore(Protocol):
    def every_policy(self) -> Sequence[Policy]:
        """Of the installation and of all tenants: to decide with, and to show to nobody."""
        ...

    def policies(self, tenant_id: str | None) -> Sequence[Policy]:
        """A tenant's own, or with None those of the installation."""
        ...

    def put_policy(self, policy: Policy) -> None:
        """In place of its tenant's of the same name, if there is one."""
        ...

    def remove_policy(self, tenant_id: str | None, name: str) -> bool: ...


class SessionStore(Protocol):
    def add_session(
        self, new: Session, hashed: bytes, token_hash: bytes, replaces: bytes | None
    ) -> None:
        """Ends the one that has the hash `replaces`. Raises `UserError(CONFLICT)` for a
        token that was exchanged before."""
        ...

    def session_by_hash(self, hashed: bytes) -> Session | None:
        """The only read without a tenant: the hash itself proves who asks."""
        ...

    def sessions(
        self, tenant_id: str, now_us: int, person_id: str | None = None
    ) -> Sequence[Session]:
        """Those that have not ended, the newest first."""
        ...

    def last_session(self, tenant_id: str, person_id: str) -> Session | None:
        """A person's newest, ended or not."""
        ...

    def use_session(self, session_id: str, at_us: int) -> None: ...

    def end_session(
        self, tenant_id: str, session_id: str, at_us: int, by: str, person_id: str | None = None
    ) -> Session | None:
        """Idempotent; the first end stays. With `person_id`, only one of that person's."""
        ...

    def cut_off(self, tenant_id: str, person_id: str | None, at_us: int, by: str) -> int:
        """Ends a person's sessions, or all of the tenant, and refuses their tokens that were
        made before; returns how many sessions that ended."""
        ...

    def every_cut_off(self) -> Mapping[tuple[str, str], int]:
        """By tenant and person, who is empty for everybody: to decide with, and to show to
        nobody."""
        ...

    def living_sessions(self, session_ids: Collection[str]) -> frozenset[str]:
        """Those that have not been ended."""
        ...


class RoleStore(Protocol):
    def every_role_grant(self) -> Sequence[RoleGrant]:
        """Of all tenants: to decide with, and to show to nobody."""
        ...

    def role_grants(self, tenant_id: str, environment: Environment) -> Sequence[RoleGrant]: ...

    def grant_role(self, new: RoleGrant) -> None: ...

    def revoke_role(self, old: RoleGrant) -> bool: ...


class PeopleStore(SessionStore, RoleStore, Protocol):
    """All that is kept of people."""


class RouteStore(Protocol):
    def routes(self, tenant_id: str, environment: Environment) -> Sequence[Route]:
        """One for each alias: a person's hides a managed one."""
        ...

    def put_routes(self, tenant_id: str, environment: Environment, new: Sequence[Route]) -> None:
        """Replaces the managed routes of the tenant's environment in one transaction."""
        ...

    def set_route(self, tenant_id: str, route: Route) -> Route | None:
        """Moves a person's alias in one transaction, and returns where it led before.
        Raises `UserError(NOT_FOUND)` when the tenant's environment has no such adapter
        for this base."""
        ...

    def remove_route(self, tenant_id: str, environment: Environment, alias: str) -> Route | None:
        """A person's route; a managed one of the same alias shows again."""
        ...


class AdapterStore(Protocol):
    def adapters(
        self, tenant_id: str, environment: Environment, limit: int, after: str = ""
    ) -> Sequence[Adapter]:
        """By name, the first `limit` whose name comes after `after`."""
        ...

    def adapters_called(
        self, tenant_id: str, environment: Environment, reference: str
    ) -> Sequence[Adapter]:
        """By name or digest: several when the same files serve several bases."""
        ...

    def add_adapters(
        self, tenant_id: str, new: Sequence[Adapter], signed: Sequence[Signature] = ()
    ) -> None:
        """All or none. Raises `UserError(CONFLICT)` for a name that is given already."""
        ...

    def remove_adapter(self, tenant_id: str, adapter_id: str) -> frozenset[str] | None:
        """Returns the digests of those of its files that nobody needs any more. Raises
        `UserError(CONFLICT)` naming the routes that lead to it."""
        ...


class SignatureStore(Protocol):
    def signatures(self, tenant_id: str, digest: str) -> Sequence[Signature]:
        """On its adapter of this digest, the oldest first."""
        ...

    def add_signature(self, tenant_id: str, adapter: Adapter, new: Signature) -> None:
        """In place of that of the same key, if there is one."""
        ...

    def signing_keys(self) -> Sequence[SigningKey]:
        """Of all gateways on this database, the oldest first."""
        ...

    def add_signing_key(self, new: SigningKey, *, is_rotation: bool) -> None: ...

    def revoke_signing_key(self, key: str, since_us: int) -> None:
        """Raises `CONFLICT` where it was revoked from an earlier time on."""
        ...

    def adapters_signed_by(self, key: str) -> list[tuple[Adapter, list[Signature]]]:
        """Every tenant's, with all of their signatures."""
        ...


class DatasetStore(Protocol):
    def datasets(
        self, tenant_id: str, environment: Environment, limit: int, after: str = ""
    ) -> Sequence[Dataset]:
        """In the order in which they were added, the first `limit` whose id comes after
        `after`."""
        ...

    def dataset(self, tenant_id: str, environment: Environment, reference: str) -> Dataset | None:
        """By id, digest, `name@version`, or name: the newest version then."""
        ...

    def add_dataset(self, tenant_id: str, new: Dataset) -> None:
        """Raises `UserError(CONFLICT)` for a version that is given already."""
        ...

    def remove_dataset(self, tenant_id: str, dataset_id: str, findings: Sequence[str] = ()) -> bool:
        """`findings` are what its report warned of: they stay with what is left of it."""
        ...

    def add_words(self, tenant_id: str, digest: str, data_keys: Collection[str]) -> None:
        """Whose words the examples of a digest hold: of those to whom these data keys belong."""
        ...

    def is_remembered(self, tenant_id: str, digest: str) -> bool:
        """Whether a dataset of this digest holds words of somebody who was forgotten."""
        ...


class EventStore(Protocol):
    def add_events(self, new: Sequence[tuple[Event, Collection[str]]]) -> None: ...

    def due_deliveries(self, now_us: int, limit: int) -> "Sequence[Due]": ...

    def delivered(self, event_id: str, webhook: str) -> None: ...

    def deliver_later(self, event_id: str, webhook: str, at_us: int) -> None: ...

    def forget_events(self, before_us: int, webhooks: Collection[str]) -> None: ...


@dataclass(frozen=True, slots=True)
class Due:
    """An event that a webhook has not taken yet."""

    event: Event
    webhook: str
    attempts: int


class UsageStore(Protocol):
    def usage(
        self,
        tenant_id: str,
        since_us: int,
        until_us: int,
        key_id: str | None = None,
        *,
        environment: Environment | None = None,
    ) -> Sequence[UsageRow]: ...


@dataclass(frozen=True, slots=True)
class ClaimState:
    """What an Idempotency-Key met: nothing (`claimed`), the same body still running
    (`running`), its stored reply, or another body (`mismatch`)."""

    claimed: bool = False
    running: bool = False
    mismatch: bool = False
    reply: StoredReply | None = None


@dataclass(slots=True)
class Entries:
    """What the ledger wrote, in the order that a database must take it.

    Each is a list: a kind, then what `ledger.py` puts there. `r` a reservation, `m` a
    mark (how far a running request came), `s` a settlement, `c` and `d` a claim that
    was made and that is done, `a` what was said, to be kept with its audit record.
    """

    reservations: list[bytes] = field(default_factory=list)
    marks: dict[str, bytes] = field(default_factory=dict)  # the last of each request
    settlements: dict[str, bytes] = field(default_factory=dict)  # the first of each
    claims: list[list[Any]] = field(default_factory=list)
    contents: list[list[Any]] = field(default_factory=list)
    added: int = 0

    def add(self, entry: list[Any], text: bytes | None = None) -> None:
        """`text` is the entry in JSON, where somebody wrote it already: of what comes with each
        request that is kept, a fifth of the list. Raises `ValueError` for a kind that
        this version does not know."""
        kind = entry[0]
        if kind in ("r", "s", "m"):
            text = packed(entry) if text is None else text
            if kind == "r":
                self.reservations.append(text)
            elif kind == "s":
                self.settlements.setdefault(entry[1], text)
            else:
                self.marks[entry[1]] = text
        elif kind in ("c", "d"):
            self.claims.append(entry)
        elif kind == "a":
            self.contents.append(entry)
        else:
            raise ValueError(f"unknown ledger entry {kind!r}")
        self.added += 1

    def then(self, later: "Entries") -> "Entries":
        return Entries(
            self.reservations + later.reservations,
            self.marks | later.marks,
            self.settlements
            | {
                name: entry
                for name, entry in later.settlements.items()
                if name not in self.settlements
            },
            self.claims + later.claims,
            self.contents + later.contents,
            self.added + later.added,
        )


class LedgerStore(Protocol):
    """The database behind the ledger."""

    def apply(self, entries: Entries) -> None:
        """One transaction, safe from the loss of power. Entries that are there already
        change nothing, a settlement of a request that is settled neither. Raises
        `UserError(STORAGE_UNAVAILABLE)`, and then nothing was applied."""
        ...

    def claim(
        self, claim: IdempotencyClaim, request_id: str, now_us: int, ended: str | None = None
    ) -> ClaimState | None:
        """What the database knows of an idempotency slot; `claimed` when it was taken there,
        for all gateways; None: it is free, and there are no others. `ended` is the request
        that held it before and left nothing worth repeating, which the database may not know
        yet."""
        ...

    def unclaim(self, slot: str, request_id: str) -> None:
        """What `claim` took, for a request that was not let in after all."""
        ...

    def settle_orphans(self, now_us: int) -> int:
        """Settles every reservation that an earlier process of this gateway left open, from
        its last mark; returns how many. Only to be called before new ones are written."""
        ...
