"""Gates that another installation decided, and promotions of what came from there."""

import sqlalchemy as sa
from alembic import op

revision = "0026"
down_revision = "0025"
serves_from = "0017"


def upgrade() -> None:
    op.add_column("gates", sa.Column("elsewhere", sa.String(), nullable=True))
    op.add_column("promotions", sa.Column("elsewhere", sa.String(), nullable=True))


def downgrade() -> None:
    op.drop_column("promotions", "elsewhere")
    op.drop_column("gates", "elsewhere")
