"""Gates: what evaluations decided of revisions."""

import sqlalchemy as sa
from alembic import op

revision = "0020"
down_revision = "0019"
serves_from = "0017"


def upgrade() -> None:
    op.create_table(
        "gates",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("tenant_id", sa.String(), nullable=False),
        sa.Column("environment", sa.String(), nullable=False),
        sa.Column("base_digest", sa.String(), nullable=False),
        sa.Column("adapter_digest", sa.String(), nullable=True),
        sa.Column("suite_name", sa.String(), nullable=False),
        sa.Column("suite_digest", sa.String(), nullable=False),
        sa.Column("incumbent_digest", sa.String(), nullable=True),
        sa.Column("passed", sa.Boolean(), nullable=False),
        sa.Column("verdicts", sa.String(), nullable=False),
        sa.Column("job", sa.String(), nullable=True),
        sa.Column("made_at_us", sa.BigInteger(), nullable=False),
        sa.Column("made_by", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("gates_of_revision", "gates", ["tenant_id", "base_digest", "adapter_digest"])


def downgrade() -> None:
    op.drop_index("gates_of_revision", "gates")
    op.drop_table("gates")
