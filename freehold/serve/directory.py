"""The routes as the request path sees them: one snapshot a tenant and environment."""

from collections.abc import Mapping

from freehold.core.binding import Environment, Route
from freehold.store.base import RouteStore


class Directory:
    """Snapshots are replaced whole, never changed, so that one request sees one
    state of the world."""

    def __init__(self, store: RouteStore) -> None:
        self._store = store
        self._snapshots: dict[tuple[str, Environment], Mapping[str, Route]] = {}

    def routes(self, tenant_id: str, environment: Environment) -> Mapping[str, Route]:
        snapshot = self._snapshots.get((tenant_id, environment))
        return self.load(tenant_id, environment) if snapshot is None else snapshot

    def load(self, tenant_id: str, environment: Environment) -> Mapping[str, Route]:
        """Reads the snapshot anew; may block."""
        found = {route.alias: route for route in self._store.routes(tenant_id, environment)}
        self._snapshots[tenant_id, environment] = found
        return found

    def lead(self, route: Route) -> None:
        """From now on its alias leads here, without reading thousands of others again."""
        known = self._snapshots.get((route.tenant_id, route.environment))
        if known is not None:
            changed = {**known, route.alias: route}
            self._snapshots[route.tenant_id, route.environment] = changed
