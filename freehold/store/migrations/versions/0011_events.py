"""Events, and which webhooks must still be told of them."""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"


def upgrade() -> None:
    op.create_table(
        "events",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("at_us", sa.BigInteger(), nullable=False),
        sa.Column("severity", sa.String(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("tenant_id", sa.String(), nullable=True),
        sa.Column("environment", sa.String(), nullable=True),
        sa.Column("subject", sa.String(), nullable=True),
        sa.Column("text", sa.String(), nullable=False),
        sa.Column("details", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("ix_events_at_us", "events", ["at_us"])
    op.create_index("events_of_tenant", "events", ["tenant_id", "environment", "id"])
    op.create_table(
        "event_deliveries",
        sa.Column("event_id", sa.String(), nullable=False),
        sa.Column("webhook", sa.String(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("next_at_us", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("event_id", "webhook"),
    )
    op.create_index("ix_event_deliveries_next_at_us", "event_deliveries", ["next_at_us"])


def downgrade() -> None:
    op.drop_table("event_deliveries")
    op.drop_table("events")
