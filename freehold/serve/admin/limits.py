"""`/admin/v1/limits`: budgets, and what a minute may take."""

import asyncio
import re
from decimal import Decimal
from typing import Annotated, Any

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PlainValidator,
    WithJsonSchema,
    model_validator,
)

from freehold.core.action import Action, Space
from freehold.core.binding import Environment, Principal
from freehold.core.clock import rfc3339
from freehold.core.errors import Code, UserError
from freehold.core.ids import new_id
from freehold.core.limit import SENSIBLE, Limit, Measure, Period
from freehold.secure.quota import Standing
from freehold.secure.rotation import no_key
from freehold.serve.gateway import Gateway
from freehold.serve.owner import OwnQuery, owner
from freehold.serve.reading import body_of, parsed, query
from freehold.serve.routes import Reference
from freehold.serve.wire import Receive, Scope, Send, reply_json
from freehold.store.base import KeyStore

_MICRO = 1_000_000
_AMOUNT = r"^[0-9]{1,12}(\.[0-9]{1,6})?$"


def _amount(given: Any) -> Decimal:
    """No number with a point, which binary fractions would have changed already."""
    is_whole = isinstance(given, int | float) and float(given).is_integer()
    text = str(int(given)) if is_whole and not isinstance(given, bool) else given
    if not isinstance(text, str) or not re.fullmatch(_AMOUNT, text) or text.endswith("\n"):
        raise ValueError('must be a whole number, or text such as "12.50", up to 12 digits')
    return Decimal(text)


Amount = Annotated[
    Decimal,
    PlainValidator(_amount),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "integer", "minimum": 0, "maximum": 10**12 - 1},
                {"type": "string", "pattern": _AMOUNT},
            ]
        }
    ),
]


class NewLimit(BaseModel):
    """In place of the limit for the same, if there is one. `amount` is in the settings'
    currency for money, where text may have parts ("12.50"), else a whole number. Without
    `key` or `person` it is for all of the environment together; with `all_environments` for
    the tenant. `own` lets who operates the installation set a limit that the tenant's admins
    may change."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    measure: Measure
    period: Period = Period.AT_ONCE
    amount: Amount
    key: Annotated[str, Field(min_length=1, max_length=64)] | None = None
    person: Annotated[str, Field(pattern=r"^per_[a-z2-7]{10,40}$")] | None = None
    all_environments: bool = False
    own: bool = False
    tenant: Reference | None = None
    environment: Environment | None = None

    @model_validator(mode="after")
    def _sensible(self) -> "NewLimit":
        periods = SENSIBLE[self.measure]
        if self.period not in periods:
            known = ", ".join(each.value for each in periods)
            raise ValueError(f"{self.measure.value} needs one of these periods: {known}")
        if self.measure is not Measure.MONEY and self.amount != int(self.amount):
            raise ValueError(f"{self.measure.value} needs a whole number")
        if self.key is not None and self.person is not None:
            raise ValueError("a limit needs one of key and person, not both")
        if self.all_environments and (self.environment is not None or self.key is not None):
            raise ValueError("all_environments needs no environment, nor a key, which has one")
        return self

    @property
    def units(self) -> int:
        """As it is stored: money in micro-units."""
        factor = _MICRO if self.measure is Measure.MONEY else 1
        return int(self.amount * factor)


class LimitsAdmin:
    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    async def listing(
        self, scope: Scope, receive: Receive, send: Send, principal: Principal, key: str
    ) -> None:
        asked = query(OwnQuery, scope)
        tenant_id, environment = owner(
            self._gateway, scope, principal, asked.tenant, asked.environment
        )
        limits = self._gateway.limits
        found = await limits.standings(tenant_id, environment)
        await reply_json(send, {"data": [shown_limit(each, limits.currency) for each in found]})

    async def put(
        self, scope: Scope, receive: Receive, send: Send, principal: Principal, key: str
    ) -> None:
        gateway = self._gateway
        wanted = parsed(NewLimit, await body_of(gateway, scope, receive, principal, key))
        tenant_id, environment = owner(gateway, scope, principal, wanted.tenant, wanted.environment)
        may_budget = self._may_budget(scope, principal, Space(tenant_id, environment))
        if wanted.all_environments and not may_budget:
            raise _for_operators("set a limit for all environments")
        limit = await asyncio.to_thread(
            limit_of,
            gateway.store,
            wanted,
            (tenant_id, environment),
            is_own=wanted.own or not may_budget,
            set_by=principal.id,
            at_us=gateway.clock.wall_us(),
        )
        limit = await asyncio.to_thread(gateway.store.set_limit, tenant_id, limit)
        await gateway.access.refresh()
        (standing,) = [
            each for each in await gateway.limits.standings(tenant_id, None)
            if each.limit.id == limit.id
        ]  # fmt: skip
        await reply_json(send, shown_limit(standing, gateway.limits.currency), status=201)

    async def remove(
        self, scope: Scope, receive: Receive, send: Send, principal: Principal, key: str
    ) -> None:
        gateway, limit_id = self._gateway, scope["path_params"]["limit_id"]
        asked = query(OwnQuery, scope)
        tenant_id, environment = owner(gateway, scope, principal, asked.tenant, asked.environment)
        limits = await asyncio.to_thread(gateway.store.limits, tenant_id)
        found = [
            each for each in limits
            if each.id == limit_id and each.environment in (None, environment)
        ]  # fmt: skip
        if not found:
            raise no_limit(limit_id)
        may_budget = self._may_budget(scope, principal, Space(tenant_id, environment))
        if not may_budget and (not found[0].is_own or found[0].environment is None):
            raise _for_operators("remove this limit")
        await asyncio.to_thread(gateway.store.remove_limit, tenant_id, environment, limit_id)
        await gateway.access.refresh()
        await reply_json(send, {"id": limit_id, "removed": True})

    def _may_budget(self, scope: Scope, principal: Principal, place: Space) -> bool:
        decide, address = self._gateway.policies.decide, scope["freehold.address"]
        return decide(principal, Action.SET_BUDGETS, place, address).is_allowed


def limit_of(
    store: KeyStore,
    wanted: NewLimit,
    owner: tuple[str, Environment],
    *,
    is_own: bool,
    set_by: str,
    at_us: int,
) -> Limit:
    """A key's is for all that replace it, too. Raises `UserError(NOT_FOUND)` for a key that
    is not in this tenant's environment."""
    tenant_id, environment = owner
    subject = wanted.person
    if wanted.key is not None:
        record = store.key(tenant_id, environment, wanted.key)
        if record is None:
            raise no_key()
        subject = record.lineage or record.id
    return Limit(
        id=new_id("lim"),
        tenant_id=tenant_id,
        environment=None if wanted.all_environments else environment,
        subject=subject,
        measure=wanted.measure,
        period=wanted.period,
        amount=wanted.units,
        is_own=is_own,
        set_at_us=at_us,
        set_by=set_by,
    )


def shown_limit(standing: Standing, currency: str) -> dict[str, Any]:
    limit = standing.limit
    unit = f"micro-{currency}" if limit.measure is Measure.MONEY else limit.measure.value
    return {
        "id": limit.id,
        "environment": limit.environment and limit.environment.value,
        "subject": limit.subject,
        "measure": limit.measure.value,
        "period": limit.period.value,
        "unit": unit,
        "amount": limit.amount,
        "used": standing.used,
        "held": standing.held,
        "frees_at": rfc3339(standing.frees_at_us),
        "own": limit.is_own,
        "set_at": rfc3339(limit.set_at_us),
        "set_by": limit.set_by,
    }


def no_limit(limit_id: str) -> UserError:
    return UserError(
        Code.NOT_FOUND, f"There is no limit {limit_id[:64]!r}: see `freehold limit list`."
    )


def _for_operators(what: str) -> UserError:
    return UserError(
        Code.FORBIDDEN,
        f"This key may not {what}: that takes the scope 'operate'. Ask who operates this service.",
    )
