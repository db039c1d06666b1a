"""`/admin/v1/jobs`: work beside the gateway, of a tenant's environment."""

import asyncio
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from freehold.core.binding import Environment, Principal
from freehold.core.clock import rfc3339
from freehold.core.job import Job, JobKind
from freehold.serve.admin.paging import NewestQuery, reply_page
from freehold.serve.gateway import Gateway
from freehold.serve.owner import Owner, OwnQuery, owner
from freehold.serve.reading import body_of, parsed, query
from freehold.serve.routes import Reference
from freehold.serve.wire import Receive, Scope, Send, reply_json


class NewJob(BaseModel):
    """An adapter to be trained: what is left out is chosen. `base` is a stored model, `dataset`
    one of the caller's own tenant and environment; `max_cost` is in the settings' currency."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["tune"] = "tune"
    dataset: Reference
    base: Reference
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")] | None = None
    method: Literal["lora", "qlora"] | None = None
    bits: Literal[8, 4] | None = None
    objective: Literal["sft", "dpo"] | None = None
    rank: Annotated[int, Field(ge=1, le=512)] | None = None
    learning_rate: Annotated[float, Field(gt=0, le=1)] | None = None
    epochs: Annotated[int, Field(ge=1, le=1000)] | None = None
    max_tokens: Annotated[int, Field(ge=8, le=10_000_000)] | None = None
    seed: Annotated[int, Field(ge=0, lt=2**63)] | None = None
    max_seconds: Annotated[float, Field(gt=0, le=1e9)] | None = None
    max_memory_bytes: Annotated[int, Field(gt=0, lt=2**60)] | None = None
    max_cost: Annotated[float, Field(gt=0, le=1e9)] | None = None
    trainer: Literal["freehold", "trl"] | None = None
    tenant: Reference | None = None
    environment: Environment | None = None

    def wanted(self) -> dict[str, Any]:
        return self.model_dump(exclude={"kind", "tenant", "environment"})


class JobsQuery(NewestQuery):
    kind: JobKind | None = None


class LogQuery(OwnQuery):
    """So many of the last lines."""

    limit: Annotated[int, Field(ge=1, le=10_000)] = 1000


class JobsAdmin:
    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    async def listing(
        self, scope: Scope, receive: Receive, send: Send, principal: Principal, key: str
    ) -> None:
        asked = query(JobsQuery, scope)
        place = self._owner(scope, principal, asked)
        found = await asyncio.to_thread(
            self._gateway.store.jobs, *place, asked.limit + 1, asked.before, asked.kind
        )
        await reply_page(send, found, asked.limit, shown_job)

    async def estimate(
        self, scope: Scope, receive: Receive, send: Send, principal: Principal, key: str
    ) -> None:
        asked = parsed(NewJob, await body_of(self._gateway, scope, receive, principal, key))
        place = self._owner(scope, principal, asked)
        found = await asyncio.to_thread(self._gateway.tuning.prepare, place, asked.wanted())
        await reply_json(send, found.plain())

    async def start(
        self, scope: Scope, receive: Receive, send: Send, principal: Principal, key: str
    ) -> None:
        gateway = self._gateway
        asked = parsed(NewJob, await body_of(gateway, scope, receive, principal, key))
        place = self._owner(scope, principal, asked)
        found = await asyncio.to_thread(gateway.tuning.prepare, place, asked.wanted())
        job = await asyncio.to_thread(
            gateway.jobs.add, place, JobKind.TUNE, found.name, found.spec, principal.id
        )
        gateway.jobs.begin()
        await reply_json(send, shown_job(job), status=201)

    async def get(
        self, scope: Scope, receive: Receive, send: Send, principal: Principal, key: str
    ) -> None:
        place = self._owner(scope, principal, query(OwnQuery, scope))
        await reply_json(send, shown_job(await self._found(place, scope)))

    async def remove(
        self, scope: Scope, receive: Receive, send: Send, principal: Principal, key: str
    ) -> None:
        place = self._owner(scope, principal, query(OwnQuery, scope))
        job = await asyncio.to_thread(self._gateway.jobs.remove, place, job_named(scope))
        await reply_json(send, shown_job(job))

    async def log(
        self, scope: Scope, receive: Receive, send: Send, principal: Principal, key: str
    ) -> None:
        asked = query(LogQuery, scope)
        job = await self._found(self._owner(scope, principal, asked), scope)
        lines = await asyncio.to_thread(self._gateway.jobs.log, job)
        await reply_json(send, {"data": lines[-asked.limit :]})

    async def cancel(
        self, scope: Scope, receive: Receive, send: Send, principal: Principal, key: str
    ) -> None:
        place = self._owner(scope, principal, query(OwnQuery, scope))
        job = await asyncio.to_thread(self._gateway.jobs.cancel, place, job_named(scope))
        self._gateway.jobs.begin()
        await reply_json(send, shown_job(job))

    async def resume(
        self, scope: Scope, receive: Receive, send: Send, principal: Principal, key: str
    ) -> None:
        place = self._owner(scope, principal, query(OwnQuery, scope))
        job = await asyncio.to_thread(self._gateway.jobs.resume, place, job_named(scope))
        self._gateway.jobs.begin()
        await reply_json(send, shown_job(job))

    async def _found(self, place: Owner, scope: Scope) -> Job:
        return await asyncio.to_thread(self._gateway.jobs.get, place, job_named(scope))

    def _owner(self, scope: Scope, principal: Principal, asked: OwnQuery | NewJob) -> Owner:
        return owner(self._gateway, scope, principal, asked.tenant, asked.environment)


def job_named(scope: Scope) -> str:
    found: str = scope["path_params"]["job"]
    return found


def shown_job(job: Job) -> dict[str, Any]:
    return {
        "id": job.id,
        "tenant": job.tenant_id,
        "environment": job.environment.value,
        "kind": job.kind.value,
        "name": job.name,
        "state": job.state.value,
        "is_cancelled": job.is_cancelled,
        "spec": job.spec,
        "progress": job.progress,
        "result": job.result,
        "error": job.error,
        "created_at": rfc3339(job.created_at_us),
        "created_by": job.created_by,
        "started_at": None if job.started_at_us is None else rfc3339(job.started_at_us),
        "ended_at": None if job.ended_at_us is None else rfc3339(job.ended_at_us),
    }
