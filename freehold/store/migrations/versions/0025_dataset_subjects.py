"""Whose words datasets hold that were made of what people said."""

import sqlalchemy as sa
from alembic import op

revision = "0025"
down_revision = "0024"
serves_from = "0017"


def upgrade() -> None:
    op.create_table(
        "dataset_subjects",
        sa.Column("tenant_id", sa.String(), nullable=False),
        sa.Column("digest", sa.String(), nullable=False),
        sa.Column("subject", sa.String(), nullable=False),
        sa.Column("forgotten_at_us", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("tenant_id", "digest", "subject"),
    )
    op.create_index("dataset_subjects_of", "dataset_subjects", ["tenant_id", "subject"])


def downgrade() -> None:
    op.drop_table("dataset_subjects")
