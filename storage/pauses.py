"""What operators have stopped: models, tenants, lanes, replicas, nodes. It owns the table `pauses`.

It must not know Redis or what a pause does; `queues.controls` does.
"""

import time
from dataclasses import dataclass

from sqlalchemy import Connection, delete, insert, select

from storage.database import Database, exclusive
from storage.tables import pauses
from storage.texts import clean, clean_or_none


@dataclass(frozen=True, slots=True)
class Pause:
    """`created_at` is in Unix seconds."""

    kind: str
    name: str
    created_at: float
    reason: str | None


class PauseStore:
    """The pauses in one database. Every method raises StoreUnavailable when it is away."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def put(self, kind: str, name: str, reason: str | None) -> Pause:
        """Note a pause; one that is there gets the new reason and keeps its time."""
        key = (pauses.c.kind == clean(kind), pauses.c.name == clean(name))

        def work(connection: Connection) -> Pause:
            exclusive(connection, "pauses")
            since = connection.scalar(select(pauses.c.created_at).where(*key))
            row = Pause(clean(kind), clean(name), since or time.time(), clean_or_none(reason))
            connection.execute(delete(pauses).where(*key))
            values = {"kind": row.kind, "name": row.name, "created_at": row.created_at, "reason": row.reason}
            connection.execute(insert(pauses).values(**values))
            return row

        return await self._database.write(work)

    async def remove(self, kind: str, name: str) -> bool:
        """Forget a pause; whether there was one."""
        statement = delete(pauses).where(pauses.c.kind == clean(kind), pauses.c.name == clean(name))
        return await self._database.write(lambda connection: connection.execute(statement).rowcount > 0)

    async def list(self) -> list[Pause]:
        """All of them, oldest first."""
        statement = select(pauses).order_by(pauses.c.created_at, pauses.c.kind, pauses.c.name)

        def work(connection: Connection) -> "list[Pause]":
            return [Pause(**row) for row in connection.execute(statement).mappings()]

        return await self._database.read(work)
