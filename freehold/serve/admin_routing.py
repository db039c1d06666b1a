"""`/admin/v1/adapters` and `/admin/v1/routes`: what a tenant's aliases lead to."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from freehold.catalog.adapters import Adapters, Verified, Wanted
from freehold.catalog.bundle import pem_of
from freehold.catalog.signatures import Signatures
from freehold.core.adapter import Adapter
from freehold.core.binding import Environment, Principal, Route
from freehold.core.manifest import as_plain
from freehold.core.model import ModelCard
from freehold.core.promotion import GATED
from freehold.serve.admin import body_of, parsed, query, rfc3339
from freehold.serve.gateway import Gateway
from freehold.serve.owner import Owner, OwnQuery, owner
from freehold.serve.routes import NewRoute, Reference, no_route
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


class PageQuery(OwnQuery):
    limit: Annotated[int, Field(ge=1, le=1000)] = 100
    after: Annotated[str, Field(max_length=128)] = ""


class RoutingAdmin:
    """Acts inside one tenant and environment."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    # adapters

    async def list_adapters(
        self, scope: Scope, receive: Receive, send: Send, principal: Principal, key: str
    ) -> None:
        asked = query(PageQuery, scope)
        place = self._owner(scope, principal, asked)
        found = await asyncio.to_thread(
            self._gateway.adapters.page, *place, asked.limit + 1, asked.after
        )
        data = [self._shown(each) for each in found[: asked.limit]]
        await reply_json(send, {"data": data, "has_more": len(found) > asked.limit})

    async def add_adapter(
        self, scope: Scope, receive: Receive, send: Send, principal: Principal, key: str
    ) -> None:
        asked = parsed(NewAdapter, await body_of(self._gateway, scope, receive, principal, key))
        place = self._owner(scope, principal, asked)
        added = await asyncio.to_thread(self._gateway.adapters.add, *place, asked.wanted())
        await reply_json(send, self._shown(added), status=201)

    async def get_adapter(
        self, scope: Scope, receive: Receive, send: Send, principal: Principal, key: str
    ) -> None:
        place = self._owner(scope, principal, query(OwnQuery, scope))
        reference = scope["path_params"]["adapter"]
        found = await asyncio.to_thread(self._gateway.adapters.get, *place, reference)
        await reply_json(send, self._shown(found))

    async def remove_adapter(
        self, scope: Scope, receive: Receive, send: Send, principal: Principal, key: str
    ) -> None:
        place = self._owner(scope, principal, query(OwnQuery, scope))
        reference = scope["path_params"]["adapter"]
        removed = await self._gateway.routes.remove_adapter(*place, reference)
        await reply_json(send, self._shown(removed))

    async def verify_adapter(
        self, scope: Scope, receive: Receive, send: Send, principal: Principal, key: str
    ) -> None:
        place = self._owner(scope, principal, query(OwnQuery, scope))
        adapters, reference = self._gateway.adapters, scope["path_params"]["adapter"]
        adapter = await asyncio.to_thread(adapters.get, *place, reference)
        await reply_json(send, shown_verified(await asyncio.to_thread(adapters.verified, adapter)))

    async def sign_adapter(
        self, scope: Scope, receive: Receive, send: Send, principal: Principal, key: str
    ) -> None:
        place = self._owner(scope, principal, query(OwnQuery, scope))
        reference = scope["path_params"]["adapter"]
        signed = await self._gateway.routes.sign_adapter(*place, reference)
        await reply_json(send, shown_verified(signed), status=201)

    # keys that sign

    async def list_keys(
        self, scope: Scope, receive: Receive, send: Send, principal: Principal, key: str
    ) -> None:
        signatures = self._gateway.adapters.signatures
        await reply_json(send, {"data": await asyncio.to_thread(shown_keys, signatures)})

    async def rotate_key(
        self, scope: Scope, receive: Receive, send: Send, principal: Principal, key: str
    ) -> None:
        signatures = self._gateway.adapters.signatures
        new = await asyncio.to_thread(signatures.rotate)
        shown = await asyncio.to_thread(shown_keys, signatures)
        await reply_json(send, next(each for each in shown if each["id"] == new.id), status=201)

    def _shown(self, adapter: Adapter) -> dict[str, Any]:
        return shown_adapter(adapter, self._gateway.cards)

    # routes

    async def list_routes(
        self, scope: Scope, receive: Receive, send: Send, principal: Principal, key: str
    ) -> None:
        asked = query(PageQuery, scope)
        place = self._owner(scope, principal, asked)
        mine = self._gateway.directory.routes(*place)
        aliases = sorted(alias for alias in mine if alias > asked.after)
        page = [mine[alias] for alias in aliases[: asked.limit]]
        data = await asyncio.to_thread(self._shown_routes, page)
        await reply_json(send, {"data": data, "has_more": len(aliases) > asked.limit})

    async def set_route(
        self, scope: Scope, receive: Receive, send: Send, principal: Principal, key: str
    ) -> None:
        wanted = parsed(NewRoute, await body_of(self._gateway, scope, receive, principal, key))
        place = self._owner(scope, principal, wanted)
        if place[1] in GATED:
            await self._let_in(place, wanted, principal.id)
            await self._reply(send, self._gateway.directory.routes(*place)[wanted.alias])
        else:
            await self._reply(send, await self._gateway.routes.set(*place, wanted))

    async def _let_in(self, place: Owner, wanted: NewRoute, by: str) -> None:
        gateway = self._gateway
        base = await asyncio.to_thread(gateway.adapters.base, wanted.base)
        step = await asyncio.to_thread(
            gateway.promoting.by_hand, place, wanted, base, by, gateway.clock.wall_us()
        )
        await gateway.routes.promote(step)

    async def get_route(
        self, scope: Scope, receive: Receive, send: Send, principal: Principal, key: str
    ) -> None:
        place = self._owner(scope, principal, query(OwnQuery, scope))
        alias = scope["path_params"]["alias"]
        found = self._gateway.directory.routes(*place).get(alias)
        if found is None:
            raise no_route(alias)
        await self._reply(send, found)

    async def remove_route(
        self, scope: Scope, receive: Receive, send: Send, principal: Principal, key: str
    ) -> None:
        place = self._owner(scope, principal, query(OwnQuery, scope))
        await self._reply(
            send, await self._gateway.routes.remove(*place, scope["path_params"]["alias"])
        )

    async def _reply(self, send: Send, route: Route) -> None:
        (shown,) = await asyncio.to_thread(self._shown_routes, [route])
        await reply_json(send, shown)

    def _shown_routes(self, routes: Sequence[Route]) -> list[dict[str, Any]]:
        gateway = self._gateway
        return [shown_route(route, gateway.adapters, gateway.cards) for route in routes]

    def _owner(
        self, scope: Scope, principal: Principal, asked: NewAdapter | NewRoute | OwnQuery
    ) -> Owner:
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


def shown_keys(signatures: Signatures) -> list[dict[str, Any]]:
    return [
        {
            "id": id,
            "by": trusted.by,
            "signs": id == signatures.current,
            "made_at": None if own is None else rfc3339(own.made_at_us),
            "public": pem_of(trusted.key).decode(),
        }
        for own, id, trusted in signatures.keys
    ]


def shown_route(route: Route, adapters: Adapters, cards: Mapping[str, ModelCard]) -> dict[str, Any]:
    base = cards.get(route.base_digest or "")
    return {
        "id": route.id,
        "alias": route.alias,
        "environment": route.environment.value,
        "engine": route.engine,
        "base": base.name if base else None,
        "base_digest": route.base_digest,
        "adapter": adapters.name_of(route),
        "adapter_digest": route.adapter_digest,
        "managed": route.managed,
        "passed_by": route.passed_by,
        "promotion": route.promotion,
        "candidate": route.candidate
        and {
            "adapter": adapters.name_of(route.candidate.route),
            "adapter_digest": route.candidate.route.adapter_digest,
            "base_digest": route.candidate.route.base_digest,
            "share": route.candidate.share * 100,
            "promotion": route.candidate.route.promotion,
        },
        "created_at": rfc3339(route.created_at_us),
    }
