"""Alembic's environment; :mod:`evenhand.watch.store.migrating` runs it on its connection."""

from __future__ import annotations

from alembic import context

from evenhand.watch.store.tables import Table


def run() -> None:
    """Run the migrations in the transaction that the connection is in."""
    context.configure(
        connection=context.config.attributes["connection"],
        target_metadata=Table.metadata,
        render_as_batch=True,  # SQLite alters a table by making it anew
    )
    with context.begin_transaction():
        context.run_migrations()


# The name under which Alembic loads this file; whoever merely imports it has no context.
if __name__ == "env_py":
    run()
