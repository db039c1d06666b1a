"""Decisions that were recorded, and when each was last held against what became of it."""

import json
from collections.abc import Collection, Sequence

from sqlalchemy import ColumnElement, Connection, RowMapping, Select, insert, select, update

from freehold.core.acts import Act, Change
from freehold.core.audit import INSTALLATION
from freehold.core.decision import Decision
from freehold.core.errors import Code, UserError
from freehold.store.audit import AuditTable
from freehold.store.backend import EVERY_TENANT
from freehold.store.tables import decision_checks, decisions

_LATER = decisions.alias()
_FIELDS = ("option", "workload", "predicted")


class DecisionTable(AuditTable):
    def add_decision(self, tenant_id: str, new: Decision) -> None:
        """Raises `UserError`: `NOT_FOUND` for one to be superseded that the tenant does not
        have, `CONFLICT` where that has happened to it already."""
        with self._changing(tenant_id) as changing:
            if new.supersedes is not None:
                _check_current(changing.connection, tenant_id, new.supersedes)
            changing.connection.execute(
                insert(decisions).values(
                    id=new.id,
                    tenant_id=tenant_id,
                    at_us=new.at_us,
                    made_by=new.made_by,
                    name=new.name,
                    version=new.version,
                    supersedes=new.supersedes,
                    content=json.dumps(new.content, ensure_ascii=False),
                )
            )
            fields = (*_FIELDS, *(("supersedes",) if new.supersedes else ()))
            changing.note(Change(Act.DECISION_RECORD, INSTALLATION, new.id, fields))

    def decisions(self, tenant_id: str) -> Sequence[Decision]:
        """The newest first."""
        mine = decisions.c.tenant_id == tenant_id
        with self._reading(tenant_id) as connection:
            rows = connection.execute(_found().where(mine).order_by(decisions.c.id.desc()))
            return [_decision(row) for row in rows.mappings()]

    def decision(self, tenant_id: str, decision_id: str) -> Decision | None:
        with self._reading(tenant_id) as connection:
            row = connection.execute(_found().where(_is(tenant_id, decision_id))).mappings().first()
            return _decision(row) if row else None

    def decisions_due(self, due_us: int) -> Sequence[Decision]:
        """All tenants' that no later one superseded and that nobody began to check since: to
        check by itself, and to show to nobody."""
        checked = decision_checks.c.decision_id == decisions.c.id
        late = select(decision_checks.c.decision_id).where(
            checked, decision_checks.c.begun_at_us > due_us
        )
        wanted = _found().where(_LATER.c.id.is_(None), ~late.exists()).order_by(decisions.c.id)
        with self._reading(EVERY_TENANT) as connection:
            return [_decision(row) for row in connection.execute(wanted).mappings()]

    def begin_check(self, tenant_id: str, decision_id: str, due_us: int, now_us: int) -> bool:
        """Whether it is for the caller to check it now: nobody began to since `due_us`."""
        mine = (decision_checks.c.decision_id == decision_id) & (
            decision_checks.c.tenant_id == tenant_id
        )
        with self._writing(tenant_id) as connection:
            begun_us = connection.scalar(select(decision_checks.c.begun_at_us).where(mine))
            if begun_us is None:
                if connection.scalar(select(decisions.c.id).where(_is(tenant_id, decision_id))):
                    connection.execute(
                        insert(decision_checks).values(
                            decision_id=decision_id,
                            tenant_id=tenant_id,
                            begun_at_us=now_us,
                            departed="",
                        )
                    )
                    return True
                return False
            if begun_us > due_us:
                return False
            connection.execute(update(decision_checks).where(mine).values(begun_at_us=now_us))
            return True

    def departed(
        self, tenant_id: str, decision_id: str, found: Collection[str]
    ) -> tuple[frozenset[str], frozenset[str]]:
        """Keeps what a check found; returns what is new in it, and what is over."""
        mine = (decision_checks.c.decision_id == decision_id) & (
            decision_checks.c.tenant_id == tenant_id
        )
        with self._writing(tenant_id) as connection:
            kept = connection.scalar(select(decision_checks.c.departed).where(mine))
            if kept is None:
                return frozenset(), frozenset()
            before, now = frozenset(kept.splitlines()), frozenset(found)
            if now != before:
                told = "\n".join(sorted(now))
                connection.execute(update(decision_checks).where(mine).values(departed=told))
        return now - before, before - now


def _found() -> Select[tuple[object, ...]]:
    joined = decisions.outerjoin(_LATER, _LATER.c.supersedes == decisions.c.id)
    later = _LATER.c.id.label("superseded_by")
    return select(*decisions.c, later).select_from(joined)


def _is(tenant_id: str, decision_id: str) -> ColumnElement[bool]:
    return (decisions.c.tenant_id == tenant_id) & (decisions.c.id == decision_id)


def _check_current(connection: Connection, tenant_id: str, decision_id: str) -> None:
    row = connection.execute(_found().where(_is(tenant_id, decision_id))).mappings().first()
    if row is None:
        raise no_decision(decision_id)
    if row["superseded_by"] is not None:
        raise UserError(
            Code.CONFLICT,
            f"{decision_id} was superseded by {row['superseded_by']}: supersede that one.",
            param="supersede",
        )


def no_decision(decision_id: str) -> UserError:
    return UserError(
        Code.NOT_FOUND,
        f"There is no decision {decision_id[:80]!r}: see `freehold decide list`.",
    )


def _decision(row: RowMapping) -> Decision:
    return Decision(
        id=row["id"],
        tenant_id=row["tenant_id"],
        at_us=row["at_us"],
        made_by=row["made_by"],
        name=row["name"],
        version=row["version"],
        content=json.loads(row["content"]),
        supersedes=row["supersedes"],
        superseded_by=row["superseded_by"],
    )
