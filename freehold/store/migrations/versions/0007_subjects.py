"""Personal fields of audit records, and what they are found by."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    op.create_table(
        "subject_keys",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("tenant_id", sa.String(), nullable=False),
        sa.Column("subject", sa.String(), nullable=False),
        sa.Column("wrapped", sa.LargeBinary(), nullable=True),
        sa.Column("created_at_us", sa.BigInteger(), nullable=False),
        sa.Column("forgotten_at_us", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("subject_keys_of", "subject_keys", ["tenant_id", "subject"])
    op.add_column("requests", sa.Column("personal", sa.String(), nullable=True))


def downgrade() -> None:
    op.drop_column("requests", "personal")
    op.drop_index("subject_keys_of", "subject_keys")
    op.drop_table("subject_keys")
