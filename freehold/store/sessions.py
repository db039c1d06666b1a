"""Who is logged in, and whose tokens of before no longer count."""

import json
from collections.abc import Collection, Mapping, Sequence

from sqlalchemy import ColumnElement, Connection, RowMapping, delete, insert, select, update
from sqlalchemy.exc import IntegrityError

from freehold.core.acts import Act, Change
from freehold.core.errors import Code, UserError
from freehold.core.session import Session, SessionKind
from freehold.store.audit import AuditTable
from freehold.store.backend import EVERY_TENANT
from freehold.store.identity import count_change
from freehold.store.tables import cut_offs, sessions

EVERYBODY = ""
_KEPT_US = 7 * 24 * 3600 * 1_000_000  # after its end, so that it can still be told of
_SHOWN = [each for each in sessions.c if each.name not in ("hash", "token_hash")]


class SessionTable(AuditTable):
    def add_session(
        self, new: Session, hashed: bytes, token_hash: bytes, replaces: bytes | None
    ) -> None:
        """Ends the one that has the hash `replaces`. Raises `UserError(CONFLICT)` for a
        token that was exchanged before."""
        values = {
            "id": new.id,
            "tenant_id": new.tenant_id,
            "person_id": new.person_id,
            "kind": new.kind,
            "hash": hashed,
            "token_hash": token_hash,
            "issuer": new.issuer,
            "subject": new.subject,
            "groups": json.dumps(sorted(new.groups)),
            "tenant_value": new.tenant_value,
            "name": new.name,
            "issued_at_us": new.issued_at_us,
            "token_expires_at_us": new.token_expires_at_us,
            "created_at_us": new.created_at_us,
            "last_used_at_us": new.last_used_at_us,
            "expires_at_us": new.expires_at_us,
        }
        try:
            # Of every tenant: the browser's session of before may be another's.
            with self._changing(EVERY_TENANT) as changing:
                connection = changing.connection
                _forget(connection, new.created_at_us - _KEPT_US)
                if replaces is not None:
                    old = _one(connection, sessions.c.hash == replaces)
                    mine = sessions.c.hash == replaces
                    if _end(connection, mine, new.created_at_us, new.person_id) and old:
                        changing.note(_change(Act.SESSION_END, old))
                connection.execute(insert(sessions).values(**values))
                changing.note(_change(Act.SESSION_OPEN, new))
        except IntegrityError:
            raise UserError(Code.CONFLICT, "This login was used before: log in again.") from None

    def session_by_hash(self, hashed: bytes) -> Session | None:
        """The only read without a tenant: the hash itself proves who asks."""
        with self._reading(EVERY_TENANT) as connection:
            return _one(connection, sessions.c.hash == hashed)

    def sessions(
        self, tenant_id: str, now_us: int, person_id: str | None = None
    ) -> Sequence[Session]:
        """Those that have not ended, the newest first."""
        mine = (
            (sessions.c.tenant_id == tenant_id)
            & sessions.c.ended_at_us.is_(None)
            & (sessions.c.expires_at_us > now_us)
        )
        if person_id is not None:
            mine &= sessions.c.person_id == person_id
        with self._reading(tenant_id) as connection:
            rows = connection.execute(
                select(*_SHOWN).where(mine).order_by(sessions.c.id.desc())
            ).mappings()
            return [_session(row) for row in rows]

    def last_session(self, tenant_id: str, person_id: str) -> Session | None:
        """A person's newest, ended or not."""
        mine = (sessions.c.tenant_id == tenant_id) & (sessions.c.person_id == person_id)
        with self._reading(tenant_id) as connection:
            return _one(connection, mine)

    def use_session(self, session_id: str, at_us: int) -> None:
        """Also while its person changes something, of which this is no part."""
        mine = (sessions.c.id == session_id) & (sessions.c.last_used_at_us < at_us)
        with self._applying() as connection:
            connection.execute(update(sessions).where(mine).values(last_used_at_us=at_us))

    def end_session(
        self, tenant_id: str, session_id: str, at_us: int, by: str, person_id: str | None = None
    ) -> Session | None:
        """Idempotent; the first end stays. With `person_id`, only one of that person's."""
        mine = (sessions.c.tenant_id == tenant_id) & (sessions.c.id == session_id)
        if person_id is not None:
            mine &= sessions.c.person_id == person_id
        with self._changing(tenant_id) as changing:
            ended = _end(changing.connection, mine, at_us, by)
            found = _one(changing.connection, mine)
            changing.note(_change(Act.SESSION_END, found) if ended and found else None)
            return found

    def cut_off(self, tenant_id: str, person_id: str | None, at_us: int, by: str) -> int:
        """Ends a person's sessions, or all of the tenant, and refuses their tokens that were
        made before; returns how many sessions that ended."""
        who = person_id or EVERYBODY
        mine = sessions.c.tenant_id == tenant_id
        if person_id is not None:
            mine &= sessions.c.person_id == person_id
        named = (cut_offs.c.tenant_id == tenant_id) & (cut_offs.c.person_id == who)
        with self._changing(tenant_id) as changing:
            connection = changing.connection
            connection.execute(delete(cut_offs).where(named))
            connection.execute(
                insert(cut_offs).values(
                    tenant_id=tenant_id, person_id=who, before_us=at_us, set_by=by
                )
            )
            ended = _end(connection, mine, at_us, by)
            count_change(connection)
            changing.note(Change(Act.SESSION_CUT_OFF, tenant_id, who or "everybody"))
        return ended

    def every_cut_off(self) -> Mapping[tuple[str, str], int]:
        """By tenant and person, of all tenants: to decide with, and to show to nobody."""
        with self._reading(EVERY_TENANT) as connection:
            rows = connection.execute(
                select(cut_offs.c.tenant_id, cut_offs.c.person_id, cut_offs.c.before_us)
            )
            return {(tenant_id, person_id): before_us for tenant_id, person_id, before_us in rows}

    def living_sessions(self, session_ids: Collection[str]) -> frozenset[str]:
        """Those that have not been ended."""
        living = select(sessions.c.id).where(
            sessions.c.id.in_(session_ids), sessions.c.ended_at_us.is_(None)
        )
        with self._reading(EVERY_TENANT) as connection:
            return frozenset(connection.scalars(living))


def _change(act: Act, session: Session) -> Change:
    """What concerns the tenant as a whole: a session is of all environments."""
    return Change(act, session.tenant_id, session.id)


def _forget(connection: Connection, before_us: int) -> None:
    """While its token is good the row keeps that from being exchanged again."""
    over = (sessions.c.expires_at_us < before_us) & (sessions.c.token_expires_at_us < before_us)
    connection.execute(delete(sessions).where(over))


def _end(connection: Connection, which: ColumnElement[bool], at_us: int, by: str) -> int:
    ended: int = connection.execute(
        update(sessions)
        .where(which, sessions.c.ended_at_us.is_(None))
        .values(ended_at_us=at_us, ended_by=by)
    ).rowcount
    if ended:
        count_change(connection)
    return ended


def _one(connection: Connection, which: ColumnElement[bool]) -> Session | None:
    row = (
        connection.execute(select(*_SHOWN).where(which).order_by(sessions.c.id.desc()).limit(1))
        .mappings()
        .first()
    )
    return _session(row) if row else None


def _session(row: RowMapping) -> Session:
    groups = frozenset(json.loads(row["groups"]))
    return Session(**{**row, "kind": SessionKind(row["kind"]), "groups": groups})
