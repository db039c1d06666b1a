"""Signatures on adapters, and the keys that sign."""

import sqlalchemy as sa
from alembic import op

revision = "0022"
down_revision = "0021"
serves_from = "0017"


def upgrade() -> None:
    op.create_table(
        "signatures",
        sa.Column("tenant_id", sa.String(), nullable=False),
        sa.Column("digest", sa.String(), nullable=False),
        sa.Column("key", sa.String(), nullable=False),
        sa.Column("bundle", sa.String(), nullable=False),
        sa.Column("manifest", sa.String(), nullable=True),
        sa.Column("made_at_us", sa.BigInteger(), nullable=False),
        sa.Column("made_by", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", "digest", "key"),
    )
    op.create_index("ix_signatures_digest", "signatures", ["digest"])
    op.create_table(
        "signing_keys",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("public", sa.String(), nullable=False),
        sa.Column("made_at_us", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )


def downgrade() -> None:
    op.drop_table("signing_keys")
    op.drop_table("signatures")
