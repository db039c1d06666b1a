"""Who is isolated from whom: tenants, and how far apart their requests are computed."""

from dataclasses import dataclass
from enum import StrEnum

from freehold.core.binding import Route
from freehold.core.departure import OnDeparture

DEFAULT_TENANT = "default"  # made at the first start; who operates belongs to it


class IsolationClass(StrEnum):
    """What a tenant was promised. `SHARED`: engines are shared, adapters and caches are
    its own. `DEDICATED`: engine processes of its own. `WEIGHTS`: those, on a copy of the
    weights that no other process reads."""

    SHARED = "shared"
    DEDICATED = "dedicated"
    WEIGHTS = "weights"


@dataclass(frozen=True, slots=True)
class Tenant:
    id: str
    name: str
    isolation: IsolationClass
    created_at_us: int
    disabled_at_us: int | None = None
    audit_content: bool = False  # whether what is said is kept with its audit records
    on_departure: OnDeparture = OnDeparture.DEFAULT  # of its keys that chose nothing
    feedback: bool = False  # whether answers may be rated, and become data to train on

    @property
    def is_active(self) -> bool:
        return self.disabled_at_us is None

    def pool(self, shared: str) -> str:
        """The pool that serves it what others get from the pool `shared`."""
        if self.isolation is IsolationClass.SHARED:
            return shared
        kind = "" if self.isolation is IsolationClass.DEDICATED else "+weights"
        return f"{shared}@{self.id}{kind}"

    def has_own(self, route: Route) -> bool:
        """Whether this route must lead to a pool of its own; upstreams are nobody's."""
        is_apart = self.isolation is not IsolationClass.SHARED
        return is_apart and route.base_digest is not None and route.engine != "remote"


@dataclass(frozen=True, slots=True)
class OwnPool:
    """A pool that one tenant alone uses, as the reconciler is asked for it."""

    name: str
    shared: str  # the pool that others would use
    tenant_id: str
    base_digest: str
    has_own_weights: bool


@dataclass(frozen=True, slots=True)
class Holding:
    """One thing that a tenant has: what kind, what it is called, and where; a policy is in
    all environments."""

    kind: str  # key, route, adapter, dataset, role, policy
    id: str
    name: str
    environment: str
