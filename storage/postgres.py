"""Work on a PostgreSQL server through asyncpg. It must not know tables."""

from collections.abc import Callable
from typing import TypeVar

from sqlalchemy import Connection
from sqlalchemy.engine import URL
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from storage.texts import dump_json

T = TypeVar("T")

CONNECT_TIMEOUT = 5.0
STATEMENT_TIMEOUT = 30.0


class PostgresRunner:
    """Runs work on one database. `patient` lifts the time limit of a statement, which a migration may need."""

    dialect = "postgresql"

    def __init__(self, url: URL, *, patient: bool) -> None:
        arguments = {
            "timeout": CONNECT_TIMEOUT,
            "command_timeout": None if patient else STATEMENT_TIMEOUT,
            "server_settings": {"application_name": "inferq"},
        }
        self.engine = create_async_engine(
            url, connect_args=arguments, json_serializer=dump_json,
            # Asked before use, so that connections of a restarted server are replaced unseen.
            pool_size=5, max_overflow=10, pool_timeout=10.0, pool_pre_ping=True,
        )  # fmt: skip
        # Reads need no transaction, so they are spared BEGIN and ROLLBACK.
        self._for_reading = self.engine.execution_options(isolation_level="AUTOCOMMIT")
        self.errors: tuple[type[BaseException], ...] = (SQLAlchemyError, OSError, *_raw_errors(self.engine))

    async def read(self, work: Callable[[Connection], T]) -> T:
        async with self._for_reading.connect() as connection:
            return await connection.run_sync(work)

    async def write(self, work: Callable[[Connection], T]) -> T:
        async with self.engine.begin() as connection:
            return await connection.run_sync(work)

    async def close(self) -> None:
        await self.engine.dispose()


def _raw_errors(engine: AsyncEngine) -> tuple[type[Exception], ...]:
    """What the driver raises while connecting, which SQLAlchemy passes on as it is."""
    driver = getattr(engine.dialect.dbapi, "asyncpg", None)
    return () if driver is None else (driver.PostgresError, driver.InterfaceError)
