"""`/admin/v1/decisions`: what was decided to host, or not to; and `/admin/v1/decide`, what could
be."""

import asyncio
from datetime import UTC, datetime
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

import freehold
from freehold.core.action import Installation
from freehold.core.binding import Principal
from freehold.core.clock import rfc3339
from freehold.core.decision import Decision
from freehold.core.ids import new_id
from freehold.core.plan import Workload
from freehold.serve.gateway import Gateway
from freehold.serve.owner import TenantQuery, no_tenant
from freehold.serve.reading import body_of, parsed, query
from freehold.serve.routes import Reference
from freehold.serve.wire import Receive, Scope, Send, reply_json
from freehold.store.decisions import no_decision

DecisionName = Annotated[str, Field(pattern=r"^[^/\\\x00-\x1f\x7f]{1,100}$")]


class FitRequest(BaseModel):
    """Whether a model of the facts or a stored one fits: `on` accelerators of the facts, or
    `this` machine, and in which `precision` (bf16, fp8, int8, int4), both with commas
    between."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: Annotated[str, Field(min_length=1, max_length=200)]
    on: Annotated[str, Field(min_length=1, max_length=1000)] = "this"
    context: Annotated[int | None, Field(ge=1, le=2**31)] = None
    precision: Annotated[str, Field(min_length=1, max_length=100)] | None = None
    streams: Annotated[int, Field(ge=1, le=2**31)] = 1
    cache_bits: Annotated[int, Field(ge=4, le=32)] = 16
    adapters: Annotated[int, Field(ge=0, le=2**31)] = 0
    rank: Annotated[int, Field(ge=1, le=512)] = 16


class PlanRequest(BaseModel):
    """`workload` is what a workload file holds; `name` that of one which names itself none."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    workload: dict[str, Any]
    name: DecisionName = "workload"


class DecideRequest(PlanRequest):
    """So many of the possible options are told, the cheapest first."""

    top: Annotated[int, Field(ge=1, le=100)] = 10


class NewDecision(PlanRequest):
    """For one option: its rank or its id, the first where it is left out. `aliases` are those
    that requests of this workload name; without them all requests count as its."""

    option: Annotated[str, Field(min_length=1, max_length=400)] | None = None
    aliases: Annotated[tuple[Reference, ...], Field(max_length=100)] = ()
    supersede: Annotated[str, Field(max_length=64)] | None = None
    tenant: Reference | None = None


class CheckQuery(TenantQuery):
    """What came in so many days is held against it, from the decision on at most."""

    days: Annotated[int, Field(ge=1, le=3660)] = 30


class DecisionsAdmin:
    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    async def decide(
        self, scope: Scope, receive: Receive, send: Send, principal: Principal, key: str
    ) -> None:
        self._require(scope, principal)
        raw = await body_of(self._gateway, scope, receive, principal, key)
        asked = parsed(DecideRequest, raw)
        await asyncio.to_thread(workload_in, asked)
        told = _asked(asked, self._now_us()) | {"top": asked.top}
        await reply_json(send, await self._gateway.decisions.work("plan", told))

    async def fit(
        self, scope: Scope, receive: Receive, send: Send, principal: Principal, key: str
    ) -> None:
        self._require(scope, principal)
        raw = await body_of(self._gateway, scope, receive, principal, key)
        asked = parsed(FitRequest, raw).model_dump()
        await reply_json(send, await self._gateway.decisions.fit(asked))

    async def listing(
        self, scope: Scope, receive: Receive, send: Send, principal: Principal, key: str
    ) -> None:
        tenant_id = self._tenant(scope, principal, query(TenantQuery, scope).tenant)
        found = await asyncio.to_thread(self._gateway.store.decisions, tenant_id)
        await reply_json(send, {"data": [decision_in_short(each) for each in found]})

    async def record(
        self, scope: Scope, receive: Receive, send: Send, principal: Principal, key: str
    ) -> None:
        gateway = self._gateway
        self._require(scope, principal)
        raw = await body_of(gateway, scope, receive, principal, key)
        asked = parsed(NewDecision, raw)
        tenant_id = self._tenant(scope, principal, asked.tenant)
        await asyncio.to_thread(workload_in, asked)
        content = await gateway.decisions.work("record", record_asked(asked, self._now_us()))
        new = new_decision(content, tenant_id, principal.id, self._now_us(), asked.supersede)
        await asyncio.to_thread(gateway.store.add_decision, tenant_id, new)
        await reply_json(send, shown_decision(new), status=201)

    async def get(
        self, scope: Scope, receive: Receive, send: Send, principal: Principal, key: str
    ) -> None:
        named = query(TenantQuery, scope).tenant
        await reply_json(send, shown_decision(await self._found(scope, principal, named)))

    async def check(
        self, scope: Scope, receive: Receive, send: Send, principal: Principal, key: str
    ) -> None:
        asked = query(CheckQuery, scope)
        found = await self._found(scope, principal, asked.tenant)
        await reply_json(send, await self._gateway.decisions.check(found, asked.days))

    async def deployment(
        self, scope: Scope, receive: Receive, send: Send, principal: Principal, key: str
    ) -> None:
        found = await self._found(scope, principal, query(TenantQuery, scope).tenant)
        await reply_json(send, await asyncio.to_thread(self._gateway.decisions.deployment, found))

    async def _found(self, scope: Scope, principal: Principal, named: str | None) -> Decision:
        tenant_id = self._tenant(scope, principal, named)
        decision_id = scope["path_params"]["decision"]
        found = await asyncio.to_thread(self._gateway.store.decision, tenant_id, decision_id)
        if found is None:
            raise no_decision(decision_id)
        return found

    def _tenant(self, scope: Scope, principal: Principal, named: str | None) -> str:
        self._require(scope, principal)
        if named is None:
            return principal.tenant_id
        found = self._gateway.tenants.find(named)
        if found is None:
            raise no_tenant(named)
        return found.id

    def _require(self, scope: Scope, principal: Principal) -> None:
        """What is decided tells what all of the installation costs."""
        action, address = scope["freehold.action"], scope["freehold.address"]
        self._gateway.policies.require(principal, action, Installation(), address)

    def _now_us(self) -> int:
        return self._gateway.clock.wall_us()


def workload_in(asked: PlanRequest) -> Workload:
    """Raises `UserError(FILE_INVALID)`, before a process is begun for what none could plan."""
    from freehold.config.workload import workload_from

    return workload_from(asked.workload, asked.name)


def record_asked(asked: NewDecision, now_us: int) -> dict[str, Any]:
    return _asked(asked, now_us) | {"option": asked.option, "aliases": list(asked.aliases)}


def _asked(asked: PlanRequest, now_us: int) -> dict[str, Any]:
    return {"workload": asked.workload, "name": asked.name, "today": day(now_us)}


def day(at_us: int) -> str:
    return datetime.fromtimestamp(at_us / 1e6, UTC).date().isoformat()


def new_decision(
    content: dict[str, Any], tenant_id: str, made_by: str, at_us: int, supersedes: str | None
) -> Decision:
    return Decision(
        id=new_id("dec"),
        tenant_id=tenant_id,
        at_us=at_us,
        made_by=made_by,
        name=content["workload"]["name"],
        version=freehold.__version__,
        content=content,
        supersedes=supersedes,
    )


def shown_decision(decision: Decision) -> dict[str, Any]:
    return {
        "id": decision.id,
        "tenant": decision.tenant_id,
        "at": rfc3339(decision.at_us),
        "made_by": decision.made_by,
        "name": decision.name,
        "version": decision.version,
        "supersedes": decision.supersedes,
        "superseded_by": decision.superseded_by,
        **{name: value for name, value in decision.content.items() if name != "v"},
    }


def decision_in_short(decision: Decision) -> dict[str, Any]:
    option, predicted = decision.content["option"], decision.content["predicted"]
    return {
        "id": decision.id,
        "at": rfc3339(decision.at_us),
        "made_by": decision.made_by,
        "name": decision.name,
        "way": option["way"],
        "option": option["id"],
        "a_month": predicted["a_month"],
        "per_million": predicted["per_million"],
        "supersedes": decision.supersedes,
        "superseded_by": decision.superseded_by,
    }
