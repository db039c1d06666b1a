"""What follows when a key is used otherwise than before, and how old an alias is."""

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"
serves_from = "0016"  # an older version would let in keys that are suspended


def upgrade() -> None:
    op.add_column("tenants", sa.Column("on_departure", sa.String(), nullable=True))
    op.add_column("api_keys", sa.Column("on_departure", sa.String(), nullable=True))
    op.add_column("api_keys", sa.Column("restraint", sa.String(), nullable=True))
    op.add_column("api_keys", sa.Column("restrained_at_us", sa.BigInteger(), nullable=True))
    op.add_column("routes", sa.Column("alias_since_us", sa.BigInteger(), nullable=True))


def downgrade() -> None:
    op.drop_column("routes", "alias_since_us")
    op.drop_column("api_keys", "restrained_at_us")
    op.drop_column("api_keys", "restraint")
    op.drop_column("api_keys", "on_departure")
    op.drop_column("tenants", "on_departure")
