"""What follows when a key is used otherwise than before, and what is done to it until somebody
confirms its use."""

from collections.abc import Collection

from sqlalchemy import ColumnElement, null, or_, select, update

from freehold.core.acts import Act, Change
from freehold.core.audit import stream_of
from freehold.core.binding import Environment
from freehold.core.departure import OnDeparture, Restraint
from freehold.core.tenant import Tenant
from freehold.store.audit import AuditTable
from freehold.store.base import KeyRecord
from freehold.store.identity import (
    change_of_key,
    changed_tenant,
    count_change,
    key_is,
    one_key,
    stored_choice,
)
from freehold.store.tables import api_keys, tenants

_ACTS = {Restraint.STEPPED_DOWN: Act.KEY_STEP_DOWN, Restraint.SUSPENDED: Act.KEY_SUSPEND}


class RestraintTable(AuditTable):
    def choose_for_tenant(self, tenant_id: str, chosen: OnDeparture) -> Tenant | None:
        """For those of its keys that chose nothing."""
        wanted = stored_choice(chosen)
        with self._changing(tenant_id) as changing:
            other = tenants.c.on_departure.is_distinct_from(wanted)
            change = update(tenants).where(tenants.c.id == tenant_id, other)
            change = change.values(on_departure=wanted)
            return changed_tenant(changing, change, tenant_id, "on_departure")

    def choose_for_key(
        self, tenant_id: str, environment: Environment, key_id: str, chosen: OnDeparture
    ) -> KeyRecord | None:
        """From its next departure on; what was done to it before stays."""
        mine, wanted = key_is(tenant_id, environment, key_id), stored_choice(chosen)
        with self._changing(tenant_id) as changing:
            other = api_keys.c.on_departure.is_distinct_from(wanted)
            change = update(api_keys).where(mine, other).values(on_departure=wanted)
            is_changed = changing.connection.execute(change).rowcount
            found = one_key(changing.connection, mine)
            if is_changed and found is not None:
                changing.note(change_of_key(Act.KEY_CHANGE, found, "on_departure"))
            else:
                changing.note(None)
            return found

    def restrain(
        self,
        tenant_id: str,
        environment: Environment,
        key_id: str,
        restraint: Restraint,
        at_us: int,
    ) -> bool:
        """Returns whether this did it: not for a key that is gone or revoked, and a key that
        is suspended stays so."""
        mine = key_is(tenant_id, environment, key_id) & api_keys.c.revoked_at_us.is_(None)
        milder: list[ColumnElement[bool]] = [api_keys.c.restraint.is_(None)]
        if restraint is Restraint.SUSPENDED:
            milder.append(api_keys.c.restraint != restraint)
        with self._changing(tenant_id) as changing:
            change = update(api_keys).where(mine, or_(*milder))
            change = change.values(restraint=restraint, restrained_at_us=at_us)
            is_done = changing.connection.execute(change).rowcount == 1
            if is_done:
                count_change(changing.connection)
            stream = stream_of(tenant_id, environment)
            act = Change(_ACTS[restraint], stream, key_id, ("restraint",))
            changing.note(act if is_done else None)
        return is_done

    def confirmed(self, tenant_id: str, environment: Environment, key_id: str) -> KeyRecord | None:
        """Somebody found its use in order: it may again what it might."""
        mine = key_is(tenant_id, environment, key_id)
        with self._changing(tenant_id) as changing:
            held = update(api_keys).where(mine, api_keys.c.restraint.is_not(None))
            change = held.values(restraint=null(), restrained_at_us=null())
            is_lifted = changing.connection.execute(change).rowcount == 1
            found = one_key(changing.connection, mine)
            if is_lifted:
                count_change(changing.connection)
            if found is None:
                changing.note(None)
            else:
                stream, fields = stream_of(tenant_id, environment), ("restraint",)
                changing.note(Change(Act.KEY_CONFIRM, stream, key_id, fields if is_lifted else ()))
            return found

    def suspended(self, tenant_id: str, key_ids: Collection[str]) -> frozenset[str]:
        theirs = select(api_keys.c.id).where(
            api_keys.c.tenant_id == tenant_id,
            api_keys.c.id.in_(key_ids),
            api_keys.c.restraint == Restraint.SUSPENDED,
            api_keys.c.revoked_at_us.is_(None),
        )
        with self._reading(tenant_id) as connection:
            return frozenset(connection.scalars(theirs))
