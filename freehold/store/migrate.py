"""Brings a database to the schema of this version, in one transaction a step.

Alembic is imported only where there is a step to make: which there are, the files' names say.
"""

from importlib.resources import as_file, files

from sqlalchemy import Connection, Engine, inspect, text

from freehold.core.errors import Code, UserError
from freehold.store.backend import Backend

_FOLDER = files("freehold.store") / "migrations"


def upgrade(engine: Engine, backend: Backend) -> None:
    """Runs what is missing, while other processes wait. Raises `UserError(CONFIG_INVALID)`
    for a database that a newer Freehold made: it is left untouched."""
    with engine.connect() as connection:
        if _is_current(connection):
            return
    with engine.begin() as connection:
        backend.begin_upgrade(connection)
        if _is_current(connection):
            return
        _run_steps(connection)
        backend.end_upgrade(connection)


def _run_steps(connection: Connection) -> None:
    from alembic import command
    from alembic.config import Config

    with as_file(_FOLDER) as scripts:
        config = Config()
        config.set_main_option("script_location", str(scripts))
        config.attributes["connection"] = connection
        command.upgrade(config, "head")


def _is_current(connection: Connection) -> bool:
    if not inspect(connection).has_table("alembic_version"):
        return False
    current: str | None = connection.scalar(text("SELECT version_num FROM alembic_version"))
    if current is not None and not is_known(current):
        raise UserError(
            Code.CONFIG_INVALID,
            f"The database was made by a newer Freehold (schema {current}): "
            "upgrade Freehold, or restore an older backup.",
        )
    return current == revisions()[-1]


def is_known(revision: str) -> bool:
    """Whether this version has that schema, or comes after it."""
    return revision in revisions()


def revisions() -> list[str]:
    """Of every step, the oldest first: `0001_first_tables.py` makes 0001."""
    names = (each.name for each in (_FOLDER / "versions").iterdir())
    return sorted(name.partition("_")[0] for name in names if name.endswith(".py"))
