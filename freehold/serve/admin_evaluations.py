"""`/admin/v1/evaluations` and `/admin/v1/gates`: how good a route's answers are, as a job, and
what that decides."""

import asyncio
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from freehold.core.binding import Environment, Principal
from freehold.core.binding import Scope as Right
from freehold.core.errors import Code, UserError
from freehold.core.gate import Gate
from freehold.core.job import JobKind
from freehold.secure.grants import attenuated
from freehold.secure.keys import KeyRequest
from freehold.serve.admin import body_of, parsed, query, rfc3339
from freehold.serve.admin_jobs import JobsQuery, job_named, shown_job
from freehold.serve.gateway import Gateway
from freehold.serve.owner import Owner, OwnQuery, owner
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


class GatesQuery(JobsQuery):
    """The newest first; those that are older than the gate `before`. `adapter` is a digest."""

    adapter: Annotated[str | None, Field(max_length=80)] = None


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
        _check_may_ask(principal, place, found.aliases)
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
        if job.kind is not JobKind.EVAL:
            raise UserError(
                Code.NOT_FOUND, f"{job.id} is no evaluation: see `freehold tune show {job.id}`."
            )
        found = await asyncio.to_thread(self._gateway.evaluating.result, job)
        await reply_json(send, {"job": shown_job(job), "result": found})

    async def gates(
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
        data = [shown_gate(each) for each in found[: asked.limit]]
        await reply_json(send, {"data": data, "has_more": len(found) > asked.limit})

    async def gate(
        self, scope: Scope, receive: Receive, send: Send, principal: Principal, key: str
    ) -> None:
        tenant_id, environment = self._owner(scope, principal, query(OwnQuery, scope))
        gate_id = scope["path_params"]["gate"]
        found = await asyncio.to_thread(self._gateway.store.gate, tenant_id, gate_id)
        if found is None or found.environment is not environment:
            raise UserError(
                Code.NOT_FOUND, f"There is no gate {gate_id[:80]!r}: see `freehold gate list`."
            )
        await reply_json(send, shown_gate(found))

    def _owner(self, scope: Scope, principal: Principal, asked: OwnQuery | NewEvaluation) -> Owner:
        return owner(self._gateway, scope, principal, asked.tenant, asked.environment)


def _check_may_ask(principal: Principal, place: Owner, aliases: frozenset[str]) -> None:
    """The job uses models, so that it is for who could make a key which does."""
    wanted = KeyRequest(
        *place, "evaluation", frozenset({Right.INFER}), models=aliases,
        networks=principal.networks, certificates=principal.certificates,
        expires_at_us=principal.expires_at_us,
    )  # fmt: skip
    attenuated(principal, wanted)


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
    }
