"""The tenants as requests see them: one snapshot, and where it lets routes lead."""

from collections.abc import Collection, Mapping
from dataclasses import replace

from freehold.core.binding import Route
from freehold.core.tenant import Tenant
from freehold.store.base import TenantStore


class Tenants:
    """Snapshots are replaced whole, never changed."""

    def __init__(self, store: TenantStore) -> None:
        self._store = store
        self._by_id: Mapping[str, Tenant] = {}
        self._by_name: Mapping[str, Tenant] = {}
        self.show(self.read())

    def read(self) -> list[Tenant]:
        """What the store says now; may block."""
        return list(self._store.tenants())

    def differing(self, found: Collection[Tenant]) -> frozenset[str]:
        """Those that are not as this snapshot has them."""
        now = {tenant.id: tenant for tenant in found}
        return frozenset(
            name for name in now.keys() | self._by_id.keys()
            if now.get(name) != self._by_id.get(name)
        )  # fmt: skip

    def show(self, found: Collection[Tenant]) -> None:
        self._by_id = {tenant.id: tenant for tenant in found}
        self._by_name = {tenant.name: tenant for tenant in found}

    def find(self, reference: str) -> Tenant | None:
        """By name or id."""
        return self._by_name.get(reference) or self._by_id.get(reference)

    @property
    def begun_at_us(self) -> int:
        """When the first one came: that of the installation's first start."""
        return min((tenant.created_at_us for tenant in self._by_id.values()), default=0)

    def is_enabled(self, tenant_id: str) -> bool:
        tenant = self._by_id.get(tenant_id)
        return tenant is not None and tenant.is_active

    def pool(self, route: Route) -> str:
        """Where this route's requests are computed."""
        tenant = self._by_id.get(route.tenant_id)
        if tenant is None or not tenant.has_own(route):
            return route.pool
        return tenant.pool(route.pool)

    def placed(self, route: Route) -> Route:
        """With its candidate."""
        pool = self.pool(route)
        if route.candidate is not None:
            placed = self.placed(route.candidate.route)
            route = replace(route, candidate=replace(route.candidate, route=placed))
        return route if pool == route.pool else replace(route, pool=pool)
