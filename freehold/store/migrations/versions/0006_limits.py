"""Limits, what was spent by day, and what requests cost."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    op.create_table(
        "limits",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("tenant_id", sa.String(), nullable=False),
        sa.Column("environment", sa.String(), nullable=False),
        sa.Column("subject", sa.String(), nullable=False),
        sa.Column("measure", sa.String(), nullable=False),
        sa.Column("period", sa.String(), nullable=False),
        sa.Column("is_own", sa.Boolean(), nullable=False),
        sa.Column("amount", sa.BigInteger(), nullable=False),
        sa.Column("set_at_us", sa.BigInteger(), nullable=False),
        sa.Column("set_by", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint(
            "tenant_id",
            "environment",
            "subject",
            "measure",
            "period",
            "is_own",
            name="one_limit_each",
        ),
    )
    op.create_table(
        "spent",
        sa.Column("tenant_id", sa.String(), nullable=False),
        sa.Column("environment", sa.String(), nullable=False),
        sa.Column("account", sa.String(), nullable=False),
        sa.Column("day", sa.Integer(), nullable=False),
        sa.Column("requests", sa.BigInteger(), nullable=False),
        sa.Column("tokens", sa.BigInteger(), nullable=False),
        sa.Column("cost", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", "environment", "account", "day"),
    )
    op.add_column("api_keys", sa.Column("lineage", sa.String(), nullable=True))
    op.add_column("requests", sa.Column("account", sa.String(), nullable=True))
    op.add_column("requests", sa.Column("price", sa.String(), nullable=True))
    op.add_column("requests", sa.Column("cost", sa.BigInteger(), nullable=True))
    op.execute(
        "INSERT INTO spent (tenant_id, environment, account, day, requests, tokens, cost) "
        "SELECT tenant_id, environment, key_id, created_at_us / 86400000000, count(*), "
        "sum(tokens_in + tokens_out), 0 FROM requests WHERE settled_at_us IS NOT NULL "
        "GROUP BY tenant_id, environment, key_id, created_at_us / 86400000000"
    )


def downgrade() -> None:
    op.drop_column("requests", "cost")
    op.drop_column("requests", "price")
    op.drop_column("requests", "account")
    op.drop_column("api_keys", "lineage")
    op.drop_table("spent")
    op.drop_table("limits")
