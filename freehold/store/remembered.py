"""In which datasets, and in what was made of them, the words of somebody are who was forgotten."""

import json
from collections.abc import Collection, Iterator, Sequence

from sqlalchemy import ColumnElement, Connection, and_, insert, inspect, select

from freehold.core.subject import Remembered
from freehold.store.backend import EVERY_TENANT
from freehold.store.database import Database
from freehold.store.tables import adapters, dataset_subjects, datasets, jobs, subject_keys

_AT_ONCE = 500
_FORGOTTEN = dataset_subjects.c.forgotten_at_us.is_not(None)


class RememberedTable(Database):
    def add_words(self, tenant_id: str, digest: str, data_keys: Collection[str]) -> None:
        """Whose words the examples of a digest hold: of those to whom these data keys belong.
        Whoever is acting, it is Freehold that needs it."""
        mine = and_(dataset_subjects.c.tenant_id == tenant_id, dataset_subjects.c.digest == digest)
        asked = select(subject_keys.c.subject, subject_keys.c.forgotten_at_us).where(
            subject_keys.c.tenant_id == tenant_id
        )
        names = sorted(data_keys)
        with self._transaction(tenant_id) as connection:
            known = set(connection.scalars(select(dataset_subjects.c.subject).where(mine)))
            # Somebody may have been forgotten since their words were read.
            of: dict[str, int | None] = {}
            for at in range(0, len(names), _AT_ONCE):
                some = asked.where(subject_keys.c.id.in_(names[at : at + _AT_ONCE]))
                for row in connection.execute(some):  # of two keys one may be forgotten
                    of[row.subject] = of.get(row.subject) or row.forgotten_at_us
            rows = [
                {"tenant_id": tenant_id, "digest": digest, "subject": subject,
                 "forgotten_at_us": at_us}
                for subject, at_us in of.items() if subject not in known
            ]  # fmt: skip
            if rows:
                connection.execute(insert(dataset_subjects), rows)

    def is_remembered(self, tenant_id: str, digest: str) -> bool:
        """Whether a dataset of this digest holds words of somebody who was forgotten."""
        mine = (dataset_subjects.c.tenant_id == tenant_id) & (dataset_subjects.c.digest == digest)
        with self._reading(tenant_id) as connection:
            found = select(dataset_subjects.c.digest).where(mine, _FORGOTTEN).limit(1)
            return connection.scalar(found) is not None

    def remembered(self, tenant_id: str, subject: str) -> Sequence[Remembered]:
        """What still holds words of somebody who was forgotten."""
        mine = dataset_subjects.c.tenant_id == tenant_id
        mine &= dataset_subjects.c.subject == subject
        with self._reading(tenant_id) as connection:
            return list(_holding(connection, mine))

    def every_remembered(self) -> Sequence[Remembered]:
        """Of all tenants; nothing where the database is from before this was known."""
        with self._reading(EVERY_TENANT) as connection:
            if not inspect(connection).has_table(dataset_subjects.name):
                return []
            return list(_holding(connection))


def _holding(connection: Connection, *narrowed: ColumnElement[bool]) -> Iterator[Remembered]:
    asked = select(dataset_subjects.c.tenant_id, dataset_subjects.c.digest).distinct()
    forgotten = {(row.tenant_id, row.digest) for row in
                 connection.execute(asked.where(_FORGOTTEN, *narrowed))}  # fmt: skip
    if not forgotten:
        return
    owners = {tenant_id for tenant_id, _ in forgotten}
    for row in connection.execute(
        select(datasets).where(datasets.c.tenant_id.in_(owners)).order_by(datasets.c.id)
    ):
        if (row.tenant_id, row.digest) in forgotten:
            name = f"{row.name}@{row.version}"
            yield Remembered("dataset", row.tenant_id, row.environment, row.id, name)
    trained = and_(adapters.c.tenant_id.in_(owners), adapters.c.manifest.is_not(None))
    for row in connection.execute(select(adapters).where(trained).order_by(adapters.c.id)):
        if (row.tenant_id, json.loads(row.manifest).get("dataset_digest")) in forgotten:
            yield Remembered("adapter", row.tenant_id, row.environment, row.id, row.name)
    asked_of = and_(jobs.c.tenant_id.in_(owners), jobs.c.kind == "eval")
    for row in connection.execute(select(jobs).where(asked_of).order_by(jobs.c.id)):
        if (row.tenant_id, json.loads(row.spec).get("dataset")) in forgotten:
            yield Remembered("evaluation", row.tenant_id, row.environment, row.id, row.name)
