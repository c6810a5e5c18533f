"""Runs the migrations on the connection that `storage.migrate` hands over; it opens none of its own."""

from alembic import context

from storage.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    # SQLite changes columns by building the table anew.
    render_as_batch=True,
)
with context.begin_transaction():
    context.run_migrations()
