"""Keys that only the owners of certain certificates use."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    op.add_column("api_keys", sa.Column("certificates", sa.String(), nullable=True))


def downgrade() -> None:
    op.drop_column("api_keys", "certificates")
