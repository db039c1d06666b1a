"""What running requests hold of limits, where several gateways share a database."""

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"
serves_from = "0014"


def upgrade() -> None:
    op.create_table(
        "holds",
        sa.Column("request_id", sa.String(), nullable=False),
        sa.Column("limit_id", sa.String(), nullable=False),
        sa.Column("tenant_id", sa.String(), nullable=False),
        sa.Column("gateway", sa.String(), nullable=True),
        sa.Column("measure", sa.String(), nullable=False),
        sa.Column("period", sa.String(), nullable=False),
        sa.Column("at_us", sa.BigInteger(), nullable=False),
        sa.Column("amount", sa.BigInteger(), nullable=False),
        sa.Column("is_open", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("request_id", "limit_id"),
    )
    op.create_index("holds_by_limit", "holds", ["limit_id", "at_us"])


def downgrade() -> None:
    op.drop_index("holds_by_limit", "holds")
    op.drop_table("holds")
