"""The routes as the request path sees them: one snapshot a tenant and environment."""

from collections.abc import Mapping

from freehold.core.binding import Environment, Route
from freehold.store.base import RouteStore


class Directory:
    """Snapshots are replaced whole, never changed, so that one request sees one
    state of the world. `forget` drops them after a change."""

    def __init__(self, store: RouteStore) -> None:
        self._store = store
        self._snapshots: dict[tuple[str, Environment], Mapping[str, Route]] = {}

    def routes(self, tenant_id: str, environment: Environment) -> Mapping[str, Route]:
        key = (tenant_id, environment)
        snapshot = self._snapshots.get(key)
        if snapshot is None:
            found = self._store.routes(tenant_id, environment)
            snapshot = {route.alias: route for route in found}
            self._snapshots[key] = snapshot
        return snapshot

    def forget(self) -> None:
        self._snapshots = {}
