"""Brings a database to the schema of this version, in one transaction a step."""

from importlib.resources import as_file, files

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, inspect, text

from freehold.core.errors import Code, UserError
from freehold.store.backend import Backend


def upgrade(engine: Engine, backend: Backend) -> None:
    """Runs what is missing, while other processes wait. Raises `UserError(CONFIG_INVALID)`
    for a database that a newer Freehold made: it is left untouched."""
    with as_file(files("freehold.store") / "migrations") as scripts:
        config = Config()
        config.set_main_option("script_location", str(scripts))
        script = ScriptDirectory.from_config(config)
        with engine.connect() as connection:
            if _is_current(connection, script):
                return
        with engine.begin() as connection:
            backend.begin_upgrade(connection)
            if _is_current(connection, script):
                return
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
            backend.end_upgrade(connection)


def _is_current(connection: Connection, script: ScriptDirectory) -> bool:
    if not inspect(connection).has_table("alembic_version"):
        return False
    current: str | None = connection.scalar(text("SELECT version_num FROM alembic_version"))
    if current is not None and current not in {step.revision for step in script.walk_revisions()}:
        raise UserError(
            Code.CONFIG_INVALID,
            f"The database was made by a newer Freehold (schema {current}): "
            "upgrade Freehold, or restore an older backup.",
        )
    return current == script.get_current_head()


def is_known(revision: str) -> bool:
    """Whether this version has that schema, or comes after it."""
    with as_file(files("freehold.store") / "migrations") as scripts:
        config = Config()
        config.set_main_option("script_location", str(scripts))
        steps = ScriptDirectory.from_config(config).walk_revisions()
        return revision in {step.revision for step in steps}
