"""A version of tomorrow: this one, with one step of the schema more."""

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from freehold.store import migrate

REVISION = "9000"
_STEP = """
import sqlalchemy as sa
from alembic import op

revision = "{revision}"
down_revision = "{before}"
{says}


def upgrade() -> None:
    op.create_table(
        "novelties",
        sa.Column("id", sa.String(), primary_key=True),
        sa.Column("tenant_id", sa.String(), nullable=False),
    )
    for table in ("requests", "audit", "api_keys", "idempotency", "spent", "facts"):
        op.add_column(table, sa.Column("novelty", sa.String(), nullable=True))
    op.create_index("audit_by_novelty", "audit", ["novelty"])
    if op.get_bind().dialect.name == "postgresql":
        op.execute("SELECT pg_sleep(0.5)")  # so that others come meanwhile
"""


@contextlib.contextmanager
def newer(folder: Path, says: str = "serves_from = down_revision") -> Iterator[None]:
    """Within it, Freehold is that version; `says` is a line of its step."""
    with migrate.as_file(migrate._FOLDER) as scripts:
        shutil.copytree(scripts, folder / "migrations", dirs_exist_ok=True)
    step = _STEP.format(revision=REVISION, before=migrate.revisions()[-1], says=says)
    (folder / "migrations" / "versions" / f"{REVISION}_next.py").write_text(step)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(migrate, "_FOLDER", folder / "migrations")
        yield
