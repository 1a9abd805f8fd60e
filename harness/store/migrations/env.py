"""What Alembic runs: migrations on the connection that the store hands over, in its transaction."""

from __future__ import annotations

from alembic import context

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=context.config.attributes.get("metadata"),
    transactional_ddl=False,  # the store has begun a transaction already, on SQLite too
)
context.run_migrations()
