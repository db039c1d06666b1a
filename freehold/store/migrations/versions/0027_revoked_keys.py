"""Signing keys that are not believed any more, and from when on."""

import sqlalchemy as sa
from alembic import op

revision = "0027"
down_revision = "0026"
serves_from = "0017"


def upgrade() -> None:
    op.add_column("signing_keys", sa.Column("revoked_since_us", sa.BigInteger(), nullable=True))


def downgrade() -> None:
    op.drop_column("signing_keys", "revoked_since_us")
