"""What people said of answers."""

import sqlalchemy as sa
from alembic import op

revision = "0021"
down_revision = "0020"
serves_from = "0017"


def upgrade() -> None:
    op.create_table(
        "feedback",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("tenant_id", sa.String(), nullable=False),
        sa.Column("environment", sa.String(), nullable=False),
        sa.Column("request_id", sa.String(), nullable=False),
        sa.Column("alias", sa.String(), nullable=False),
        sa.Column("adapter_digest", sa.String(), nullable=True),
        sa.Column("rating", sa.String(), nullable=False),
        sa.Column("given_at_us", sa.BigInteger(), nullable=False),
        sa.Column("given_by", sa.String(), nullable=False),
        sa.Column("data_keys", sa.String(), nullable=False),
        sa.Column("sealed", sa.LargeBinary(), nullable=True),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("tenant_id", "request_id", "given_by"),
    )
    op.create_index(
        "feedback_by_alias", "feedback", ["tenant_id", "environment", "alias", "given_at_us"]
    )
    op.add_column("tenants", sa.Column("feedback", sa.Boolean(), nullable=True))


def downgrade() -> None:
    op.drop_column("tenants", "feedback")
    op.drop_index("feedback_by_alias", "feedback")
    op.drop_table("feedback")
