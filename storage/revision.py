"""Which version of the schema a database has, and whether this release can use it. No Alembic: every process asks.

`storage.migrate` brings a schema to the newest version; a test keeps REVISIONS equal to the migrations that exist.
"""

from pathlib import Path

from sqlalchemy import inspect, text
from sqlalchemy.engine import Connection

from inferq import errors
from storage import faults
from storage.database import Database

REVISIONS = ("0001", "0002")
"""All versions, oldest first."""


async def check(url: str, home: Path) -> None:
    """Return when the schema is the newest one. Raises StoreUnavailable that says what to do otherwise."""
    database = await Database.open(url, home)
    try:
        found = await database.read(_current)
    finally:
        await database.close()
    newest = REVISIONS[-1]
    if found == newest:
        return
    if found is not None and found not in REVISIONS:
        raise errors.StoreUnavailable(f"the database's schema {found} is newer than this release's, {newest}")
    raise errors.StoreUnavailable(f"the database's schema is {found or 'empty'}, not {newest}: {faults.INIT}")


def _current(connection: Connection) -> str | None:
    if not inspect(connection).has_table("alembic_version"):
        return None
    found = connection.scalar(text("SELECT version_num FROM alembic_version"))
    return None if found is None else str(found)
