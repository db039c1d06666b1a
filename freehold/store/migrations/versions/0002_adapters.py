"""Adapters, and routes that a person set beside those that each start writes.

The routes of before were all written by the last start, and the next one writes them
again: the table is made anew."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.drop_table("routes")
    op.create_table(
        "routes",
        *_route_columns(),
        sa.Column("managed", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("tenant_id", "environment", "alias", "managed"),
    )
    op.create_index("routes_by_weights", "routes", ["base_digest", "adapter_digest"], unique=False)
    op.create_table(
        "adapters",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("tenant_id", sa.String(), nullable=False),
        sa.Column("environment", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("digest", sa.String(), nullable=False),
        sa.Column("config_digest", sa.String(), nullable=False),
        sa.Column("weights_digest", sa.String(), nullable=False),
        sa.Column("base_digest", sa.String(), nullable=False),
        sa.Column("rank", sa.Integer(), nullable=False),
        sa.Column("scaling", sa.String(), nullable=False),
        sa.Column("target_modules", sa.String(), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("source", sa.String(), nullable=False),
        sa.Column("added_at_us", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("tenant_id", "environment", "name"),
        sa.UniqueConstraint("tenant_id", "environment", "base_digest", "digest"),
    )
    for column in ("config_digest", "digest", "weights_digest"):
        op.create_index(op.f(f"ix_adapters_{column}"), "adapters", [column], unique=False)


def downgrade() -> None:
    for column in ("weights_digest", "digest", "config_digest"):
        op.drop_index(op.f(f"ix_adapters_{column}"), table_name="adapters")
    op.drop_table("adapters")
    op.drop_index("routes_by_weights", table_name="routes")
    op.drop_table("routes")
    op.create_table(
        "routes",
        *_route_columns(),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("tenant_id", "environment", "alias"),
    )


def _route_columns() -> list[sa.Column[object]]:
    return [
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
    ]
