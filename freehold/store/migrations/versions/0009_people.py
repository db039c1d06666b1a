"""People: their sessions, the tokens of theirs that count no more, the roles of their groups."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    op.create_table(
        "sessions",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("tenant_id", sa.String(), nullable=False),
        sa.Column("person_id", sa.String(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("hash", sa.LargeBinary(), nullable=False),
        sa.Column("token_hash", sa.LargeBinary(), nullable=False),
        sa.Column("issuer", sa.String(), nullable=False),
        sa.Column("subject", sa.String(), nullable=False),
        sa.Column("groups", sa.String(), nullable=False),
        sa.Column("tenant_value", sa.String(), nullable=True),
        sa.Column("name", sa.String(), nullable=True),
        sa.Column("issued_at_us", sa.BigInteger(), nullable=False),
        sa.Column("token_expires_at_us", sa.BigInteger(), nullable=False),
        sa.Column("created_at_us", sa.BigInteger(), nullable=False),
        sa.Column("last_used_at_us", sa.BigInteger(), nullable=False),
        sa.Column("expires_at_us", sa.BigInteger(), nullable=False),
        sa.Column("ended_at_us", sa.BigInteger(), nullable=True),
        sa.Column("ended_by", sa.String(), nullable=True),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("hash"),
        sa.UniqueConstraint("token_hash"),
    )
    op.create_index("sessions_by_person", "sessions", ["tenant_id", "person_id"])
    op.create_table(
        "cut_offs",
        sa.Column("tenant_id", sa.String(), nullable=False),
        sa.Column("person_id", sa.String(), nullable=False),
        sa.Column("before_us", sa.BigInteger(), nullable=False),
        sa.Column("set_by", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", "person_id"),
    )
    op.create_table(
        "role_grants",
        sa.Column("tenant_id", sa.String(), nullable=False),
        sa.Column("environment", sa.String(), nullable=False),
        sa.Column("issuer", sa.String(), nullable=False),
        sa.Column("group_name", sa.String(), nullable=False),
        sa.Column("role", sa.String(), nullable=False),
        sa.Column("granted_at_us", sa.BigInteger(), nullable=False),
        sa.Column("granted_by", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", "environment", "issuer", "group_name", "role"),
    )


def downgrade() -> None:
    for table in ("role_grants", "cut_offs", "sessions"):
        op.drop_table(table)
