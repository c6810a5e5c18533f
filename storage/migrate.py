"""Brings a database to the newest version of the schema; `storage.revision` says which one it has.

The migrations lie beside this module in the installed package; users need no alembic.ini. The tables are
described in `storage.tables`; no other module may change them.
"""

from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy.engine import Connection

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


def _upgrade(connection: Connection) -> None:
    config = Config()
    # Alembic reads % in options as interpolation.
    config.set_main_option("script_location", str(_SCRIPTS).replace("%", "%%"))
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
