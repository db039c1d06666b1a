"""Tenants and their keys, and the count that tells every process when to look again."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    RowMapping,
    String,
    Update,
    and_,
    cast,
    delete,
    func,
    insert,
    literal,
    or_,
    select,
    update,
)
from sqlalchemy.exc import IntegrityError

from freehold.core.acts import Act, Change
from freehold.core.audit import stream_of
from freehold.core.binding import Environment, Scope
from freehold.core.departure import OnDeparture, Restraint
from freehold.core.errors import Code, UserError
from freehold.core.tenant import Holding, IsolationClass, Tenant
from freehold.store.audit import AuditTable, Changing
from freehold.store.backend import EVERY_TENANT
from freehold.store.base import KeyRecord, Replacement
from freehold.store.tables import (
    adapters,
    api_keys,
    candidates,
    changes,
    cut_offs,
    dataset_subjects,
    datasets,
    decision_checks,
    decisions,
    feedback,
    gates,
    jobs,
    limits,
    policies,
    promotions,
    remains,
    role_grants,
    route_history,
    routes,
    sessions,
    signatures,
    tenants,
)

_ACCESS = "access"
_ENABLED = tenants.c.disabled_at_us.is_(None)


class Identity(AuditTable):
    def access_number(self) -> int:
        with self._reading(EVERY_TENANT) as connection:
            number = select(changes.c.number).where(changes.c.name == _ACCESS)
            return connection.scalar(number) or 0

    # tenants

    def tenants(self) -> Sequence[Tenant]:
        with self._reading(EVERY_TENANT) as connection:
            rows = connection.execute(select(tenants).order_by(tenants.c.created_at_us)).mappings()
            return [tenant_of(row) for row in rows]

    def tenant(self, tenant_id: str) -> Tenant | None:
        with self._reading(tenant_id) as connection:
            return _one_tenant(connection, tenant_id)

    def tenant_named(self, name: str) -> str | None:
        with self._reading(EVERY_TENANT) as connection:
            return connection.scalar(select(tenants.c.id).where(tenants.c.name == name))

    def add_tenant(
        self,
        tenant_id: str,
        name: str,
        at_us: int,
        isolation: IsolationClass = IsolationClass.SHARED,
    ) -> None:
        new = {"id": tenant_id, "name": name, "created_at_us": at_us, "isolation": isolation}
        try:
            with self._changing(tenant_id) as changing:
                changing.connection.execute(insert(tenants).values(**new))
                count_change(changing.connection)
                changing.note(_of_tenant(Act.TENANT_CREATE, tenant_id, name, "isolation"))
        except IntegrityError:
            raise UserError(
                Code.CONFLICT,
                f"There is a tenant {name[:80]!r} already: choose another name.",
                param="name",
            ) from None

    def set_isolation(self, tenant_id: str, isolation: IsolationClass) -> Tenant | None:
        with self._changing(tenant_id) as changing:
            other = (tenants.c.id == tenant_id) & (tenants.c.isolation != isolation)
            isolated = update(tenants).where(other).values(isolation=isolation)
            return changed_tenant(changing, isolated, tenant_id, "isolation")

    def set_audit_content(self, tenant_id: str, is_kept: bool) -> Tenant | None:
        """Whether what is said is kept with audit records from now on."""
        with self._changing(tenant_id) as changing:
            other = func.coalesce(tenants.c.audit_content, False) != is_kept
            kept = update(tenants).where(tenants.c.id == tenant_id, other)
            kept = kept.values(audit_content=is_kept)
            return changed_tenant(changing, kept, tenant_id, "audit_content")

    def set_feedback(self, tenant_id: str, is_taken: bool) -> Tenant | None:
        """Whether answers may be rated from now on."""
        with self._changing(tenant_id) as changing:
            other = func.coalesce(tenants.c.feedback, False) != is_taken
            taken = update(tenants).where(tenants.c.id == tenant_id, other)
            taken = taken.values(feedback=is_taken)
            return changed_tenant(changing, taken, tenant_id, "feedback")

    def disable_tenant(self, tenant_id: str, at_us: int | None) -> Tenant | None:
        mine = tenants.c.id == tenant_id
        # The first time of disabling stays, and who is enabled cannot be so once more.
        mine &= tenants.c.disabled_at_us.is_not(None) if at_us is None else _ENABLED
        with self._changing(tenant_id) as changing:
            disabled = update(tenants).where(mine).values(disabled_at_us=at_us)
            return changed_tenant(changing, disabled, tenant_id, "disabled")

    def holdings(self, tenant_id: str, now_us: int) -> Sequence[Holding]:
        living = and_(
            api_keys.c.tenant_id == tenant_id,
            api_keys.c.revoked_at_us.is_(None),
            or_(api_keys.c.expires_at_us.is_(None), api_keys.c.expires_at_us > now_us),
        )
        theirs = (routes.c.tenant_id == tenant_id) & routes.c.managed.is_(False)
        asked = (
            ("route", select(routes.c.id, routes.c.alias, routes.c.environment).where(theirs)),
            (
                "adapter",
                select(adapters.c.id, adapters.c.name, adapters.c.environment).where(
                    adapters.c.tenant_id == tenant_id
                ),
            ),
            (
                "dataset",
                select(
                    datasets.c.id,
                    datasets.c.name + literal("@") + cast(datasets.c.version, String),
                    datasets.c.environment,
                ).where(datasets.c.tenant_id == tenant_id),
            ),
            ("key", select(api_keys.c.id, api_keys.c.name, api_keys.c.environment).where(living)),
            (
                "role",
                select(
                    role_grants.c.group_name, role_grants.c.role, role_grants.c.environment
                ).where(role_grants.c.tenant_id == tenant_id),
            ),
            (
                "policy",
                select(policies.c.name, policies.c.name, literal("all")).where(
                    policies.c.tenant_id == tenant_id
                ),
            ),
        )
        with self._reading(tenant_id) as connection:
            return [
                Holding(kind, *row)
                for kind, statement in asked
                for row in connection.execute(statement)
            ]

    def remove_tenant(self, tenant_id: str) -> bool:
        with self._changing(tenant_id) as changing:
            connection = changing.connection
            found = _one_tenant(connection, tenant_id)
            for table in (
                adapters, signatures, datasets, dataset_subjects, routes, api_keys, policies,
                limits, role_grants, sessions, cut_offs, decisions, decision_checks, jobs, gates,
                feedback, candidates, promotions, remains, route_history,
            ):  # fmt: skip
                connection.execute(delete(table).where(table.c.tenant_id == tenant_id))
            connection.execute(delete(tenants).where(tenants.c.id == tenant_id))
            if found is not None:
                count_change(connection)
                changing.note(_of_tenant(Act.TENANT_REMOVE, tenant_id, found.name))
            else:
                changing.note(None)
        return found is not None

    # keys

    # Two look-ups come before the tenant is known: whose name this is, and whose key. A
    # function of the database with its definer's rights would be no narrower: the owner of
    # the tables is under their policies too, and such a function had to set the same mark.

    def key_by_hash(self, hashed: bytes) -> KeyRecord | None:
        with self._reading(EVERY_TENANT) as connection:
            row = (
                connection.execute(select(api_keys).where(api_keys.c.hash == hashed))
                .mappings()
                .first()
            )
        return _key(row) if row else None

    def keys(
        self, tenant_id: str, *, environment: Environment | None = None
    ) -> Sequence[KeyRecord]:
        mine = api_keys.c.tenant_id == tenant_id
        if environment is not None:
            mine &= api_keys.c.environment == environment
        with self._reading(tenant_id) as connection:
            rows = connection.execute(
                select(api_keys).where(mine).order_by(api_keys.c.created_at_us, api_keys.c.id)
            ).mappings()
            return [_key(row) for row in rows]

    def key(self, tenant_id: str, environment: Environment, key_id: str) -> KeyRecord | None:
        with self._reading(tenant_id) as connection:
            return one_key(connection, key_is(tenant_id, environment, key_id))

    def add_key(self, record: KeyRecord) -> None:
        try:
            with self._changing(record.tenant_id) as changing:
                _insert_key(changing.connection, record)
                changing.note(change_of_key(Act.KEY_CREATE, record, *_given(record)))
        except IntegrityError:
            raise UserError(Code.CONFLICT, "This key is already known: nothing changed.") from None

    def revoke_key(
        self, tenant_id: str, key_id: str, at_us: int, *, environment: Environment | None = None
    ) -> KeyRecord | None:
        mine = key_is(tenant_id, environment, key_id)
        with self._changing(tenant_id) as changing:
            connection = changing.connection
            is_first = connection.execute(
                update(api_keys)
                .where(mine, api_keys.c.revoked_at_us.is_(None))
                .values(revoked_at_us=at_us)
            ).rowcount
            found = one_key(connection, mine)
            if is_first and found is not None:
                count_change(connection)
                changing.note(change_of_key(Act.KEY_REVOKE, found, "revoked_at"))
            else:
                changing.note(None)
            return found

    def replace_key(
        self, tenant_id: str, key_id: str, new: KeyRecord, until_us: int, token: str
    ) -> Replacement | None:
        """In one transaction, and by a conditional update, so that two at once make one."""
        mine = key_is(tenant_id, new.environment, key_id)
        sooner = or_(api_keys.c.expires_at_us.is_(None), api_keys.c.expires_at_us > until_us)
        with self._changing(tenant_id) as changing:
            connection = changing.connection
            is_first = connection.execute(
                update(api_keys)
                .where(mine, api_keys.c.replaced_by.is_(None), api_keys.c.revoked_at_us.is_(None))
                .values(replaced_by=new.id, rotation_token=token)
            ).rowcount
            if is_first:
                connection.execute(
                    update(api_keys).where(mine, sooner).values(expires_at_us=until_us)
                )
                _insert_key(connection, new)
                count_change(connection)
            changing.note(None)
            row = connection.execute(select(api_keys).where(mine)).mappings().first()
            if row is None:
                return None
            by = one_key(connection, key_is(tenant_id, None, row["replaced_by"]))
            if is_first:
                changing.note(change_of_key(Act.KEY_ROTATE, _key(row), "replaced_by", "expires_at"))
                changing.note(change_of_key(Act.KEY_CREATE, new, *_given(new)))
        return Replacement(bool(is_first), row["rotation_token"] or "", by)

    def standing(self, tenant_id: str, key_ids: Collection[str]) -> frozenset[str]:
        living = select(api_keys.c.id).where(
            api_keys.c.tenant_id == tenant_id,
            api_keys.c.id.in_(key_ids),
            api_keys.c.revoked_at_us.is_(None),
            api_keys.c.restraint.is_distinct_from(Restraint.SUSPENDED),
        )
        with self._reading(tenant_id) as connection:
            tenant = _one_tenant(connection, tenant_id)
            if tenant is None or not tenant.is_active:
                return frozenset()
            return frozenset(connection.scalars(living))


def count_change(connection: Connection) -> None:
    counted = update(changes).where(changes.c.name == _ACCESS)
    connection.execute(counted.values(number=changes.c.number + 1))


def changed_tenant(changing: Changing, change: Update, tenant_id: str, field: str) -> Tenant | None:
    connection = changing.connection
    changed = connection.execute(change).rowcount
    found = _one_tenant(connection, tenant_id)
    if changed and found is not None:
        count_change(connection)
        changing.note(_of_tenant(Act.TENANT_CHANGE, tenant_id, found.name, field))
    else:
        changing.note(None)
    return found


def _of_tenant(act: Act, tenant_id: str, name: str, *fields: str) -> Change:
    return Change(act, tenant_id, tenant_id, fields, name)


def change_of_key(act: Act, record: KeyRecord, *fields: str) -> Change:
    stream = stream_of(record.tenant_id, record.environment)
    return Change(act, stream, record.id, fields, about=record.name)


def _given(record: KeyRecord) -> list[str]:
    """What a new key was given beside what each has."""
    more = ("models", "networks", "expires_at_us")
    named = [name.removesuffix("_us") for name in more if getattr(record, name) is not None]
    return ["name", "scopes", *named]


def key_is(
    tenant_id: str, environment: Environment | None, key_id: str | None
) -> ColumnElement[bool]:
    mine = (api_keys.c.id == key_id) & (api_keys.c.tenant_id == tenant_id)
    return mine if environment is None else mine & (api_keys.c.environment == environment)


def _one_tenant(connection: Connection, tenant_id: str) -> Tenant | None:
    row = connection.execute(select(tenants).where(tenants.c.id == tenant_id)).mappings().first()
    return tenant_of(row) if row else None


def one_key(connection: Connection, mine: ColumnElement[bool]) -> KeyRecord | None:
    row = connection.execute(select(api_keys).where(mine)).mappings().first()
    return _key(row) if row else None


def _insert_key(connection: Connection, record: KeyRecord) -> None:
    connection.execute(
        insert(api_keys).values(
            id=record.id,
            tenant_id=record.tenant_id,
            environment=record.environment,
            name=record.name,
            hash=record.hash,
            scopes=" ".join(sorted(record.scopes)),
            models=_joined(record.models),
            created_at_us=record.created_at_us,
            expires_at_us=record.expires_at_us,
            revoked_at_us=record.revoked_at_us,
            networks=_joined(record.networks),
            replaced_by=record.replaced_by,
            lineage=record.lineage,
            certificates=None
            if record.certificates is None
            else "\n".join(sorted(record.certificates)),
            on_departure=stored_choice(record.on_departure),
            restraint=record.restraint,
            restrained_at_us=record.restrained_at_us,
        )
    )


def stored_choice(chosen: OnDeparture) -> str | None:
    return None if chosen is OnDeparture.DEFAULT else chosen.value


def _joined(names: frozenset[str] | None) -> str | None:
    return None if names is None else " ".join(sorted(names))


def _split(text: str | None) -> frozenset[str] | None:
    return None if text is None else frozenset(text.split())


def _key(row: RowMapping) -> KeyRecord:
    return KeyRecord(
        id=row["id"],
        tenant_id=row["tenant_id"],
        environment=Environment(row["environment"]),
        name=row["name"],
        hash=row["hash"],
        scopes=frozenset(Scope(scope) for scope in row["scopes"].split()),
        models=_split(row["models"]),
        created_at_us=row["created_at_us"],
        expires_at_us=row["expires_at_us"],
        revoked_at_us=row["revoked_at_us"],
        networks=_split(row["networks"]),
        replaced_by=row["replaced_by"],
        lineage=row["lineage"],
        certificates=None
        if row["certificates"] is None
        else frozenset(row["certificates"].split("\n")),
        on_departure=OnDeparture(row["on_departure"] or OnDeparture.DEFAULT),
        restraint=None if row["restraint"] is None else Restraint(row["restraint"]),
        restrained_at_us=row["restrained_at_us"],
    )


def tenant_of(row: Mapping[Any, Any]) -> Tenant:
    read = {
        "isolation": IsolationClass(row["isolation"]),
        "audit_content": bool(row["audit_content"]),
        "feedback": bool(row["feedback"]),
        "on_departure": OnDeparture(row["on_departure"] or OnDeparture.DEFAULT),
    }
    return Tenant(**{**row, **read})
