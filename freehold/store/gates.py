"""Gates: what evaluations decided of revisions. They are added, and never changed."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from sqlalchemy import ColumnElement, RowMapping, Select, insert, select

from freehold.core.acts import Act, Change
from freehold.core.audit import stream_of
from freehold.core.binding import Environment
from freehold.core.gate import Elsewhere, Gate, Verdict
from freehold.core.signature import Signer
from freehold.store.audit import AuditTable, Changing
from freehold.store.tables import gates

_FIELDS = ("base", "adapter", "suite", "passed")
_NEWEST = gates.c.id.desc()


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

    def gates_of(
        self, tenant_id: str, base_digest: str, adapter_digest: str | None
    ) -> Sequence[Gate]:
        """For this revision, wherever it was evaluated; what was decided last comes first, whenever
        it came here."""
        mine = select(gates).where(
            gates.c.tenant_id == tenant_id,
            gates.c.base_digest == base_digest,
            gates.c.adapter_digest.is_not_distinct_from(adapter_digest),
        )
        return self._read_gates(tenant_id, mine.order_by(gates.c.made_at_us.desc(), _NEWEST))

    def _gates(self, tenant_id: str, limit: int, *wanted: ColumnElement[bool]) -> list[Gate]:
        mine = select(gates).where(gates.c.tenant_id == tenant_id, *wanted)
        return self._read_gates(tenant_id, mine.order_by(_NEWEST).limit(limit))

    def _read_gates(self, tenant_id: str, wanted: Select[Any]) -> list[Gate]:
        with self._reading(tenant_id) as connection:
            return [_gate(row) for row in connection.execute(wanted).mappings()]


def add_gate_in(changing: Changing, tenant_id: str, new: Gate) -> None:
    """With whatever else is changed at once."""
    plain = asdict(new)
    row = plain | {
        "tenant_id": tenant_id,
        "verdicts": json.dumps(plain["verdicts"]),
        "elsewhere": None if new.elsewhere is None else json.dumps(plain["elsewhere"]),
    }
    changing.connection.execute(insert(gates), [row])
    stream = stream_of(tenant_id, new.environment)
    act, name = Act.GATE_MAKE, new.suite_name
    if new.elsewhere is not None:
        signer = new.elsewhere.signer
        act, name = Act.GATE_IMPORT, f"{name} of {signer.by} (key {signer.key[:16]})"
    changing.note(Change(act, stream, new.id, _FIELDS, name))


def _gate(row: RowMapping) -> Gate:
    elsewhere = None if row["elsewhere"] is None else json.loads(row["elsewhere"])
    return Gate(
        **{
            **row,
            "environment": Environment(row["environment"]),
            "verdicts": tuple(Verdict(**each) for each in json.loads(row["verdicts"])),
            "elsewhere": elsewhere and _elsewhere(elsewhere),
        }
    )


def _elsewhere(told: dict[str, Any]) -> Elsewhere:
    return Elsewhere(
        **told
        | {
            "signer": Signer(**told["signer"]),
            "through": Signer(**told["through"]),
            "environment": Environment(told["environment"]),
        }
    )
