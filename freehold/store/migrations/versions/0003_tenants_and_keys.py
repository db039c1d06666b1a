"""How tenants are isolated and whether they are disabled; where keys may be used from and
what replaced them; a count of changes that every process watches."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.add_column(
        "tenants", sa.Column("isolation", sa.String(), server_default="shared", nullable=False)
    )
    op.add_column("tenants", sa.Column("disabled_at_us", sa.BigInteger(), nullable=True))
    for column in ("networks", "replaced_by", "rotation_token"):
        op.add_column("api_keys", sa.Column(column, sa.String(), nullable=True))
    changes = op.create_table(
        "changes",
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("name"),
    )
    op.bulk_insert(changes, [{"name": "access", "number": 0}])


def downgrade() -> None:
    op.drop_table("changes")
    for column in ("rotation_token", "replaced_by", "networks"):
        op.drop_column("api_keys", column)
    op.drop_column("tenants", "disabled_at_us")
    op.drop_column("tenants", "isolation")
