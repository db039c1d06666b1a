"""Signatures on adapters, and the keys that this installation signs with."""

import contextlib
from collections.abc import Sequence
from dataclasses import asdict

from sqlalchemy import Connection, RowMapping, delete, insert, select, update
from sqlalchemy.exc import IntegrityError

from freehold.core.acts import Act, Change
from freehold.core.adapter import Adapter
from freehold.core.audit import INSTALLATION, stream_of
from freehold.core.errors import Code, UserError
from freehold.core.signature import Signature, SigningKey
from freehold.store.audit import AuditTable
from freehold.store.backend import EVERY_TENANT
from freehold.store.peers import Peers
from freehold.store.tables import signatures, signing_keys


class SignatureTable(Peers, AuditTable):
    def signatures(self, tenant_id: str, digest: str) -> Sequence[Signature]:
        """On its adapter of this digest, the oldest first."""
        mine = (signatures.c.tenant_id == tenant_id) & (signatures.c.digest == digest)
        wanted = select(signatures).where(mine).order_by(signatures.c.made_at_us, signatures.c.key)
        with self._reading(tenant_id) as connection:
            return [signature_of(row) for row in connection.execute(wanted).mappings()]

    def add_signature(self, tenant_id: str, adapter: Adapter, new: Signature) -> None:
        """In place of that of the same key, if there is one."""
        with self._changing(tenant_id) as changing:
            put_signature(changing.connection, tenant_id, new)
            stream = stream_of(tenant_id, adapter.environment)
            changing.note(Change(Act.ADAPTER_SIGN, stream, adapter.id, ("key",), adapter.name))
            self._tell_of_signatures(changing.connection)

    def signing_keys(self) -> Sequence[SigningKey]:
        """Of all gateways on this database, the oldest first."""
        wanted = select(signing_keys).order_by(signing_keys.c.made_at_us, signing_keys.c.id)
        with self._reading(EVERY_TENANT) as connection:
            return [SigningKey(**row) for row in connection.execute(wanted).mappings()]

    def add_signing_key(self, new: SigningKey, *, is_rotation: bool) -> None:
        if not is_rotation:
            # Made by whoever comes first, also a command that somebody gave.
            with (
                contextlib.suppress(IntegrityError),  # another gateway's, with the same secrets
                self._transaction(EVERY_TENANT) as connection,
            ):
                connection.execute(insert(signing_keys), [asdict(new)])
            return
        with self._changing(EVERY_TENANT) as changing:
            changing.connection.execute(insert(signing_keys), [asdict(new)])
            changing.note(Change(Act.SIGNING_KEY_ROTATE, INSTALLATION, new.id))

    def revoke_signing_key(self, key: str, since_us: int) -> None:
        """Raises `CONFLICT` where it was revoked from an earlier time on."""
        when = signing_keys.c.revoked_since_us
        with self._changing(EVERY_TENANT) as changing:
            connection = changing.connection
            before = connection.scalar(select(when).where(signing_keys.c.id == key))
            if before is not None and before < since_us:
                raise UserError(
                    Code.CONFLICT,
                    f"The key {key[:16]} is not believed from an earlier time on already, and that "
                    "only moves back: see `freehold adapter keys`.",
                    param="since",
                )
            if before == since_us:
                changing.note(None)
                return
            mine = signing_keys.c.id == key
            connection.execute(update(signing_keys).where(mine).values(revoked_since_us=since_us))
            changing.note(Change(Act.SIGNING_KEY_REVOKE, INSTALLATION, key, ("since",)))
            self._tell_of_signatures(connection)


def put_signature(connection: Connection, tenant_id: str, new: Signature) -> None:
    same = (
        (signatures.c.tenant_id == tenant_id)
        & (signatures.c.digest == new.digest)
        & (signatures.c.key == new.key)
    )
    connection.execute(delete(signatures).where(same))
    connection.execute(insert(signatures), [asdict(new) | {"tenant_id": tenant_id}])


def signature_of(row: RowMapping) -> Signature:
    return Signature(**row)
