"""`/admin/v1/evaluations`: how good a route's answers are, as a job."""

import asyncio
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from freehold.core.binding import Environment, Principal
from freehold.core.errors import Code, UserError
from freehold.core.job import Job, JobKind
from freehold.secure.grants import check_use
from freehold.serve.admin.jobs import job_named, shown_job
from freehold.serve.gateway import Gateway
from freehold.serve.owner import Owner, OwnQuery, owner
from freehold.serve.reading import body_of, parsed, query
from freehold.serve.routes import Reference
from freehold.serve.wire import Receive, Scope, Send, reply_json

MOST_BYTES = 16 * 1024 * 1024


_Fingerprint = Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]


class NewEvaluation(BaseModel):
    """`suite` is what a suite.yaml holds, with all examples in it; or `dataset`, a stored one, by
    what it holds out. `against` is the route that it is held against; without it, that of the
    bare base. `passed_before` are fingerprints of examples that an earlier result has."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    route: Reference
    suite: dict[str, Any] | None = None
    dataset: Reference | None = None
    most: Annotated[int, Field(ge=1, le=100_000)] = 1000
    against: Reference | None = None
    judge: Reference | None = None
    passed_before: Annotated[list[_Fingerprint], Field(max_length=100_000)] = []
    few: bool = False
    at_once: Annotated[int, Field(ge=1, le=256)] = 4
    max_seconds: Annotated[float, Field(gt=0, le=604_800)] = 6 * 3600.0
    tenant: Reference | None = None
    environment: Environment | None = None

    def wanted(self) -> dict[str, Any]:
        return self.model_dump(exclude={"tenant", "environment"})


class EvaluationsAdmin:
    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    async def start(
        self, scope: Scope, receive: Receive, send: Send, principal: Principal, key: str
    ) -> None:
        gateway = self._gateway
        raw = await body_of(gateway, scope, receive, principal, key, MOST_BYTES)
        asked = await asyncio.to_thread(parsed, NewEvaluation, raw)
        place = self._owner(scope, principal, asked)
        found = await asyncio.to_thread(gateway.evaluating.prepare, place, asked.wanted())
        check_use(principal, *place, found.aliases)
        job = await asyncio.to_thread(
            gateway.jobs.add, place, JobKind.EVAL, found.name, found.spec, principal.id, found.files
        )
        gateway.jobs.begin()
        await reply_json(send, shown_job(job), status=201)

    async def get(
        self, scope: Scope, receive: Receive, send: Send, principal: Principal, key: str
    ) -> None:
        place = self._owner(scope, principal, query(OwnQuery, scope))
        job = await asyncio.to_thread(self._gateway.jobs.get, place, job_named(scope))
        check_evaluation(job)
        found = await asyncio.to_thread(self._gateway.evaluating.result, job)
        await reply_json(send, {"job": shown_job(job), "result": found})

    def _owner(self, scope: Scope, principal: Principal, asked: OwnQuery | NewEvaluation) -> Owner:
        return owner(self._gateway, scope, principal, asked.tenant, asked.environment)


def check_evaluation(job: Job) -> None:
    """Raises `NOT_FOUND` for a job that is none."""
    if job.kind is not JobKind.EVAL:
        raise UserError(
            Code.NOT_FOUND, f"{job.id} is no evaluation: see `freehold tune show {job.id}`."
        )
