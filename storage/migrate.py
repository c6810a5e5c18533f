"""The schema's version: brings a database to the newest one, and says whether it is there.

The migrations lie beside this module in the installed package; users need no alembic.ini. The tables are
described in `storage.tables`; no other module may change them.
"""

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy.engine import Connection

from inferq import errors
from storage import faults
from storage.database import Database, exclusive

_SCRIPTS = Path(__file__).parent / "migrations"


async def upgrade(url: str, home: Path) -> None:
    """Bring the schema to the newest version; a missing SQLite file is made.

    One transaction: after an error the schema is as before. Two processes may do it at once; within a process
    call it once at a time, as Alembic keeps global state. Raises ConfigError and StoreUnavailable.
    """
    database = await Database.open(url, home, create=True)

    def work(connection: Connection) -> None:
        exclusive(connection, "migrate")
        _upgrade(connection)

    try:
        await database.write(work)
    finally:
        await database.close()


async def check(url: str, home: Path) -> None:
    """Return when the schema is the newest one. Raises StoreUnavailable that says what to do otherwise."""
    database = await Database.open(url, home)
    try:
        found = await database.read(_revision)
    finally:
        await database.close()
    scripts = ScriptDirectory(str(_SCRIPTS))
    newest = scripts.get_current_head()
    if found == newest:
        return
    known = {script.revision for script in scripts.walk_revisions()}
    if found is not None and found not in known:
        raise errors.StoreUnavailable(f"the database's schema {found} is newer than this release's, {newest}")
    raise errors.StoreUnavailable(f"the database's schema is {found or 'empty'}, not {newest}: {faults.INIT}")


def _upgrade(connection: Connection) -> None:
    config = Config()
    # Alembic reads % in options as interpolation.
    config.set_main_option("script_location", str(_SCRIPTS).replace("%", "%%"))
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


def _revision(connection: Connection) -> str | None:
    return MigrationContext.configure(connection).get_current_revision()
