"""The data keys of those whom personal fields of audit records are about."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from sqlalchemy import ColumnElement, RowMapping, delete, insert, inspect, select, update

from freehold.core.acts import Act, Change
from freehold.core.audit import stream_of
from freehold.core.dataset import Dataset
from freehold.core.job import Job
from freehold.core.subject import SubjectKey
from freehold.store.audit import AuditTable, row_of
from freehold.store.backend import EVERY_TENANT, Backend
from freehold.store.datasets import dataset_of
from freehold.store.identity import count_change
from freehold.store.jobs import is_open_with, job_of
from freehold.store.remembered import RememberedTable
from freehold.store.sqlite import Sqlite
from freehold.store.tables import (
    api_keys,
    audit_content,
    dataset_subjects,
    datasets,
    feedback,
    jobs,
    sessions,
    subject_keys,
)

_AT_ONCE = 500
_FORGOTTEN = "forgotten"


class SubjectTable(AuditTable):
    def living_key(self, tenant_id: str, subject: str) -> SubjectKey | None:
        """The newest that can still be read."""
        mine = _of(tenant_id, subject) & subject_keys.c.wrapped.is_not(None)
        newest = select(subject_keys).where(mine).order_by(subject_keys.c.created_at_us.desc())
        with self._reading(tenant_id) as connection:
            row = connection.execute(newest.limit(1)).mappings().first()
        return _key(row) if row else None

    def subject_keys(self, ids: Sequence[str]) -> Sequence[SubjectKey]:
        """By their ids, which records name."""
        found: list[SubjectKey] = []
        with self._reading(EVERY_TENANT) as connection:
            for at in range(0, len(ids), _AT_ONCE):
                some = subject_keys.c.id.in_(ids[at : at + _AT_ONCE])
                rows = connection.execute(select(subject_keys).where(some)).mappings()
                found += [_key(row) for row in rows]
        return found

    def every_subject_key(self) -> Iterator[SubjectKey]:
        """To verify, and to show to nobody."""
        with self._reading(EVERY_TENANT) as connection:
            for row in connection.execute(select(subject_keys)).mappings():
                yield _key(row)

    def add_subject_key(self, new: SubjectKey) -> None:
        """Whoever is acting, it is Freehold that needs it."""
        with self._transaction(new.tenant_id) as connection:
            connection.execute(insert(subject_keys), [row_of(new)])

    def forget_subject(self, tenant_id: str, subject: str, at_us: int) -> int | None:
        """Destroys all data keys that it has until then, and returns how many it ever had;
        None for one of whom nothing is known. The name of a key goes too, and so do the
        sessions of a person, and what it said of answers."""
        with self._changing(tenant_id) as changing:
            connection = changing.connection
            had = connection.scalars(select(subject_keys.c.id).where(_of(tenant_id, subject))).all()
            living = _of(tenant_id, subject) & subject_keys.c.wrapped.is_not(None)
            gone = connection.execute(
                update(subject_keys)
                .where(living, subject_keys.c.created_at_us <= at_us)
                .values(wrapped=None, forgotten_at_us=at_us)
            ).rowcount
            named = (api_keys.c.id == subject) & (api_keys.c.tenant_id == tenant_id)
            renamed = connection.execute(
                update(api_keys).where(named, api_keys.c.name != _FORGOTTEN).values(name=_FORGOTTEN)
            ).rowcount
            known = (sessions.c.person_id == subject) & (sessions.c.tenant_id == tenant_id)
            left = connection.execute(delete(sessions).where(known)).rowcount
            said = (feedback.c.given_by == subject) & (feedback.c.tenant_id == tenant_id)
            said &= feedback.c.given_at_us <= at_us
            unsaid = connection.execute(delete(feedback).where(said)).rowcount
            learned = dataset_subjects.c.tenant_id == tenant_id
            learned &= dataset_subjects.c.subject == subject
            learned &= dataset_subjects.c.forgotten_at_us.is_(None)
            connection.execute(
                update(dataset_subjects).where(learned).values(forgotten_at_us=at_us)
            )
            is_change = bool(gone or renamed or left or unsaid)
            changing.note(Change(Act.SUBJECT_FORGET, tenant_id, subject) if is_change else None)
            if is_change:
                count_change(connection)
        if is_change:
            self._scrub()
        return len(had) if had or renamed or left or unsaid else None

    def read_content(
        self, tenant_id: str, environment: str, request_id: str
    ) -> tuple[Sequence[str], bytes] | None:
        """The data keys, and what they seal. That it was read is recorded, or it is not."""
        with self._changing(tenant_id) as changing:
            mine = select(audit_content.c.data_keys, audit_content.c.sealed).where(
                _content(tenant_id, environment, request_id)
            )
            found = changing.connection.execute(mine).first()
            stream = stream_of(tenant_id, environment)
            changing.note(Change(Act.CONTENT_READ, stream, request_id) if found else None)
        return None if found is None else (found.data_keys.split(), found.sealed)

    def remove_content(self, tenant_id: str, environment: str, request_id: str) -> bool:
        """And what people wrote of it; their ratings stay."""
        with self._changing(tenant_id) as changing:
            mine = _content(tenant_id, environment, request_id)
            found = changing.connection.execute(delete(audit_content).where(mine)).rowcount
            said = (feedback.c.request_id == request_id) & (feedback.c.tenant_id == tenant_id)
            said &= (feedback.c.environment == environment) & feedback.c.sealed.is_not(None)
            wiped = update(feedback).where(said).values(sealed=None, data_keys="")
            found += changing.connection.execute(wiped).rowcount
            stream = stream_of(tenant_id, environment)
            changing.note(Change(Act.CONTENT_REMOVE, stream, request_id) if found else None)
        return bool(found)

    def is_known(self, tenant_id: str, subject: str) -> bool:
        """Whether anything personal can be read of it."""
        living = _of(tenant_id, subject) & subject_keys.c.wrapped.is_not(None)
        with self._reading(tenant_id) as connection:
            return connection.scalar(select(subject_keys.c.id).where(living).limit(1)) is not None


class AuditReader(SubjectTable, RememberedTable):
    """The records of a database that nobody else need have open, or that somebody writes; of
    all gateways."""

    _reads_others = True

    def __init__(self, where: Path | Backend) -> None:
        self._backend = Sqlite(where) if isinstance(where, Path) else where
        self._reader = self._backend.open_reader()

    def close(self) -> None:
        self._reader.dispose()

    def every_dataset(self) -> list[Dataset]:
        """None where the database is from before there were any."""
        with self._reading(EVERY_TENANT) as connection:
            if not inspect(connection).has_table(datasets.name):
                return []
            rows = connection.execute(select(datasets).order_by(datasets.c.id)).mappings()
            return [dataset_of(row) for row in rows]

    def job_that_needs(self, base_digest: str) -> Job | None:
        """One of any tenant's that has not ended and names this base."""
        with self._reading(EVERY_TENANT) as connection:
            if not inspect(connection).has_table(jobs.name):
                return None
            needs = select(jobs).where(is_open_with(base_digest)).order_by(jobs.c.id).limit(1)
            row = connection.execute(needs).mappings().first()
            return None if row is None else job_of(row)

    def damage(self) -> str | None:
        """What is wrong with the file, as SQLite itself finds it; None: nothing."""
        if not isinstance(self._backend, Sqlite):
            return None
        with self._reading(EVERY_TENANT) as connection:
            found = connection.exec_driver_sql("PRAGMA quick_check(1)").scalar()
        return None if found == "ok" else str(found)


def _content(tenant_id: str, environment: str, request_id: str) -> ColumnElement[bool]:
    return (
        (audit_content.c.request_id == request_id)
        & (audit_content.c.tenant_id == tenant_id)
        & (audit_content.c.environment == environment)
    )


def _of(tenant_id: str, subject: str) -> ColumnElement[bool]:
    return (subject_keys.c.tenant_id == tenant_id) & (subject_keys.c.subject == subject)


def _key(row: RowMapping) -> SubjectKey:
    return SubjectKey(**row)
