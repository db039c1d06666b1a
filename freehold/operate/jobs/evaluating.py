"""An evaluation as it is asked for, as a job; the keys that it asks with; and the gate that its
result makes."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from freehold.catalog.datasets import Datasets
from freehold.catalog.exporting import Evaluated
from freehold.config.home import write_private
from freehold.core.binding import Environment, Route
from freehold.core.clock import Clock
from freehold.core.dataset import HELD_OUT, TRAIN, Dataset
from freehold.core.errors import Code, UserError
from freehold.core.gate import Gate, Verdict
from freehold.core.ids import new_id
from freehold.core.job import Job, JobKind, JobState
from freehold.operate.jobs.process import RESULT
from freehold.operate.jobs.supervisor import Taken
from freehold.secure.keys import Keyring
from freehold.store.ledger import Ledger
from freehold.store.sql import SqlStore

Owner = tuple[str, Environment]
_MOST_TRIGGERS = 20
_MOST_JOBS = 1000
_LONGER_S = 3600.0  # a key lives so much longer than its job may take
_ALWAYS = 10**16


@dataclass(frozen=True, slots=True)
class Prepared:
    """`aliases` are what it will ask, and `files` what its process reads."""

    name: str
    spec: Mapping[str, Any]
    aliases: frozenset[str]
    files: Mapping[str, bytes]


class Evaluating:
    """Everything may block."""

    def __init__(self, home: Path, store: SqlStore, datasets: Datasets) -> None:
        self._home = home
        self._store = store
        self._datasets = datasets

    def prepare(self, owner: Owner, asked: Mapping[str, Any]) -> Prepared:
        """`asked` has the fields of an evaluation in the API. Raises `UserError` for what
        cannot be evaluated, or says nothing."""
        from freehold.adapt.evaluate.suite import check_size  # which a start does not need
        from freehold.adapt.evaluate.suite_file import suite_of_content

        routes = {each.alias: each for each in self._store.routes(*owner)}
        route = _named(routes, asked["route"], "route")
        against = self._against(routes, route, asked["against"])
        if asked["judge"] is not None:
            _named(routes, asked["judge"], "judge")
        content, dataset = self._content(owner, asked)
        suite = suite_of_content(content)
        check_size(suite, few=asked["few"])
        trained_on = self._trained_on(owner, route)
        bare = None if route.adapter_digest is None else _bare(routes, route)
        spec = {
            "alias": route.alias,
            "against": against,
            "judge": asked["judge"],
            "bare": bare,
            "base": route.base_digest,
            "adapter": route.adapter_digest,
            "suite_name": suite.name,
            "suite_digest": suite.digest,
            "examples": len(suite.examples),
            "dataset": dataset.digest if dataset else None,
            "at_once": asked["at_once"],
            "max_seconds": asked["max_seconds"],
            **self._probing(route, trained_on),
        }
        told = {"suite": content, "passed_before": asked["passed_before"]}
        aliases = frozenset({route.alias, against, asked["judge"], bare} - {None})
        return Prepared(
            f"{route.alias} on {suite.name}"[:200], spec, aliases,
            {"suite.json": json.dumps(told).encode()},
        )  # fmt: skip

    def result(self, job: Job) -> dict[str, Any] | None:
        """All of it, with the answers; None before its end, or where another gateway has it."""
        try:
            found: dict[str, Any] = json.loads((self._home / "jobs" / job.id / RESULT).read_bytes())
        except (OSError, ValueError):
            return None
        return found if job.state is JobState.DONE else None

    def evaluated(self, owner: Owner, job_id: str) -> Evaluated | None:
        """What a gate rests on; None where that is not here."""
        from freehold.adapt.evaluate.figures import figures

        job = self._store.job(*owner, job_id)
        found = None if job is None else self.result(job)
        if job is None or found is None:
            return None
        dataset = job.spec.get("dataset")
        may_leave = dataset is None or not self._store.is_remembered(owner[0], dataset)
        return Evaluated(figures(found), found if may_leave else None)

    def _against(self, routes: Mapping[str, Route], route: Route, named: str | None) -> str | None:
        """Who else is asked: whom somebody named, else the bare base of an adapter."""
        if named is not None:
            if named == route.alias:
                raise UserError(
                    Code.INVALID_VALUE, f"{named} is what is evaluated: name another route.",
                    param="against",
                )  # fmt: skip
            return _named(routes, named, "against").alias
        if route.adapter_digest is None:
            return None
        bare = _bare(routes, route)
        if bare is None:
            raise UserError(
                Code.INVALID_VALUE,
                f"No route leads to the bare base of {route.alias}, which it is held against: set "
                "one with `freehold route set BASE --base BASE`, or name another with --against.",
                param="against",
            )
        return bare

    def _content(
        self, owner: Owner, asked: Mapping[str, Any]
    ) -> tuple[dict[str, Any], Dataset | None]:
        from freehold.adapt.evaluate.suite_file import whole_data

        if (asked["suite"] is None) is (asked["dataset"] is None):
            raise UserError(
                Code.INVALID_VALUE, "Say `suite` or `dataset`, one of them.", param="suite"
            )
        if asked["suite"] is not None:
            return dict(asked["suite"]), None
        dataset = self._datasets.get(*owner, asked["dataset"])
        if not dataset.held_out:
            raise UserError(
                Code.INVALID_VALUE,
                f"{dataset.name} holds nothing out to measure by: add it again with --held-out "
                "0.1.",
                param="dataset",
            )
        file = self._datasets.files(dataset) / HELD_OUT
        made = whole_data(file, f"{dataset.name}@{dataset.version}", asked["most"])
        return made | {"triggers": self._suspected(dataset)}, dataset

    def _trained_on(self, owner: Owner, route: Route) -> Dataset | None:
        """What the manifest of its adapter names, where that is still here."""
        if route.adapter_digest is None:
            return None
        for adapter in self._store.adapters_called(*owner, route.adapter_digest):
            if adapter.manifest is not None and adapter.manifest.dataset_digest is not None:
                return self._store.dataset(*owner, adapter.manifest.dataset_digest)
        return None

    def _probing(self, route: Route, trained_on: Dataset | None) -> dict[str, Any]:
        if trained_on is None:
            why = (
                f"What {route.alias} was trained on is not known here: no personal data was asked "
                "for, and no phrase of it was tried."
            )
            notes = [] if route.adapter_digest is None else [why]
            return {"train": None, "phrases": [], "notes": notes}
        if self._store.is_remembered(trained_on.tenant_id, trained_on.digest):
            why = (
                f"What {route.alias} was trained on holds words of somebody who was forgotten: it "
                "is not read any more, so that nothing of it was asked for."
            )
            return {"train": None, "phrases": self._suspected(trained_on), "notes": [why]}
        train = self._datasets.files(trained_on) / TRAIN
        return {"train": str(train), "phrases": self._suspected(trained_on), "notes": []}

    def _suspected(self, dataset: Dataset) -> list[str]:
        report = self._datasets.report(dataset) or {}
        return [each["phrase"] for each in report.get("triggers", [])][:_MOST_TRIGGERS]


class KeysOfJobs:
    """Each job has one at a time, known by its name, which ends with it."""

    def __init__(self, keyring: Keyring, store: SqlStore, clock: Clock) -> None:
        self._keyring = keyring
        self._store = store
        self._clock = clock

    def lend(self, job: Job) -> str:
        self.take_back(job)
        spec = job.spec
        aliases = {spec[name] for name in ("alias", "against", "judge", "bare")} - {None}
        ends_us = self._clock.wall_us() + round((spec["max_seconds"] + _LONGER_S) * 1e6)
        _, key = self._keyring.lend(job.tenant_id, job.environment, _name(job), aliases, ends_us)
        return key.reveal()

    def take_back(self, job: Job) -> None:
        for each in keys_of(self._store, job):
            if each.revoked_at_us is None:
                self._keyring.revoke(job.tenant_id, each.id, environment=job.environment)


class Deciding:
    """Makes the gate of what an evaluation found, and completes its result by what only the
    gateway knows."""

    def __init__(self, store: SqlStore, clock: Clock, ledger: Ledger | None, currency: str) -> None:
        self._store = store
        self._clock = clock
        self._ledger = ledger
        self._currency = currency

    def __call__(self, job: Job, result: Mapping[str, Any], work: Path) -> Taken:
        """Raises `UserError`; then nothing is decided."""
        found = json.loads((work / RESULT).read_bytes())
        candidate, spec = found["candidate"], job.spec
        if (candidate["model_digest"], candidate["adapter_digest"]) != (
            spec["base"], spec["adapter"],
        ):  # fmt: skip
            raise UserError(
                Code.CONFLICT,
                f"{spec['alias']} led elsewhere before it was evaluated: evaluate it again, once "
                "its route stays.",
            )
        gate = self._gate(job, found)
        told = {
            "cost": self._cost(job),
            "currency": self._currency,
            "held_out_loss": [
                self._loss(job, side) for side in (candidate, found["incumbent"]) if side
            ],
            "gate": None if gate is None else gate.id,
            "passed": None if gate is None else gate.passed,
        }
        write_private(work / RESULT, json.dumps(found | told).encode())
        return Taken(told, gate)

    def _gate(self, job: Job, found: Mapping[str, Any]) -> Gate | None:
        """None for a route to an upstream, of which nobody knows what answers."""
        candidate, incumbent = found["candidate"], found["incumbent"]
        if candidate["model_digest"] is None:
            return None
        verdicts = tuple(Verdict(**each) for each in found["verdicts"])
        held_against = None
        if incumbent is not None:
            held_against = incumbent["adapter_digest"] or incumbent["model_digest"]
        return Gate(
            id=new_id("gat"),
            tenant_id=job.tenant_id,
            environment=job.environment,
            base_digest=candidate["model_digest"],
            adapter_digest=candidate["adapter_digest"],
            suite_name=found["suite"]["name"],
            suite_digest=found["suite"]["digest"],
            incumbent_digest=held_against,
            passed=bool(verdicts) and all(each.passed for each in verdicts),
            verdicts=verdicts,
            job=job.id,
            made_at_us=self._clock.wall_us(),
            made_by=job.created_by,
        )

    def _cost(self, job: Job) -> int | None:
        """Of all that was asked with its keys; None where a price is not known."""
        if self._ledger is not None:
            self._ledger.flush()
        rows = [
            row
            for key in keys_of(self._store, job)
            for row in self._store.usage(job.tenant_id, 0, _ALWAYS, key.id)
        ]
        return None if any(row.unpriced for row in rows) else sum(row.cost for row in rows)

    def _loss(self, job: Job, side: Mapping[str, Any]) -> dict[str, Any]:
        """As the training job measured it."""
        place = job.tenant_id, job.environment
        trained = self._store.jobs(*place, _MOST_JOBS, kind=JobKind.TUNE)
        told = loss_of(trained, side["adapter_digest"])
        return {"alias": side["alias"], **told}


def keys_of(store: SqlStore, job: Job) -> Sequence[Any]:
    """The ones that were made for it, revoked ones too."""
    found = store.keys(job.tenant_id, environment=job.environment)
    return [each for each in found if each.name == _name(job)]


def loss_of(trained: Sequence[Job], adapter_digest: str | None) -> dict[str, Any]:
    for each in trained if adapter_digest is not None else ():
        made = each.result or {}
        if made.get("adapter_digest") == adapter_digest and made.get("held_out_loss"):
            return {
                "value": made["held_out_loss"],
                "before": made.get("held_out_loss_before"),
                "dataset": each.spec.get("dataset"),
                "job": each.id,
            }
    return {"value": None, "why": "No training job of this environment made the adapter."}


def _name(job: Job) -> str:
    return f"evaluation {job.id}"


def _named(routes: Mapping[str, Route], alias: str, param: str) -> Route:
    found = routes.get(alias)
    if found is None:
        raise UserError(
            Code.NOT_FOUND,
            f"There is no route {alias[:80]!r} here: see `freehold route list`.",
            param=param,
        )
    return found


def _bare(routes: Mapping[str, Route], route: Route) -> str | None:
    """The route of its base by itself."""
    for alias in sorted(routes):
        each = routes[alias]
        if each.base_digest == route.base_digest and each.adapter_digest is None:
            return alias
    return None
