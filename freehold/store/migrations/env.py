"""Alembic's entry: it is always handed a connection, never a URL."""

from alembic import context

from freehold.store.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    transactional_ddl=True,
)
context.run_migrations()
