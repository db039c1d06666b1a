"""Jobs, and which gateway does each."""

import json
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from sqlalchemy import ColumnElement, Connection, delete, func, insert, or_, select, update

from freehold.core.acts import Act, Change
from freehold.core.audit import stream_of
from freehold.core.binding import Environment
from freehold.core.errors import Code, UserError
from freehold.core.gate import Gate
from freehold.core.job import Job, JobKind, JobState
from freehold.core.lineage import Remains
from freehold.store.audit import AuditTable
from freehold.store.backend import EVERY_TENANT
from freehold.store.gates import add_gate_in
from freehold.store.lineage import leave
from freehold.store.tables import jobs

_OPEN = (JobState.QUEUED, JobState.RUNNING)


class JobTable(AuditTable):
    def add_job(self, tenant_id: str, new: Job) -> None:
        with self._changing(tenant_id) as changing:
            changing.connection.execute(
                insert(jobs).values(
                    id=new.id,
                    tenant_id=tenant_id,
                    environment=new.environment,
                    kind=new.kind,
                    name=new.name,
                    state=new.state,
                    spec=json.dumps(new.spec, ensure_ascii=False),
                    progress="{}",
                    created_at_us=new.created_at_us,
                    created_by=new.created_by,
                )
            )
            changing.note(_change(Act.JOB_START, new, "kind", "spec"))

    def jobs(
        self,
        tenant_id: str,
        environment: Environment,
        limit: int,
        before: str | None = None,
        kind: JobKind | None = None,
    ) -> Sequence[Job]:
        """The newest first; `before` is the last one that was seen."""
        mine = (jobs.c.tenant_id == tenant_id) & (jobs.c.environment == environment)
        if kind is not None:
            mine &= jobs.c.kind == kind
        if before is not None:
            mine &= jobs.c.id < before
        wanted = select(jobs).where(mine).order_by(jobs.c.id.desc()).limit(limit)
        with self._reading(tenant_id) as connection:
            return [job_of(row) for row in connection.execute(wanted).mappings()]

    def job(self, tenant_id: str, environment: Environment, job_id: str) -> Job | None:
        with self._reading(tenant_id) as connection:
            return _found(connection, _is(tenant_id, environment, job_id))

    def cancel_job(
        self, tenant_id: str, environment: Environment, job_id: str, at_us: int
    ) -> Job | None:
        """One that waits ends at once, one that runs when its process has heard of it; one that
        has ended stays as it is."""
        this = _is(tenant_id, environment, job_id)
        with self._changing(tenant_id) as changing:
            job = _found(changing.connection, this)
            if job is None or job.state.has_ended or job.is_cancelled:
                changing.note(None)
                return job
            values: dict[str, Any] = {"cancelled_at_us": at_us}
            if job.state is JobState.QUEUED:
                values |= {"state": JobState.CANCELLED, "ended_at_us": at_us}
            changing.connection.execute(update(jobs).where(this).values(**values))
            changing.note(_change(Act.JOB_CANCEL, job))
            return _found(changing.connection, this)

    def resume_job(self, tenant_id: str, environment: Environment, job_id: str) -> Job | None:
        """Queued again, to go on from its last checkpoint. Raises `UserError(CONFLICT)` for one
        that did not end early."""
        this = _is(tenant_id, environment, job_id)
        with self._changing(tenant_id) as changing:
            job = _found(changing.connection, this)
            if job is None:
                changing.note(None)
                return None
            if job.state not in (JobState.FAILED, JobState.CANCELLED):
                raise UserError(
                    Code.CONFLICT,
                    f"{job.id} is {job.state}: only a job that failed or was cancelled is resumed.",
                )
            again = {
                "state": JobState.QUEUED, "cancelled_at_us": None, "ended_at_us": None,
                "error": None, "held_by": None, "held_until_us": None,
            }  # fmt: skip
            changing.connection.execute(update(jobs).where(this).values(**again))
            changing.note(_change(Act.JOB_RESUME, job))
            return _found(changing.connection, this)

    def remove_job(self, tenant_id: str, environment: Environment, job_id: str) -> Job | None:
        """What it was stays for whoever asks where an adapter came from; its folder is the
        caller's. Raises `UserError(CONFLICT)` for one that has not ended."""
        this = _is(tenant_id, environment, job_id)
        with self._changing(tenant_id) as changing:
            job = _found(changing.connection, this)
            if job is None:
                changing.note(None)
                return None
            if not job.state.has_ended:
                raise UserError(
                    Code.CONFLICT, f"{job.id} is {job.state}: cancel it, and remove it then."
                )
            row = changing.connection.execute(select(jobs).where(this)).mappings().one()
            leave(changing.connection, Remains.JOB, tenant_id, job.id, {"row": dict(row)})
            changing.connection.execute(delete(jobs).where(this))
            changing.note(_change(Act.JOB_REMOVE, job))
        return job

    # For who does them: of all tenants, and shown to nobody.

    def open_jobs(self, by: str, now_us: int) -> Sequence[Job]:
        """Those that `by` may take: not ended and done by no other, the oldest first."""
        wanted = select(jobs).where(_free(by, now_us)).order_by(jobs.c.id)
        with self._reading(EVERY_TENANT) as connection:
            return [job_of(row) for row in connection.execute(wanted).mappings()]

    def known_jobs(self, job_ids: Collection[str]) -> frozenset[str]:
        """Those of them that there are."""
        wanted = select(jobs.c.id).where(jobs.c.id.in_(job_ids))
        with self._reading(EVERY_TENANT) as connection:
            return frozenset(connection.scalars(wanted))

    def take_job(
        self, tenant_id: str, job_id: str, by: str, now_us: int, until_us: int
    ) -> Job | None:
        """None where another took it, or it has ended."""
        this = _this(tenant_id, job_id)
        values: dict[str, Any] = {
            "state": JobState.RUNNING, "held_by": by, "held_until_us": until_us,
            "started_at_us": func.coalesce(jobs.c.started_at_us, now_us),
        }  # fmt: skip
        with self._writing(tenant_id) as connection:
            taken = update(jobs).where(this, _free(by, now_us)).values(**values)
            if not connection.execute(taken).rowcount:
                return None
            return _found(connection, this)

    def hold_job(
        self,
        tenant_id: str,
        job_id: str,
        by: str,
        until_us: int,
        progress: Mapping[str, Any] | None = None,
    ) -> Job | None:
        """That it is still being done, and how far it is. None where another took it meanwhile,
        or it is gone: then it must not be gone on with."""
        this = _this(tenant_id, job_id) & _held(by)
        values: dict[str, Any] = {"held_until_us": until_us}
        if progress is not None:
            values["progress"] = json.dumps(progress, ensure_ascii=False)
        with self._writing(tenant_id) as connection:
            connection.execute(update(jobs).where(this).values(**values))
            return _found(connection, this)

    def end_job(
        self,
        tenant_id: str,
        job_id: str,
        by: str,
        state: JobState,
        at_us: int,
        result: Mapping[str, Any] | None = None,
        error: Mapping[str, Any] | None = None,
        gate: Gate | None = None,
    ) -> bool:
        """False where it was not for `by` to end. `gate` is what it decided: both are kept, or
        neither is."""
        values = {
            "state": state,
            "ended_at_us": at_us,
            "result": None if result is None else json.dumps(result, ensure_ascii=False),
            "error": None if error is None else json.dumps(error, ensure_ascii=False),
            "held_by": None,
            "held_until_us": None,
        }
        if gate is None:
            return self._let_go(tenant_id, job_id, by, values)
        this = _this(tenant_id, job_id) & _held(by)
        with self._changing(tenant_id) as changing:
            ended = changing.connection.execute(update(jobs).where(this).values(**values))
            if ended.rowcount:
                add_gate_in(changing, tenant_id, gate)
            else:
                changing.note(None)
            return bool(ended.rowcount)

    def put_job_back(self, tenant_id: str, job_id: str, by: str) -> bool:
        """Queued again: whoever takes it next goes on from its last checkpoint."""
        waiting = {"state": JobState.QUEUED, "held_by": None, "held_until_us": None}
        return self._let_go(tenant_id, job_id, by, waiting)

    def _let_go(self, tenant_id: str, job_id: str, by: str, values: Mapping[str, Any]) -> bool:
        this = _this(tenant_id, job_id) & _held(by)
        with self._writing(tenant_id) as connection:
            return bool(connection.execute(update(jobs).where(this).values(**values)).rowcount)


def is_open_with(digest: str) -> ColumnElement[bool]:
    return jobs.c.state.in_(_OPEN) & jobs.c.spec.contains(digest, autoescape=True)


def open_job_with(
    connection: Connection, tenant_id: str, environment: Environment, digest: str
) -> str | None:
    """One that has not ended and is told to take what has this digest."""
    mine = (jobs.c.tenant_id == tenant_id) & (jobs.c.environment == environment)
    wanted = select(jobs.c.id).where(mine, is_open_with(digest)).order_by(jobs.c.id).limit(1)
    return connection.scalars(wanted).first()


def no_job(job_id: str) -> UserError:
    where = "`freehold tune list` or `freehold eval list`"
    return UserError(Code.NOT_FOUND, f"There is no job {job_id[:80]!r}: see {where}.")


def _is(tenant_id: str, environment: Environment, job_id: str) -> ColumnElement[bool]:
    return _this(tenant_id, job_id) & (jobs.c.environment == environment)


def _this(tenant_id: str, job_id: str) -> ColumnElement[bool]:
    return (jobs.c.tenant_id == tenant_id) & (jobs.c.id == job_id)


def _held(by: str) -> ColumnElement[bool]:
    return (jobs.c.state == JobState.RUNNING) & (jobs.c.held_by == by)


def _free(by: str, now_us: int) -> ColumnElement[bool]:
    late = or_(jobs.c.held_by.is_(None), jobs.c.held_by == by, jobs.c.held_until_us < now_us)
    return jobs.c.state.in_(_OPEN) & late


def _found(connection: Connection, this: ColumnElement[bool]) -> Job | None:
    row = connection.execute(select(jobs).where(this)).mappings().first()
    return job_of(row) if row else None


def _change(act: Act, job: Job, *fields: str) -> Change:
    stream = stream_of(job.tenant_id, job.environment)
    return Change(act, stream, job.id, fields, job.name or None)


def job_of(row: Mapping[Any, Any]) -> Job:
    return Job(
        id=row["id"],
        tenant_id=row["tenant_id"],
        environment=Environment(row["environment"]),
        kind=JobKind(row["kind"]),
        name=row["name"],
        state=JobState(row["state"]),
        spec=json.loads(row["spec"]),
        progress=json.loads(row["progress"]),
        result=None if row["result"] is None else json.loads(row["result"]),
        error=None if row["error"] is None else json.loads(row["error"]),
        created_at_us=row["created_at_us"],
        created_by=row["created_by"],
        started_at_us=row["started_at_us"],
        ended_at_us=row["ended_at_us"],
        is_cancelled=row["cancelled_at_us"] is not None,
    )
