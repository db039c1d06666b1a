"""Several gateways on one database: when each was heard of, and whose requests and claims
are whose."""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"


def upgrade() -> None:
    op.create_table(
        "gateways",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("seen_at_us", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.add_column("requests", sa.Column("gateway", sa.String(), nullable=True))
    op.add_column("idempotency", sa.Column("gateway", sa.String(), nullable=True))
    op.execute("INSERT INTO changes (name, number) VALUES ('routes', 0)")


def downgrade() -> None:
    op.execute("DELETE FROM changes WHERE name <> 'access'")
    op.drop_column("idempotency", "gateway")
    op.drop_column("requests", "gateway")
    op.drop_table("gateways")
