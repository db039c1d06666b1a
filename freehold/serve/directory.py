"""The routes as the request path sees them: one snapshot a tenant and environment."""

from collections.abc import Iterable, Mapping
from dataclasses import replace

from freehold.core.binding import Environment, Route
from freehold.serve.tenants import Tenants
from freehold.store.base import RouteStore


class Directory:
    """Snapshots are replaced whole, never changed, so that one request sees one
    state of the world. Each route leads to the pool that its tenant was promised."""

    def __init__(self, store: RouteStore, tenants: Tenants) -> None:
        self._store = store
        self._tenants = tenants
        self._snapshots: dict[tuple[str, Environment], Mapping[str, Route]] = {}

    def routes(self, tenant_id: str, environment: Environment) -> Mapping[str, Route]:
        snapshot = self._snapshots.get((tenant_id, environment))
        return self.load(tenant_id, environment) if snapshot is None else snapshot

    def load(self, tenant_id: str, environment: Environment) -> Mapping[str, Route]:
        """Reads the snapshot anew; may block."""
        placed = self._tenants.placed
        found = {route.alias: placed(route) for route in self._store.routes(tenant_id, environment)}
        self._snapshots[tenant_id, environment] = found
        return found

    def fill(self, routes: Iterable[Route]) -> None:
        """Those of all tenants at once: of two with one alias the later counts."""
        found: dict[tuple[str, Environment], dict[str, Route]] = {}
        for route in routes:
            mine = found.setdefault((route.tenant_id, route.environment), {})
            mine[route.alias] = self._tenants.placed(route)
        self._snapshots.update(found)

    def lead(self, route: Route) -> None:
        """From now on its alias leads here, without reading thousands of others again."""
        known = self._snapshots.get((route.tenant_id, route.environment))
        if known is not None:
            before = known.get(route.alias)
            since_us = None if before is None else before.since_us
            route = replace(route, alias_since_us=since_us)
            changed = {**known, route.alias: self._tenants.placed(route)}
            self._snapshots[route.tenant_id, route.environment] = changed

    def reload(self, tenant_id: str) -> None:
        """All that is known of a tenant, anew; may block."""
        for known, environment in list(self._snapshots):
            if known == tenant_id:
                self.load(tenant_id, environment)
