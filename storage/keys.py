"""API keys: who may call, in which role, on whose budget. Only a key's sha256 is stored.

It owns the table `api_keys`. It must not know HTTP or what a role may do; that is the gateway's. A key is 32
random bytes, so one fast hash protects it as well as a slow one would. Every method raises StoreUnavailable.
"""

import hashlib
import secrets
import time
import uuid
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, RowMapping, func, insert, or_, select, update

from inferq import errors
from inferq.lanes import Lane
from storage.database import Database, exclusive
from storage.keyfile import read_key, write_key
from storage.tables import api_keys
from storage.texts import clean

PREFIX = "iq-"


class Role(StrEnum):
    """What a key may do; each role may do what the ones before it may."""

    READONLY = "readonly"
    USER = "user"
    ADMIN = "admin"


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiKey:
    """A key as it is stored. `weight` is its tenant's share of device time, `lane` the highest that its jobs may use;
    times are Unix seconds.
    """

    id: str
    name: str
    role: Role
    tenant: str
    weight: float
    created_at: float
    revoked_at: float | None = None
    lane: Lane = Lane.HIGH


class KeyStore:
    """The keys in one database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def create(
        self,
        name: str,
        role: Role,
        tenant: str | None = None,
        weight: float = 1.0,
        lane: Lane = Lane.HIGH,
    ) -> tuple[ApiKey, str]:
        """Make a key; its text, beside it, is shown once and not kept. The tenant is `name` by default.

        Raises Conflict when a live key has the name, InvalidRequest for an empty name or a bad weight.
        """
        _check(name, tenant or name, weight)

        def work(connection: Connection) -> tuple[ApiKey, str]:
            exclusive(connection, "keys")
            if connection.scalar(select(api_keys.c.id).where(api_keys.c.name == clean(name), _LIVE)):
                raise errors.Conflict(f"there is already a key named {name}")
            return _insert(connection, name, role, tenant, weight, lane)

        return await self._database.write(work)

    async def list(self) -> "list[ApiKey]":
        """All keys, revoked ones too, oldest first."""
        statement = select(*_SHOWN).order_by(api_keys.c.created_at, api_keys.c.id)

        def work(connection: Connection) -> "list[ApiKey]":
            return [_key_of(row) for row in (connection.execute(statement)).mappings()]

        return await self._database.read(work)

    async def weights(self) -> dict[str, float]:
        """The weight of each tenant that has a live key; of several keys the newest says."""
        statement = select(api_keys.c.tenant, api_keys.c.weight).where(_LIVE)
        ordered = statement.order_by(api_keys.c.created_at, api_keys.c.id)

        def work(connection: Connection) -> dict[str, float]:
            return dict(connection.execute(ordered).tuples().all())

        return await self._database.read(work)

    async def revoke(self, id_or_name: str) -> ApiKey:
        """End a live key at once and for good. Raises NotFound when no live key has this id or name."""
        chosen = or_(api_keys.c.id == clean(id_or_name), api_keys.c.name == clean(id_or_name))
        statement = update(api_keys).where(chosen, _LIVE).values(revoked_at=time.time()).returning(*_SHOWN)

        def work(connection: Connection) -> ApiKey:
            row = (connection.execute(statement)).mappings().first()
            if row is None:
                raise errors.NotFound(f"there is no live key {id_or_name}")
            return _key_of(row)

        return await self._database.write(work)

    async def find(self, plaintext: str) -> ApiKey | None:
        """The live key with this text, or None."""
        statement = select(*_SHOWN).where(api_keys.c.digest == _digest(plaintext), _LIVE)

        def work(connection: Connection) -> ApiKey | None:
            row = (connection.execute(statement)).mappings().first()
            return None if row is None else _key_of(row)

        return await self._database.read(work)

    async def ensure_admin(self, file: Path) -> str | None:
        """Make an admin key and put it into `file`, unless both are there; the new key's text, or None.

        A key is made when no admin key lives, when the file is missing, or when it holds no key of this
        database (a crash between file and commit leaves such a file). Safe when two processes call it at
        once. The file has mode 600. Raises StoreUnavailable when it cannot be written.
        """

        def work(connection: Connection) -> str | None:
            # All of it under the write lock, the file too: a second process waits, then finds both in place.
            exclusive(connection, "keys")
            if _admin_lives(connection) and _is_known(connection, read_key(file)):
                return None
            _, plaintext = _insert(connection, _free_name(connection), Role.ADMIN, "admin", 1.0)
            write_key(file, plaintext)
            return plaintext

        return await self._database.write(work)


_LIVE = api_keys.c.revoked_at.is_(None)
_SHOWN = [column for column in api_keys.c if column.name != "digest"]


def _check(name: str, tenant: str, weight: float) -> None:
    if not name.strip():
        raise errors.InvalidRequest("a key needs a name", param="name")
    # The queue's keys end with the tenant, and a model's name may have colons.
    if ":" in tenant:
        raise errors.InvalidRequest("a tenant's name has no colon", param="tenant")
    if not 0 < weight < float("inf"):
        raise errors.InvalidRequest("weight must be a number above 0", param="weight")


def _digest(plaintext: str) -> str:
    return hashlib.sha256(plaintext.encode("utf-8", "surrogatepass")).hexdigest()


def _insert(
    connection: Connection,
    name: str,
    role: Role,
    tenant: str | None,
    weight: float,
    lane: Lane = Lane.HIGH,
) -> tuple[ApiKey, str]:
    plaintext = PREFIX + secrets.token_urlsafe(32)
    values = {
        "id": str(uuid.uuid4()),
        "name": clean(name),
        "role": Role(role).value,
        "tenant": clean(tenant or name),
        "weight": weight,
        "created_at": time.time(),
        "revoked_at": None,
        "lane": lane.value,
    }
    connection.execute(insert(api_keys).values(**values, digest=_digest(plaintext)))
    return _key_of(values), plaintext


def _admin_lives(connection: Connection) -> bool:
    found = select(func.count()).select_from(api_keys).where(api_keys.c.role == Role.ADMIN.value, _LIVE)
    return bool(connection.scalar(found))


def _is_known(connection: Connection, plaintext: str | None) -> bool:
    """Whether the key was ever made here; a revoked one counts, since an admin chose that."""
    if plaintext is None:
        return False
    return connection.scalar(select(api_keys.c.id).where(api_keys.c.digest == _digest(plaintext))) is not None


def _free_name(connection: Connection) -> str:
    taken = connection.scalar(select(api_keys.c.id).where(api_keys.c.name == "admin", _LIVE))
    return "admin" if taken is None else f"admin-{secrets.token_hex(4)}"


def _key_of(row: RowMapping | dict[str, Any]) -> ApiKey:
    return ApiKey(**{**row, "role": Role(row["role"]), "lane": Lane(row["lane"])})
