"""Gates: what evaluations decided of revisions. They are added, and never changed."""

import json
from collections.abc import Sequence
from dataclasses import asdict

from sqlalchemy import ColumnElement, RowMapping, insert, select

from freehold.core.acts import Act, Change
from freehold.core.audit import stream_of
from freehold.core.binding import Environment
from freehold.core.gate import Gate, Verdict
from freehold.store.audit import AuditTable, Changing
from freehold.store.tables import gates

_FIELDS = ("base", "adapter", "suite", "passed")


class GateTable(AuditTable):
    def add_gate(self, tenant_id: str, new: Gate) -> None:
        with self._changing(tenant_id) as changing:
            add_gate_in(changing, tenant_id, new)

    def gate(self, tenant_id: str, gate_id: str) -> Gate | None:
        found = self._gates(tenant_id, 1, gates.c.id == gate_id)
        return found[0] if found else None

    def gates(
        self,
        tenant_id: str,
        limit: int,
        before: str | None = None,
        adapter_digest: str | None = None,
        environment: Environment | None = None,
    ) -> Sequence[Gate]:
        """The newest first, of all environments unless one is named; `before` is the last one
        that was seen."""
        wanted: list[ColumnElement[bool]] = []
        if before is not None:
            wanted.append(gates.c.id < before)
        if adapter_digest is not None:
            wanted.append(gates.c.adapter_digest == adapter_digest)
        if environment is not None:
            wanted.append(gates.c.environment == environment)
        return self._gates(tenant_id, limit, *wanted)

    def gate_of(self, tenant_id: str, base_digest: str, adapter_digest: str | None) -> Gate | None:
        """The newest for this revision, which decides, wherever it was evaluated."""
        found = self._gates(
            tenant_id,
            1,
            gates.c.base_digest == base_digest,
            gates.c.adapter_digest.is_not_distinct_from(adapter_digest),
        )
        return found[0] if found else None

    def _gates(self, tenant_id: str, limit: int, *wanted: ColumnElement[bool]) -> list[Gate]:
        mine = select(gates).where(gates.c.tenant_id == tenant_id, *wanted)
        with self._reading(tenant_id) as connection:
            rows = connection.execute(mine.order_by(gates.c.id.desc()).limit(limit))
            return [_gate(row) for row in rows.mappings()]


def add_gate_in(changing: Changing, tenant_id: str, new: Gate) -> None:
    """With whatever else is changed at once."""
    row = asdict(new) | {"tenant_id": tenant_id, "verdicts": json.dumps(asdict(new)["verdicts"])}
    changing.connection.execute(insert(gates), [row])
    stream = stream_of(tenant_id, new.environment)
    changing.note(Change(Act.GATE_MAKE, stream, new.id, _FIELDS, new.suite_name))


def _gate(row: RowMapping) -> Gate:
    verdicts = tuple(Verdict(**each) for each in json.loads(row["verdicts"]))
    return Gate(**{**row, "environment": Environment(row["environment"]), "verdicts": verdicts})
