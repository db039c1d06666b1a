"""`/admin/v1/promotions` and `/admin/v1/rollbacks`: revisions on their way, and back."""

import asyncio
from contextlib import ExitStack
from dataclasses import asdict
from typing import Any

from freehold.catalog.arriving import Arrived, arrived
from freehold.catalog.exporting import Exported
from freehold.config.schema import Name
from freehold.core.action import Action, Space
from freehold.core.binding import Environment, Principal
from freehold.core.clock import rfc3339
from freehold.core.errors import Code, UserError
from freehold.core.event import Happening, Kind
from freehold.core.promotion import Promotion
from freehold.secure.grants import check_use
from freehold.serve.admin.paging import NewestQuery, reply_page
from freehold.serve.gateway import Gateway
from freehold.serve.owner import Owner, OwnQuery, owner
from freehold.serve.promotions import NewExport, NewPromotion, NewRollback
from freehold.serve.reading import body_of, parsed, query
from freehold.serve.wire import Receive, Scope, Send, reply_json
from freehold.store.promotions import no_promotion


class PromotionsQuery(NewestQuery):
    """Those of one alias, or all."""

    alias: Name | None = None


class PromotionsAdmin:
    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    async def listing(
        self, scope: Scope, receive: Receive, send: Send, principal: Principal, key: str
    ) -> None:
        asked = query(PromotionsQuery, scope)
        place = self._owner(scope, principal, asked)
        found = await asyncio.to_thread(
            self._gateway.store.promotions, *place, asked.limit + 1, asked.before, asked.alias
        )
        await reply_page(send, found, asked.limit, shown_promotion)

    async def get(
        self, scope: Scope, receive: Receive, send: Send, principal: Principal, key: str
    ) -> None:
        place = self._owner(scope, principal, query(OwnQuery, scope))
        named = scope["path_params"]["promotion"]
        found = await asyncio.to_thread(self._gateway.store.promotion, *place, named)
        if found is None:
            raise no_promotion(named)
        await reply_json(send, shown_promotion(found))

    async def promote(
        self, scope: Scope, receive: Receive, send: Send, principal: Principal, key: str
    ) -> None:
        gateway = self._gateway
        asked = parsed(NewPromotion, await body_of(gateway, scope, receive, principal, key))
        place = self._owner(scope, principal, asked)
        if asked.watch.judge is not None:
            check_use(principal, *place, {asked.watch.judge})
        if asked.upload is None:
            done, notes = await self._promoted(place, asked, principal, None), []
        else:
            now_us = gateway.clock.wall_us()
            opened, stack = arrived(gateway.adapters, place, asked.upload, now_us), ExitStack()
            try:
                came = await asyncio.to_thread(stack.enter_context, opened)
                notes = await asyncio.to_thread(gateway.promoting.notes, place, came)
                done = await self._promoted(place, asked, principal, came)
            finally:
                await asyncio.to_thread(stack.close)
        gateway.events.tell(_promoted(done))
        await reply_json(send, shown_promotion(done) | {"notes": notes}, status=201)

    async def _promoted(
        self, place: Owner, asked: NewPromotion, principal: Principal, came: Arrived | None
    ) -> Promotion:
        gateway = self._gateway
        shared = await asyncio.to_thread(gateway.promoting.shared, place, asked, came)
        if shared is not None:
            if shared.share == asked.share / 100:
                raise UserError(
                    Code.CONFLICT,
                    f"{shared.alias} has {asked.share:g} of a hundred requests already.",
                    param="share",
                )
            return await gateway.routes.share(shared, asked.share / 100)
        at_us = gateway.clock.wall_us()
        step = await asyncio.to_thread(
            gateway.promoting.step, place, asked, principal.id, at_us, came
        )
        return await gateway.routes.promote(step)

    async def export(
        self, scope: Scope, receive: Receive, send: Send, principal: Principal, key: str
    ) -> None:
        """Of adapters, and of gates and what evaluations found, too."""
        gateway = self._gateway
        asked = parsed(NewExport, await body_of(gateway, scope, receive, principal, key))
        place = self._owner(scope, principal, asked)

        def check_reading(environment: Environment) -> None:
            gateway.policies.require(
                principal,
                Action.READ_JOBS,
                Space(place[0], environment),
                scope["freehold.address"],
            )

        check_reading(place[1])
        done = await asyncio.to_thread(
            gateway.exporting.export,
            place,
            asked.alias,
            asked.download,
            check_reading,
            with_examples=asked.with_examples,
        )
        await reply_json(send, shown_export(done), status=201)

    async def roll_back(
        self, scope: Scope, receive: Receive, send: Send, principal: Principal, key: str
    ) -> None:
        gateway = self._gateway
        asked = parsed(NewRollback, await body_of(gateway, scope, receive, principal, key))
        place = self._owner(scope, principal, asked)
        last = await asyncio.to_thread(gateway.promoting.last, place, asked.alias)
        because = asked.reason or "somebody asked for it"
        done = await gateway.routes.roll_back(last, because, principal.id)
        gateway.events.tell(rolled_back(done))
        await reply_json(send, shown_promotion(done))

    def _owner(
        self,
        scope: Scope,
        principal: Principal,
        asked: OwnQuery | NewPromotion | NewExport | NewRollback,
    ) -> Owner:
        return owner(self._gateway, scope, principal, asked.tenant, asked.environment)


def _promoted(promotion: Promotion) -> Happening:
    share = "" if promotion.share == 1 else f" with {promotion.share * 100:g} of 100 requests"
    there = promotion.elsewhere
    came = f" from {promotion.source} of {there.by} (key {there.key[:16]})" if there else ""
    forced = f", forced over {', '.join(promotion.overridden)}" if promotion.forced else ""
    return _told(Kind.PROMOTED, promotion, f"{promotion.alias} was promoted{came}{share}{forced}.")


def rolled_back(promotion: Promotion) -> Happening:
    text = f"{promotion.alias} was rolled back: {promotion.ended_because}"
    return _told(Kind.ROLLED_BACK, promotion, text)


def _told(kind: Kind, promotion: Promotion, text: str) -> Happening:
    return Happening(
        kind,
        text,
        subject=promotion.id,
        tenant_id=promotion.tenant_id,
        environment=promotion.environment.value,
    )


def shown_export(done: Exported) -> dict[str, Any]:
    return {
        "adapter": done.adapter.name,
        "adapter_digest": done.adapter.digest,
        "base": done.base.name,
        "base_digest": done.base.digest,
        "environment": done.adapter.environment.value,
        "gate": done.gate.id,
        "digest": done.digest,
        "signed_by": done.signed_by,
        "figures": done.has_figures,
        "examples": done.has_examples,
        "forgotten": done.is_remembered,
    }


def shown_promotion(promotion: Promotion) -> dict[str, Any]:
    before = promotion.before
    return {
        "id": promotion.id,
        "tenant": promotion.tenant_id,
        "environment": promotion.environment.value,
        "source": promotion.source and promotion.source.value,
        "elsewhere": promotion.elsewhere and asdict(promotion.elsewhere),
        "alias": promotion.alias,
        "adapter": promotion.adapter,
        "bundle": asdict(promotion.bundle),
        "gate": promotion.gate,
        "forced": promotion.forced,
        "overridden": list(promotion.overridden),
        "accepted_licence": promotion.accepted,
        "state": promotion.state.value,
        "share": promotion.share * 100,
        "watch": asdict(promotion.watch),
        "before": before
        and {"base_digest": before.base_digest, "adapter_digest": before.adapter_digest},
        "figures": promotion.figures,
        "made_at": rfc3339(promotion.made_at_us),
        "made_by": promotion.made_by,
        "whole_at": promotion.whole_at_us and rfc3339(promotion.whole_at_us),
        "ended_at": promotion.ended_at_us and rfc3339(promotion.ended_at_us),
        "ended_because": promotion.ended_because,
        "ended_by": promotion.ended_by,
    }
