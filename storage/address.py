"""Where the database is: reads the configured URL and says how to reach it. It opens nothing."""

from dataclasses import dataclass
from pathlib import Path

from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from inferq import errors

_DRIVERS = {"sqlite": "sqlite", "postgresql": "postgresql+asyncpg"}


@dataclass(frozen=True, slots=True)
class Address:
    """Where a database is: the URL for the driver, the file (SQLite only), and a name without password."""

    url: URL
    file: Path | None
    shown: str


def locate(url: str, home: Path) -> Address:
    """The address for a configured URL; a relative SQLite path lies under `home`. Raises ConfigError."""
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError) as error:
        raise errors.ConfigError(f"storage.database_url: {error}") from error
    backend = parsed.get_backend_name()
    if backend not in _DRIVERS:
        raise errors.ConfigError(f"storage.database_url: {backend} is neither sqlite nor postgresql")
    parsed = parsed.set(drivername=_DRIVERS[backend])
    if backend == "postgresql":
        host = parsed.host or parsed.query.get("host") or "localhost"
        shown = f"{host}:{parsed.port or 5432}/{parsed.database or ''}"
        return Address(parsed, None, shown)
    if not parsed.database or parsed.database == ":memory:" or parsed.database.startswith("file:"):
        raise errors.ConfigError("storage.database_url: SQLite needs a file, sqlite:///inferq.db")
    file = (home / parsed.database).absolute()
    return Address(parsed.set(database=str(file)), file, str(file))
