"""The Binding: everything that was decided about a request before an engine sees it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from freehold.core.price import Price


class Environment(StrEnum):
    DEV = "dev"
    STAGING = "staging"
    PROD = "prod"


class Scope(StrEnum):
    """What a key may do. `INFER` uses models, `ADMIN` administers its tenant, `AUDIT` reads
    what an auditor needs and changes nothing, `OPERATE` runs the installation: its tenants,
    and beside `ADMIN` what belongs to any of them. `OWN` may all of that and write policies."""

    INFER = "infer"
    ADMIN = "admin"
    AUDIT = "audit"
    OPERATE = "operate"
    OWN = "own"


class Role(StrEnum):
    """A scope as policies and groups have it: what `user` is for people, `infer` is for keys."""

    USER = "user"
    ADMIN = "admin"
    AUDITOR = "auditor"
    OPERATOR = "operator"
    OWNER = "owner"

    @property
    def scope(self) -> Scope:
        return next(scope for scope, role in ROLES.items() if role is self)


ROLES: Mapping[Scope, Role] = {
    Scope.INFER: Role.USER,
    Scope.ADMIN: Role.ADMIN,
    Scope.AUDIT: Role.AUDITOR,
    Scope.OPERATE: Role.OPERATOR,
    Scope.OWN: Role.OWNER,
}
OF_ALL = frozenset({Scope.OPERATE, Scope.OWN})  # scopes that reach beyond one tenant


class Priority(StrEnum):
    INTERACTIVE = "interactive"
    BATCH = "batch"


class Isolation(StrEnum):
    """How a tenant shares an engine: `SALTED` shares a prefix cache under its own
    salt, `NOCACHE` shares an engine that keeps nothing between requests,
    `DEDICATED` has processes of its own, `WEIGHTS` a copy of the weights besides,
    `REMOTE` leaves it to the upstream."""

    SALTED = "salted"
    NOCACHE = "nocache"
    DEDICATED = "dedicated"
    WEIGHTS = "weights"
    REMOTE = "remote"


@dataclass(frozen=True, slots=True)
class Vouched:
    """Who said who a person is, and when: a provider, by a token or by the session that one
    was exchanged for."""

    issuer: str
    at_us: int
    session_id: str | None = None


@dataclass(frozen=True, slots=True)
class Principal:
    """Who asks: a key or a person, whose `id` is public and never changes. `is_local` is the owner
    of the home on its own machine, to whom all environments belong. `epoch` counts the
    changes to keys and tenants that were known when it was last looked up; `vouched` says
    through whom a person came."""

    id: str
    tenant_id: str
    environment: Environment
    scopes: frozenset[Scope]
    models: frozenset[str] | None  # None: every alias of the tenant
    networks: frozenset[str] | None = None  # None: from everywhere
    expires_at_us: int | None = None
    is_local: bool = False
    groups: frozenset[str] | None = None  # of a person; None for a key
    lineage: str | None = None  # the first of the keys that replaced one another
    certificates: frozenset[str] | None = None  # names of clients'; None: with any or none
    is_stepped_down: bool = False  # used otherwise than before, and not confirmed yet
    epoch: int = field(default=0, compare=False)
    # What is known of who it is, by the names of personal fields (`core/subject.py`).
    known: tuple[tuple[str, str], ...] = field(default=(), compare=False)
    vouched: Vouched | None = field(default=None, compare=False)

    def __hash__(self) -> int:
        """Of what tells them apart: decisions are looked up by it for every request."""
        return hash(self.id)

    @property
    def account(self) -> str:
        """Whose use it is: that of a key goes on with the key that replaces it."""
        return self.lineage or self.id


@dataclass(frozen=True, slots=True)
class Route:
    """What an alias stands for in one tenant and environment. `managed` ones are written
    at each start, one for each served model; the others are a person's, and hide a
    managed one of the same alias as long as they are there. `alias_since_us` is when the
    alias was first there, if that was under another route. `candidate` has a share of the
    requests for the same alias."""

    id: str
    tenant_id: str
    environment: Environment
    alias: str
    engine: str
    pool: str
    base_digest: str | None  # None: a remote that does not prove its weights
    adapter_digest: str | None
    engine_model: str
    created_at_us: int
    managed: bool = False
    alias_since_us: int | None = field(default=None, compare=False)
    # What it was let into staging or prod by, and with which promotion it came.
    passed_by: str | None = field(default=None, compare=False)
    promotion: str | None = field(default=None, compare=False)
    candidate: "Candidate | None" = field(default=None, compare=False)

    def __hash__(self) -> int:
        """As of a principal."""
        return hash(self.id)

    @property
    def since_us(self) -> int:
        """Since when its tenant has the alias."""
        return self.created_at_us if self.alias_since_us is None else self.alias_since_us


@dataclass(frozen=True, slots=True)
class Candidate:
    """A revision that is tried beside the one that answers. `share` of all is more than 0 and
    less than 1."""

    route: Route
    share: float


@dataclass(frozen=True, slots=True)
class Binding:
    """Resolved once, in `serve/admission.py`, from one snapshot; read ever after."""

    request_id: str
    principal: Principal
    route: Route
    isolation: Isolation
    cache_salt: str
    price: Price | None  # None: nobody said what it costs
    priority: Priority
    endpoint: str
    stream: bool
    conversation_id: str | None
    client_request_id: str | None
    address: str | None = None  # where the request comes from
    policies: tuple[str, ...] = ()  # that admitted it
    guard_policy: str | None = None
    residency: str | None = None
    audit_stream: str | None = None
