"""Jobs of a home that no gateway serves."""

import asyncio
import contextvars
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from freehold.cli.at_rest import paging, routes
from freehold.cli.options.owner import Of
from freehold.cli.wiring.jobs import build_jobs, build_tuning
from freehold.cli.wiring.prices import micro_per_hour
from freehold.config import load
from freehold.config.home import Home
from freehold.core.binding import Environment
from freehold.core.clock import SystemClock
from freehold.core.event import Happening
from freehold.core.job import Job, JobKind
from freehold.operate.jobs.supervisor import Jobs

if TYPE_CHECKING:
    from freehold.operate.jobs.tuning import Prepared, Tuning


@dataclass(frozen=True, slots=True)
class Offline:
    """A home that no gateway serves, open under its lock."""

    jobs: Jobs
    tuning: "Tuning"
    rest: routes.Offline

    @property
    def owner(self) -> tuple[str, Environment]:
        return self.rest.owner

    def every(self) -> list[dict[str, Any]]:
        found = paging.every(
            lambda count, before: self.rest.store.jobs(*self.owner, count, before),
            lambda job: job.id,
        )
        return [self.shown(each) for each in found]

    def shown(self, job: Job) -> dict[str, Any]:
        from freehold.serve.admin.jobs import shown_job

        return shown_job(job)

    def evaluation(self, job_id: str) -> dict[str, Any]:
        from freehold.operate.jobs.evaluating import Evaluating
        from freehold.serve.admin.evaluations import check_evaluation

        job = self.jobs.get(self.owner, job_id)
        check_evaluation(job)
        made = Evaluating(load.home().path, self.rest.store, self.rest.datasets)
        return {"job": self.shown(job), "result": made.result(job)}

    def prepared(self, body: dict[str, Any]) -> "Prepared":
        from freehold.serve.admin.jobs import NewJob
        from freehold.serve.reading import validated

        return self.tuning.prepare(self.owner, validated(NewJob, body).wanted())

    def added(self, prepared: "Prepared") -> str:
        name, spec = prepared.name, prepared.spec
        return self.jobs.add(self.owner, JobKind.TUNE, name, spec, "local").id

    def finished(self, job_id: str, on_look: Callable[[Job], None]) -> dict[str, Any]:
        """What is done for it is nobody's act."""
        job = self.jobs.get(self.owner, job_id)
        ended: Job = contextvars.Context().run(asyncio.run, self.jobs.finish(job, on_look))
        return self.shown(ended)


@contextmanager
def opened(home: Home, of: Of) -> Iterator[Offline]:
    clock = SystemClock()
    with routes.opened(home, of) as rest:
        made = home, rest.settings, rest.store
        cost = micro_per_hour(rest.settings)
        jobs = build_jobs(*made, rest.adapters, clock, _to_nobody, cost, None)
        of_owner = rest.models, rest.adapters, rest.datasets
        tuning = build_tuning(*made, *of_owner, clock, cost, is_serving=False)
        yield Offline(jobs, tuning, rest)


def _to_nobody(what: Happening) -> None:
    """Who waits for the job sees its end."""
