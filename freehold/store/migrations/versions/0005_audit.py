"""The audit chain, and which policies admitted a request."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    op.create_table(
        "audit",
        sa.Column("stream", sa.String(), nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.Column("body", sa.String(), nullable=False),
        sa.Column("hash", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("stream", "number"),
    )
    op.add_column("requests", sa.Column("policies", sa.String(), nullable=True))


def downgrade() -> None:
    op.drop_column("requests", "policies")
    op.drop_table("audit")
