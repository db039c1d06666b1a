"""Promotions, and the routes that have a share of the requests for their alias."""

import sqlalchemy as sa
from alembic import op

revision = "0023"
down_revision = "0022"
serves_from = "0017"


def upgrade() -> None:
    op.add_column("routes", sa.Column("passed_by", sa.String(), nullable=True))
    op.add_column("routes", sa.Column("promotion", sa.String(), nullable=True))
    # What was served before there were gates goes on.
    op.execute(
        "UPDATE routes SET passed_by = 'before gates'"
        " WHERE adapter_digest IS NOT NULL AND environment IN ('staging', 'prod')"
    )
    op.create_table(
        "candidates",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("tenant_id", sa.String(), nullable=False),
        sa.Column("environment", sa.String(), nullable=False),
        sa.Column("alias", sa.String(), nullable=False),
        sa.Column("engine", sa.String(), nullable=False),
        sa.Column("pool", sa.String(), nullable=False),
        sa.Column("base_digest", sa.String(), nullable=True),
        sa.Column("adapter_digest", sa.String(), nullable=True),
        sa.Column("engine_model", sa.String(), nullable=False),
        sa.Column("created_at_us", sa.BigInteger(), nullable=False),
        sa.Column("passed_by", sa.String(), nullable=True),
        sa.Column("promotion", sa.String(), nullable=False),
        sa.Column("share", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("tenant_id", "environment", "alias"),
    )
    op.create_index("candidates_by_weights", "candidates", ["base_digest", "adapter_digest"])
    op.create_table(
        "promotions",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("tenant_id", sa.String(), nullable=False),
        sa.Column("environment", sa.String(), nullable=False),
        sa.Column("source", sa.String(), nullable=True),
        sa.Column("alias", sa.String(), nullable=False),
        sa.Column("adapter", sa.String(), nullable=True),
        sa.Column("bundle", sa.String(), nullable=False),
        sa.Column("gate", sa.String(), nullable=True),
        sa.Column("forced", sa.String(), nullable=True),
        sa.Column("overridden", sa.String(), nullable=False),
        sa.Column("accepted", sa.String(), nullable=True),
        sa.Column("share", sa.Float(), nullable=False),
        sa.Column("watch", sa.String(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("before", sa.String(), nullable=True),
        sa.Column("before_adapter", sa.String(), nullable=True),
        sa.Column("made_at_us", sa.BigInteger(), nullable=False),
        sa.Column("made_by", sa.String(), nullable=False),
        sa.Column("whole_at_us", sa.BigInteger(), nullable=True),
        sa.Column("watched_until_us", sa.BigInteger(), nullable=True),
        sa.Column("ended_at_us", sa.BigInteger(), nullable=True),
        sa.Column("ended_because", sa.String(), nullable=True),
        sa.Column("ended_by", sa.String(), nullable=True),
        sa.Column("figures", sa.String(), nullable=True),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("ix_promotions_state", "promotions", ["state"])
    op.create_index("ix_promotions_before_adapter", "promotions", ["before_adapter"])
    op.create_index("ix_promotions_watched_until_us", "promotions", ["watched_until_us"])
    op.create_index("promotions_by_alias", "promotions", ["tenant_id", "environment", "alias"])


def downgrade() -> None:
    op.drop_table("promotions")
    op.drop_table("candidates")
    op.drop_column("routes", "promotion")
    op.drop_column("routes", "passed_by")
