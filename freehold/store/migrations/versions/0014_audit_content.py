"""What was asked and answered, where a tenant has it kept."""

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"


def upgrade() -> None:
    op.create_table(
        "audit_content",
        sa.Column("request_id", sa.String(), nullable=False),
        sa.Column("tenant_id", sa.String(), nullable=False),
        sa.Column("environment", sa.String(), nullable=False),
        sa.Column("data_keys", sa.String(), nullable=False),
        sa.Column("sealed", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("request_id"),
    )
    op.add_column("requests", sa.Column("content", sa.String(), nullable=True))
    op.add_column("tenants", sa.Column("audit_content", sa.Boolean(), nullable=True))


def downgrade() -> None:
    op.drop_column("tenants", "audit_content")
    op.drop_column("requests", "content")
    op.drop_table("audit_content")
