"""Idempotency keys: which job a caller's key stands for, so that the same call made twice makes one job.

It owns the table `idempotency`. It must not know HTTP or Redis. **A key counts once its job exists**: a key whose job
never came to be (the first call was refused, or died on the way) stops nobody, and needs no clearing up.
"""

import time
from dataclasses import dataclass, field

from sqlalchemy import Connection, bindparam, delete, select, text

from inferq import errors
from inferq.job import new_job_id
from storage.database import Database
from storage.tables import idempotency
from storage.texts import clean


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """A call that wants a key to stand for its job. `digest` is the sha256 of what it asks, `job_id` the id its job
    will have; `ttl` seconds after it was taken a key is free again. `instead_of` names the job, or what became none,
    that the key stood for until now.
    """

    tenant: str
    key: str
    digest: str
    ttl: float
    job_id: str = field(default_factory=new_job_id)
    instead_of: str = ""


@dataclass(frozen=True, slots=True)
class Held:
    """What a key stands for."""

    job_id: str
    digest: str


_TAKE = text(
    "INSERT INTO idempotency (tenant, key, job_id, digest, created_at) "
    "VALUES (:tenant, :key, :job_id, :digest, :now) ON CONFLICT (tenant, key) DO UPDATE SET "
    "job_id = excluded.job_id, digest = excluded.digest, created_at = excluded.created_at "
    "WHERE idempotency.created_at < :oldest OR idempotency.job_id = :instead_of"
)
_ROW = select(idempotency.c.job_id, idempotency.c.digest).where(
    idempotency.c.tenant == bindparam("tenant"),
    idempotency.c.key == bindparam("key"),
    idempotency.c.created_at >= bindparam("oldest"),
)


def first(connection: Connection, claim: Claim) -> bool:
    """Take the key; False, and no change, when an earlier call has it that asked the same.

    Part of the transaction that does what is asked. Raises IdempotencyMismatch when that call asked something else.
    """
    values = _values(claim)
    taken = {**values, "job_id": claim.job_id, "digest": claim.digest, "instead_of": claim.instead_of}
    made = connection.execute(_TAKE, {**taken, "now": time.time()}).rowcount > 0
    if not made and connection.execute(_ROW, values).one().digest != claim.digest:
        raise mismatch()
    return made


def take(connection: Connection, claim: Claim) -> str:
    """The id of the job that the key stands for from now on: the claim's, unless another call was first."""
    if first(connection, claim):
        return claim.job_id
    return str(connection.execute(_ROW, _values(claim)).one().job_id)


def mismatch() -> errors.IdempotencyMismatch:
    return errors.IdempotencyMismatch(
        "This Idempotency-Key was used for another request; use a new key for each request.",
        param="Idempotency-Key",
    )


class Claims:
    """The keys in one database. Every method raises StoreUnavailable."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def find(self, claim: Claim) -> Held | None:
        """What the claim's key stands for, if anything."""

        def work(connection: Connection) -> Held | None:
            row = connection.execute(_ROW, _values(claim)).first()
            return None if row is None else Held(*row)

        return await self._database.read(work)

    async def take(self, claim: Claim) -> str:
        """`take` by itself, for a job that is not in SQL: before it is accepted."""
        return await self._database.write(lambda connection: take(connection, claim))

    async def sweep(self, ttl: float) -> None:
        """Remove the keys that are free again."""
        free = delete(idempotency).where(idempotency.c.created_at < time.time() - ttl)
        await self._database.write(lambda connection: connection.execute(free))


def _values(claim: Claim) -> dict[str, object]:
    return {"tenant": clean(claim.tenant), "key": claim.key, "oldest": time.time() - claim.ttl}
