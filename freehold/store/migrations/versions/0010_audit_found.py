"""What audit records are found by: time, principal, model."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"

_COLUMNS = ("at_us", "kind", "principal", "model")
_INDEXES = {
    "audit_by_time": ["stream", "at_us", "number"],
    "audit_by_principal": ["stream", "principal", "at_us", "number"],
    "audit_by_model": ["stream", "model", "at_us", "number"],
}


def upgrade() -> None:
    op.add_column("audit", sa.Column("at_us", sa.BigInteger(), nullable=True))
    for name in _COLUMNS[1:]:
        op.add_column("audit", sa.Column(name, sa.String(), nullable=True))
    if op.get_bind().dialect.name == "sqlite":
        found = {name: f"json_extract(body, '$.{name}')" for name in _COLUMNS}
    else:
        found = {name: f"CAST(body AS json) ->> '{name}'" for name in _COLUMNS}
        found["at_us"] = f"CAST({found['at_us']} AS bigint)"
    changes = ", ".join(f"{name} = {found[name]}" for name in _COLUMNS)
    op.execute(f"UPDATE audit SET {changes}")  # noqa: S608 - of constants
    for name, columns in _INDEXES.items():
        op.create_index(name, "audit", columns)
    of_none = sa.text("model IS NULL")
    op.create_index(
        "audit_acts",
        "audit",
        ["stream", "at_us", "number"],
        sqlite_where=of_none,
        postgresql_where=of_none,
    )


def downgrade() -> None:
    for name in ("audit_acts", *_INDEXES):
        op.drop_index(name, "audit")
    for name in _COLUMNS:
        op.drop_column("audit", name)
