"""`/admin/v1/prices`: what models cost, and whether that pays for the machine."""

import asyncio
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from freehold.core.action import Action, Installation
from freehold.core.binding import Principal
from freehold.core.limit import DAY_US
from freehold.core.price import Price
from freehold.serve.gateway import Gateway
from freehold.serve.prices import Machine
from freehold.serve.reading import query
from freehold.serve.wire import Receive, Scope, Send, reply_json

_HOUR_US = 3_600_000_000


class PricesQuery(BaseModel):
    """For how many days what was billed is compared with what the machine cost."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    days: Annotated[int, Field(ge=1, le=3660)] = 30


class PricesAdmin:
    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    async def listing(
        self, scope: Scope, receive: Receive, send: Send, principal: Principal, key: str
    ) -> None:
        gateway, asked = self._gateway, query(PricesQuery, scope)
        await asyncio.to_thread(gateway.ledger.flush)
        now_us = gateway.clock.wall_us()
        since_us = max(now_us - asked.days * DAY_US, gateway.tenants.begun_at_us)
        billed = await asyncio.to_thread(gateway.store.billed_here, since_us)
        names = {card.digest: card.name for card in gateway.cards.values()}
        rows = [
            shown_price(names.get(model, model), engine, price)
            for engine, model, price in gateway.prices.rows()
        ]
        machine = gateway.prices.machine if self._operates(scope, principal) else None
        await reply_json(
            send,
            {
                "currency": gateway.settings.currency,
                "data": rows,
                "machine": machine and shown_machine(machine, now_us - since_us, billed),
            },
        )

    def _operates(self, scope: Scope, principal: Principal) -> bool:
        """What the machine costs, and earns with all tenants, is no tenant's business."""
        decision = self._gateway.policies.decide(
            principal, Action.READ_STATUS, Installation(), scope["freehold.address"]
        )
        return decision.is_allowed


def shown_price(model: str, upstream: str, price: Price) -> dict[str, Any]:
    """Micro-units for a million tokens."""
    steps = [(0, price.rates), *price.tiers]
    return {
        "model": model,
        "upstream": upstream or None,
        "source": price.source,
        "rates": [
            {
                "from_tokens_in": start,
                "input": rates.input,
                "output": rates.output,
                "cached": rates.cached,
            }
            for start, rates in steps
        ],
    }


def shown_machine(machine: Machine, for_us: int, billed: int) -> dict[str, Any]:
    """`busy_enough` is the share of busy time at which prices would have paid for it."""
    cost = round(machine.micro_per_hour * for_us / _HOUR_US)
    return {
        "per_hour": machine.micro_per_hour,
        "source": machine.source,
        "assumed": machine.is_assumed,
        "busy": machine.busy,
        "hours": round(for_us / _HOUR_US, 2),
        "cost": cost,
        "billed": billed,
        "busy_enough": round(min(1.0, machine.busy * billed / cost), 4) if cost else None,
    }
