"""Brings a database to the schema of this version, in one transaction a step.

Alembic is imported only where there is a step to make: which there are, the files' names say.
"""

from importlib.resources import as_file, files

from sqlalchemy import Connection, Engine, inspect, text

from freehold.core.errors import Code, UserError
from freehold.store.backend import Backend

_FOLDER = files("freehold.store") / "migrations"
# The schema that a database has, and the oldest one whose version can use it still.
_SERVES_FROM = "schema_serves_from"
_SAID = text("SELECT value FROM facts WHERE name = :name")
_PUT = text(
    "INSERT INTO facts (name, value) VALUES (:name, :value)"
    " ON CONFLICT (name) DO UPDATE SET value = excluded.value"
)


def upgrade(engine: Engine, backend: Backend) -> str | None:
    """Runs what is missing, while other processes wait. Returns the schema of a newer Freehold
    that this version can use; one that it cannot is left untouched, and raises
    `UserError(CONFIG_INVALID)`."""
    behind = {None, *revisions()[:-1]}
    with engine.connect() as connection:
        current = _current(connection)
    if current in behind:
        with engine.begin() as connection:
            backend.begin_upgrade(connection)
            current = _current(connection)
            if current in behind:
                current = _run_steps(connection)
                backend.end_upgrade(connection)
    return None if current is None or is_known(current) else current


def _run_steps(connection: Connection) -> str:
    from alembic import command
    from alembic.config import Config
    from alembic.script import ScriptDirectory

    with as_file(_FOLDER) as scripts:
        config = Config()
        config.set_main_option("script_location", str(scripts))
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
        last = revisions()[-1]
        step = ScriptDirectory.from_config(config).get_revision(last).module
    # A step that does not say so is for its own version and later ones.
    serves_from = getattr(step, "serves_from", last)
    connection.execute(_PUT, {"name": _SERVES_FROM, "value": f"{last} {serves_from}"})
    return last


def _current(connection: Connection) -> str | None:
    if not inspect(connection).has_table("alembic_version"):
        return None
    current: str | None = connection.scalar(text("SELECT version_num FROM alembic_version"))
    if current is not None and not is_usable(connection, current):
        raise UserError(
            Code.CONFIG_INVALID,
            f"The database was made by a newer Freehold (schema {current}): "
            "upgrade Freehold, or restore an older backup.",
        )
    return current


def is_usable(connection: Connection, revision: str) -> bool:
    """Whether this version can use a database that has that schema: it knows it, or one that
    the schema says it serves from."""
    if is_known(revision):
        return True
    if not inspect(connection).has_table("facts"):
        return False
    said = connection.scalar(_SAID, {"name": _SERVES_FROM}) or ""
    of, _, serves_from = said.partition(" ")
    return bool(of == revision and is_known(serves_from))


def is_known(revision: str) -> bool:
    """Whether this version has that schema, or comes after it."""
    return revision in revisions()


def revisions() -> list[str]:
    """Of every step, the oldest first: `0001_first_tables.py` makes 0001."""
    names = (each.name for each in (_FOLDER / "versions").iterdir())
    return sorted(name.partition("_")[0] for name in names if name.endswith(".py"))
