"""What stays of routes, bases, adapters and datasets, so that past answers can be explained."""

import sqlalchemy as sa
from alembic import op

revision = "0024"
down_revision = "0023"
serves_from = "0017"


def upgrade() -> None:
    op.create_table(
        "route_history",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("tenant_id", sa.String(), nullable=False),
        sa.Column("environment", sa.String(), nullable=False),
        sa.Column("alias", sa.String(), nullable=False),
        sa.Column("managed", sa.Boolean(), nullable=False),
        sa.Column("at_us", sa.BigInteger(), nullable=False),
        sa.Column("base_digest", sa.String(), nullable=True),
        sa.Column("adapter_digest", sa.String(), nullable=True),
        sa.Column("is_removed", sa.Boolean(), nullable=False),
        sa.Column("set_by", sa.String(), nullable=True),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index(
        "route_history_of", "route_history", ["tenant_id", "environment", "alias", "at_us"]
    )
    op.create_table(
        "remains",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("tenant_id", sa.String(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("digest", sa.String(), nullable=False),
        sa.Column("content", sa.String(), nullable=False),
        sa.Column("at_us", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("remains_of", "remains", ["tenant_id", "kind", "digest"])
    op.create_table(
        "bases",
        sa.Column("digest", sa.String(), nullable=False),
        sa.Column("content", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("digest"),
    )
    # Where aliases lead already.
    op.execute(
        "INSERT INTO route_history (id, tenant_id, environment, alias, managed, at_us,"
        " base_digest, adapter_digest, is_removed, set_by)"
        " SELECT 'led_' || id, tenant_id, environment, alias, managed, created_at_us,"
        " base_digest, adapter_digest, false, NULL FROM routes"
    )


def downgrade() -> None:
    op.drop_table("bases")
    op.drop_table("remains")
    op.drop_table("route_history")
