"""Brings a database to the schema of this version, in one transaction a step."""

from importlib.resources import as_file, files

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import Engine, inspect, text

from freehold.core.errors import Code, UserError


def upgrade(engine: Engine) -> None:
    """Runs what is missing. Raises `UserError(CONFIG_INVALID)` for a database that
    a newer Freehold made: it is left untouched."""
    with as_file(files("freehold.store") / "migrations") as scripts:
        config = Config()
        config.set_main_option("script_location", str(scripts))
        script = ScriptDirectory.from_config(config)
        current = _revision(engine)
        if current == script.get_current_head():
            return
        if current is not None and current not in {
            step.revision for step in script.walk_revisions()
        }:
            raise UserError(
                Code.CONFIG_INVALID,
                f"The database was made by a newer Freehold (schema {current}): "
                "upgrade Freehold, or restore an older backup.",
            )
        with engine.begin() as connection:
            config.attributes["connection"] = connection
            command.upgrade(config, "head")


def _revision(engine: Engine) -> str | None:
    with engine.connect() as connection:
        if not inspect(connection).has_table("alembic_version"):
            return None
        found: str | None = connection.scalar(text("SELECT version_num FROM alembic_version"))
        return found
