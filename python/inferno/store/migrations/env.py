"""Alembic's entry point. `inferno.store.migrate` hands over the connection."""

from __future__ import annotations

from alembic import context
from inferno.store.schema import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    transaction_per_migration=True,
    transactional_ddl=True,  # SQLite can, and our connections do not let its driver commit in between
)
with context.begin_transaction():
    context.run_migrations()
