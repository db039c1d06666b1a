"""What groups of identity providers were granted."""

from collections.abc import Sequence

from sqlalchemy import ColumnElement, RowMapping, delete, insert, select

from freehold.core.acts import Act, Change
from freehold.core.audit import stream_of
from freehold.core.binding import Environment, Role
from freehold.core.role import RoleGrant
from freehold.store.audit import AuditTable
from freehold.store.backend import EVERY_TENANT
from freehold.store.identity import count_change
from freehold.store.tables import role_grants


class RoleTable(AuditTable):
    def every_role_grant(self) -> Sequence[RoleGrant]:
        """Of all tenants: to decide with, and to show to nobody."""
        with self._reading(EVERY_TENANT) as connection:
            rows = connection.execute(select(role_grants)).mappings()
            return [_grant(row) for row in rows]

    def role_grants(self, tenant_id: str, environment: Environment) -> Sequence[RoleGrant]:
        mine = (role_grants.c.tenant_id == tenant_id) & (role_grants.c.environment == environment)
        order = (role_grants.c.issuer, role_grants.c.group_name, role_grants.c.role)
        with self._reading(tenant_id) as connection:
            rows = connection.execute(select(role_grants).where(mine).order_by(*order)).mappings()
            return [_grant(row) for row in rows]

    def grant_role(self, new: RoleGrant) -> None:
        """Again, it changes who granted it and when."""
        with self._changing(new.tenant_id) as changing:
            connection = changing.connection
            connection.execute(delete(role_grants).where(_same(new)))
            connection.execute(
                insert(role_grants).values(
                    tenant_id=new.tenant_id,
                    environment=new.environment,
                    issuer=new.issuer,
                    group_name=new.group,
                    role=new.role,
                    granted_at_us=new.granted_at_us,
                    granted_by=new.granted_by,
                )
            )
            count_change(connection)
            changing.note(_change(Act.ROLE_GRANT, new))

    def revoke_role(self, old: RoleGrant) -> bool:
        with self._changing(old.tenant_id) as changing:
            gone = delete(role_grants).where(_same(old))
            found = changing.connection.execute(gone).rowcount
            if found:
                count_change(changing.connection)
            changing.note(_change(Act.ROLE_REVOKE, old) if found else None)
        return bool(found)


def _change(act: Act, grant: RoleGrant) -> Change:
    stream = stream_of(grant.tenant_id, grant.environment)
    return Change(act, stream, f"{grant.role} {grant.issuer}", name=grant.group)


def _same(grant: RoleGrant) -> ColumnElement[bool]:
    return (
        (role_grants.c.tenant_id == grant.tenant_id)
        & (role_grants.c.environment == grant.environment)
        & (role_grants.c.issuer == grant.issuer)
        & (role_grants.c.group_name == grant.group)
        & (role_grants.c.role == grant.role)
    )


def _grant(row: RowMapping) -> RoleGrant:
    return RoleGrant(
        tenant_id=row["tenant_id"],
        environment=Environment(row["environment"]),
        issuer=row["issuer"],
        group=row["group_name"],
        role=Role(row["role"]),
        granted_at_us=row["granted_at_us"],
        granted_by=row["granted_by"],
    )
