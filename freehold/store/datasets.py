"""Datasets: what is known of them; their files are beside the store."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import ColumnElement, Connection, and_, delete, insert, or_, select
from sqlalchemy.exc import IntegrityError

from freehold.core.acts import Act, Change
from freehold.core.audit import stream_of
from freehold.core.binding import Environment
from freehold.core.dataset import Dataset, DatasetKind
from freehold.core.errors import Code, UserError
from freehold.core.lineage import Remains
from freehold.store.audit import AuditTable
from freehold.store.jobs import open_job_with
from freehold.store.lineage import leave
from freehold.store.tables import datasets


class DatasetTable(AuditTable):
    def datasets(
        self, tenant_id: str, environment: Environment, limit: int, after: str = ""
    ) -> list[Dataset]:
        mine = _of(tenant_id, environment) & (datasets.c.id > after)
        with self._reading(tenant_id) as connection:
            rows = connection.execute(
                select(datasets).where(mine).order_by(datasets.c.id).limit(limit)
            ).mappings()
            return [dataset_of(row) for row in rows]

    def dataset(self, tenant_id: str, environment: Environment, reference: str) -> Dataset | None:
        name, _, version = reference.partition("@")
        named = datasets.c.name == name
        if version:
            is_number = version.isascii() and version.isdigit() and len(version) < 10
            named &= datasets.c.version == (int(version) if is_number else 0)
        meant = or_(named, datasets.c.id == reference, datasets.c.digest == reference)
        with self._reading(tenant_id) as connection:
            row = connection.execute(
                select(datasets)
                .where(_of(tenant_id, environment), meant)
                .order_by((datasets.c.id == reference).desc(), datasets.c.version.desc())
                .limit(1)
            )
            found = row.mappings().first()
        return dataset_of(found) if found else None

    def add_dataset(self, tenant_id: str, new: Dataset) -> None:
        row = dataclasses.asdict(new) | {"tenant_id": tenant_id}
        fields = ("digest", "licence", "origin", *(("accepted",) if new.accepted else ()))
        try:
            with self._changing(tenant_id) as changing:
                changing.connection.execute(insert(datasets), [row])
                changing.note(_change(Act.DATASET_ADD, new, *fields))
        except IntegrityError:
            raise UserError(
                Code.CONFLICT,
                f"Another version of {new.name} was added at the same time: add it again.",
            ) from None

    def remove_dataset(self, tenant_id: str, dataset_id: str, findings: Sequence[str] = ()) -> bool:
        """Raises `CONFLICT` while a job that has not ended needs it."""
        mine = and_(datasets.c.tenant_id == tenant_id, datasets.c.id == dataset_id)
        with self._changing(tenant_id) as changing:
            row = changing.connection.execute(select(datasets).where(mine)).mappings().first()
            if row is not None:
                _check_not_needed(changing.connection, dataset_of(row))
                changing.connection.execute(delete(datasets).where(mine))
                kept = {"row": dict(row), "findings": list(findings)}
                leave(changing.connection, Remains.DATASET, tenant_id, row["digest"], kept)
            changing.note(_change(Act.DATASET_REMOVE, dataset_of(row)) if row else None)
        return row is not None


def _check_not_needed(connection: Connection, dataset: Dataset) -> None:
    place = (dataset.tenant_id, dataset.environment)
    job = open_job_with(connection, *place, dataset.digest)
    if job is not None:
        raise UserError(
            Code.CONFLICT,
            f"{job} needs {dataset.name}@{dataset.version}: wait for its end, or cancel it first.",
        )


def _of(tenant_id: str, environment: Environment) -> ColumnElement[bool]:
    return and_(datasets.c.tenant_id == tenant_id, datasets.c.environment == environment)


def _change(act: Act, dataset: Dataset, *fields: str) -> Change:
    stream = stream_of(dataset.tenant_id, dataset.environment)
    return Change(act, stream, dataset.id, fields, f"{dataset.name}@{dataset.version}")


def dataset_of(row: Mapping[Any, Any]) -> Dataset:
    return Dataset(
        **{
            **row,
            "environment": Environment(row["environment"]),
            "kind": DatasetKind(row["kind"]),
        }
    )
