"""`/admin/v1/adapters`: what a tenant's environment trained or brought, and its signatures."""

import asyncio
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from freehold.catalog.adapters import Verified, Wanted
from freehold.core.adapter import Adapter
from freehold.core.binding import Environment, Principal
from freehold.core.clock import rfc3339
from freehold.core.manifest import as_plain
from freehold.core.model import ModelCard
from freehold.serve.admin.paging import PageQuery, reply_page
from freehold.serve.gateway import Gateway
from freehold.serve.owner import Owner, OwnQuery, owner
from freehold.serve.reading import body_of, parsed, query
from freehold.serve.routes import Reference
from freehold.serve.wire import Receive, Scope, Send, reply_json


class NewAdapter(BaseModel):
    """An adapter whose two files were laid into the home: `upload` is the name of the
    folder there, which only who laid it knows."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    upload: Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
    base: Reference
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")]
    tenant: Reference | None = None
    environment: Environment | None = None
    source: Annotated[str, Field(max_length=200)] = ""

    def wanted(self) -> Wanted:
        return Wanted(self.upload, self.base, self.name, self.source)


class AdaptersAdmin:
    """Acts inside one tenant and environment."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    async def listing(
        self, scope: Scope, receive: Receive, send: Send, principal: Principal, key: str
    ) -> None:
        asked = query(PageQuery, scope)
        place = self._owner(scope, principal, asked)
        found = await asyncio.to_thread(
            self._gateway.adapters.page, *place, asked.limit + 1, asked.after
        )
        await reply_page(send, found, asked.limit, self._shown)

    async def add(
        self, scope: Scope, receive: Receive, send: Send, principal: Principal, key: str
    ) -> None:
        asked = parsed(NewAdapter, await body_of(self._gateway, scope, receive, principal, key))
        place = self._owner(scope, principal, asked)
        added = await asyncio.to_thread(self._gateway.adapters.add, *place, asked.wanted())
        await reply_json(send, self._shown(added), status=201)

    async def get(
        self, scope: Scope, receive: Receive, send: Send, principal: Principal, key: str
    ) -> None:
        place = self._owner(scope, principal, query(OwnQuery, scope))
        reference = scope["path_params"]["adapter"]
        found = await asyncio.to_thread(self._gateway.adapters.get, *place, reference)
        await reply_json(send, self._shown(found))

    async def remove(
        self, scope: Scope, receive: Receive, send: Send, principal: Principal, key: str
    ) -> None:
        place = self._owner(scope, principal, query(OwnQuery, scope))
        reference = scope["path_params"]["adapter"]
        removed = await self._gateway.routes.remove_adapter(*place, reference)
        await reply_json(send, self._shown(removed))

    async def verify(
        self, scope: Scope, receive: Receive, send: Send, principal: Principal, key: str
    ) -> None:
        place = self._owner(scope, principal, query(OwnQuery, scope))
        adapters, reference = self._gateway.adapters, scope["path_params"]["adapter"]
        adapter = await asyncio.to_thread(adapters.get, *place, reference)
        await reply_json(send, shown_verified(await asyncio.to_thread(adapters.verified, adapter)))

    async def sign(
        self, scope: Scope, receive: Receive, send: Send, principal: Principal, key: str
    ) -> None:
        place = self._owner(scope, principal, query(OwnQuery, scope))
        reference = scope["path_params"]["adapter"]
        signed = await self._gateway.routes.sign_adapter(*place, reference)
        await reply_json(send, shown_verified(signed), status=201)

    def _shown(self, adapter: Adapter) -> dict[str, Any]:
        return shown_adapter(adapter, self._gateway.cards)

    def _owner(self, scope: Scope, principal: Principal, asked: NewAdapter | OwnQuery) -> Owner:
        return owner(self._gateway, scope, principal, asked.tenant, asked.environment)


def shown_adapter(adapter: Adapter, cards: Mapping[str, ModelCard]) -> dict[str, Any]:
    base = cards.get(adapter.base_digest)
    return {
        "id": adapter.id,
        "name": adapter.name,
        "environment": adapter.environment.value,
        "digest": adapter.digest,
        "base": base.name if base else None,
        "base_digest": adapter.base_digest,
        "rank": adapter.rank,
        "scaling": adapter.scaling,
        "target_modules": list(adapter.target_modules),
        "size_bytes": adapter.size_bytes,
        "source": adapter.source,
        "added_at": rfc3339(adapter.added_at_us),
        "manifest": None if adapter.manifest is None else as_plain(adapter.manifest),
    }


def shown_verified(found: Verified) -> dict[str, Any]:
    return {
        "name": found.adapter.name,
        "environment": found.adapter.environment.value,
        "digest": found.adapter.digest,
        "holds": found.holds,
        "spoilt": found.spoilt,
        "kept_out": found.kept_out,
        "signatures": [
            {
                "key": each.signature.key,
                "by": each.by,
                "holds": each.reason is None,
                "reason": each.reason,
                "made_at": rfc3339(each.signature.made_at_us),
                "made_by": each.signature.made_by,
                "bundle": each.signature.bundle,
            }
            for each in found.signatures
        ],
    }
