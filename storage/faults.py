"""Driver errors in this project's words: which may be tried again at once, and what the caller is told.

It is the only place that looks inside errors of SQLite and PostgreSQL. It does not retry anything itself.
"""

import sqlite3

from sqlalchemy.exc import DBAPIError

from inferq import errors
from storage.systemerrors import first_line, is_no_space

INIT = "run `python -m api --init`"
LOCKED = "the database stays locked by other transactions"

_BUSY = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED})
_SERIALIZATION_FAILURE, _DEADLOCK, _DISK_FULL, _UNDEFINED_TABLE = "40001", "40P01", "53100", "42P01"


def is_transient(error: BaseException) -> bool:
    """True when the transaction lost against another one and nothing of it was written."""
    code, sqlstate = _codes(error)
    return code in _BUSY or sqlstate in {_SERIALIZATION_FAILURE, _DEADLOCK}


def translate(error: BaseException, shown: str | None = None) -> errors.StoreUnavailable:
    """The one-line error for callers. For operators `shown` names the database, without password.

    1. No space left: says so. 2. No tables: says what to run. 3. Others hold it too long: says so. 4. Anything else:
    the driver's first line, for operators only, because it may tell where the database lies.
    """
    code, sqlstate = _codes(error)
    name = f"the database {shown}" if shown else "the database"
    if code == sqlite3.SQLITE_FULL or sqlstate == _DISK_FULL or is_no_space(error):
        return errors.StoreUnavailable(f"the disk of {name} is full")
    if sqlstate == _UNDEFINED_TABLE or "no such table" in str(error):
        return errors.StoreUnavailable(f"{name} has no tables of ours: {INIT}")
    if is_transient(error):
        return errors.StoreUnavailable(LOCKED.replace("the database", name))
    reason = f": {first_line(_original(error))}" if shown else ""
    return errors.StoreUnavailable(f"{name} cannot be used{reason}")


def _original(error: BaseException) -> BaseException:
    return error.orig if isinstance(error, DBAPIError) and error.orig is not None else error


def _codes(error: BaseException) -> tuple[int | None, str | None]:
    """SQLite's primary result code and PostgreSQL's SQLSTATE, as far as the error has them."""
    original = _original(error)
    code = getattr(original, "sqlite_errorcode", None)
    # The low byte is the primary code; the others tell kinds of it apart.
    return (None if code is None else code & 0xFF), getattr(original, "sqlstate", None)
