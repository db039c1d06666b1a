"""`/admin/v1/gates`: what evaluations decided."""

import asyncio
from dataclasses import asdict
from typing import Annotated, Any

from pydantic import Field

from freehold.core.binding import Principal
from freehold.core.clock import rfc3339
from freehold.core.errors import Code, UserError
from freehold.core.gate import Elsewhere, Gate
from freehold.serve.admin.paging import NewestQuery, reply_page
from freehold.serve.gateway import Gateway
from freehold.serve.owner import Owner, OwnQuery, owner
from freehold.serve.reading import query
from freehold.serve.wire import Receive, Scope, Send, reply_json
from freehold.store.sql import SqlStore


class GatesQuery(NewestQuery):
    """The newest first; those that are older than the gate `before`. `adapter` is a digest."""

    adapter: Annotated[str | None, Field(max_length=80)] = None


class GatesAdmin:
    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    async def listing(
        self, scope: Scope, receive: Receive, send: Send, principal: Principal, key: str
    ) -> None:
        asked = query(GatesQuery, scope)
        tenant_id, environment = self._owner(scope, principal, asked)
        found = await asyncio.to_thread(
            self._gateway.store.gates,
            tenant_id,
            asked.limit + 1,
            asked.before,
            asked.adapter,
            environment,
        )
        await reply_page(send, found, asked.limit, shown_gate)

    async def get(
        self, scope: Scope, receive: Receive, send: Send, principal: Principal, key: str
    ) -> None:
        place = self._owner(scope, principal, query(OwnQuery, scope))
        gate_id = scope["path_params"]["gate"]
        found = await asyncio.to_thread(gate_named, self._gateway.store, place, gate_id)
        await reply_json(send, shown_gate(found))

    def _owner(self, scope: Scope, principal: Principal, asked: OwnQuery) -> Owner:
        return owner(self._gateway, scope, principal, asked.tenant, asked.environment)


def gate_named(store: SqlStore, place: Owner, gate_id: str) -> Gate:
    """May block. Raises `NOT_FOUND`, for what is another environment's too."""
    tenant_id, environment = place
    found = store.gate(tenant_id, gate_id)
    if found is None or found.environment is not environment:
        raise UserError(
            Code.NOT_FOUND, f"There is no gate {gate_id[:80]!r}: see `freehold gate list`."
        )
    return found


def shown_gate(gate: Gate) -> dict[str, Any]:
    return {
        "id": gate.id,
        "tenant": gate.tenant_id,
        "environment": gate.environment.value,
        "base_digest": gate.base_digest,
        "adapter_digest": gate.adapter_digest,
        "suite_name": gate.suite_name,
        "suite_digest": gate.suite_digest,
        "incumbent_digest": gate.incumbent_digest,
        "passed": gate.passed,
        "verdicts": [
            {"name": v.name, "needed": v.needed, "found": v.found, "passed": v.passed}
            for v in gate.verdicts
        ],
        "job": gate.job,
        "made_at": rfc3339(gate.made_at_us),
        "made_by": gate.made_by,
        "elsewhere": gate.elsewhere and _shown_elsewhere(gate.elsewhere),
    }


def _shown_elsewhere(there: Elsewhere) -> dict[str, Any]:
    return {
        "signer": asdict(there.signer),
        "through": asdict(there.through),
        "gate": there.gate,
        "environment": there.environment.value,
        "came_at": rfc3339(there.came_at_us),
        "figures": there.figures,
    }
