"""The policies that people wrote; what they mean is decided elsewhere."""

from collections.abc import Sequence

from sqlalchemy import ColumnElement, RowMapping, delete, insert, select

from freehold.core.acts import Act, Change
from freehold.core.audit import INSTALLATION
from freehold.core.policy import Policy
from freehold.store.audit import AuditTable
from freehold.store.backend import EVERY_TENANT, Whose
from freehold.store.identity import count_change
from freehold.store.tables import policies

_INSTALLATION = ""


class PolicyTable(AuditTable):
    def every_policy(self) -> Sequence[Policy]:
        """Of the installation and of all tenants: to decide with, and to show to nobody."""
        with self._reading(EVERY_TENANT) as connection:
            rows = connection.execute(
                select(policies).order_by(policies.c.tenant_id, policies.c.name)
            ).mappings()
            return [_policy(row) for row in rows]

    def policies(self, tenant_id: str | None) -> Sequence[Policy]:
        """A tenant's own, or with None those of the installation."""
        owned = policies.c.tenant_id == (tenant_id or _INSTALLATION)
        with self._reading(_whose(tenant_id)) as connection:
            rows = connection.execute(
                select(policies).where(owned).order_by(policies.c.name)
            ).mappings()
            return [_policy(row) for row in rows]

    def put_policy(self, policy: Policy) -> None:
        """In place of its tenant's of the same name, if there is one."""
        with self._changing(_whose(policy.tenant_id)) as changing:
            connection = changing.connection
            connection.execute(delete(policies).where(_named(policy.tenant_id, policy.name)))
            connection.execute(
                insert(policies).values(
                    tenant_id=policy.tenant_id or _INSTALLATION,
                    name=policy.name,
                    text=policy.text,
                    set_at_us=policy.set_at_us,
                    set_by=policy.set_by,
                )
            )
            count_change(connection)
            changing.note(_change(Act.POLICY_SET, policy.tenant_id, policy.name, "text"))

    def remove_policy(self, tenant_id: str | None, name: str) -> bool:
        with self._changing(_whose(tenant_id)) as changing:
            gone = delete(policies).where(_named(tenant_id, name))
            found = changing.connection.execute(gone).rowcount
            if found:
                count_change(changing.connection)
            changing.note(_change(Act.POLICY_REMOVE, tenant_id, name) if found else None)
        return bool(found)


def _whose(tenant_id: str | None) -> Whose:
    return EVERY_TENANT if tenant_id is None else tenant_id


def _change(act: Act, tenant_id: str | None, name: str, *fields: str) -> Change:
    return Change(act, tenant_id or INSTALLATION, name, fields, name)


def _named(tenant_id: str | None, name: str) -> ColumnElement[bool]:
    return (policies.c.tenant_id == (tenant_id or _INSTALLATION)) & (policies.c.name == name)


def _policy(row: RowMapping) -> Policy:
    return Policy(
        name=row["name"],
        text=row["text"],
        tenant_id=row["tenant_id"] or None,
        set_at_us=row["set_at_us"],
        set_by=row["set_by"],
    )
