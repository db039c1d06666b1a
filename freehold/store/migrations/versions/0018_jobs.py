"""Work beside the gateway, and what adapters say of where they come from."""

import sqlalchemy as sa
from alembic import op

revision = "0018"
down_revision = "0017"
serves_from = "0017"


def upgrade() -> None:
    op.create_table(
        "jobs",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("tenant_id", sa.String(), nullable=False),
        sa.Column("environment", sa.String(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("spec", sa.String(), nullable=False),
        sa.Column("progress", sa.String(), nullable=False),
        sa.Column("result", sa.String(), nullable=True),
        sa.Column("error", sa.String(), nullable=True),
        sa.Column("created_at_us", sa.BigInteger(), nullable=False),
        sa.Column("created_by", sa.String(), nullable=False),
        sa.Column("started_at_us", sa.BigInteger(), nullable=True),
        sa.Column("ended_at_us", sa.BigInteger(), nullable=True),
        sa.Column("cancelled_at_us", sa.BigInteger(), nullable=True),
        sa.Column("held_by", sa.String(), nullable=True),
        sa.Column("held_until_us", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("ix_jobs_tenant_id", "jobs", ["tenant_id", "environment"])
    op.create_index("ix_jobs_state", "jobs", ["state"])
    op.add_column("adapters", sa.Column("manifest", sa.String(), nullable=True))


def downgrade() -> None:
    op.drop_column("adapters", "manifest")
    op.drop_index("ix_jobs_state", "jobs")
    op.drop_index("ix_jobs_tenant_id", "jobs")
    op.drop_table("jobs")
