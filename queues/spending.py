"""Gives a Redis that has lost its memory the device seconds that tenants have used, so that budgets still hold."""

from datetime import UTC, date, datetime

from queues.connection import Client, translated
from storage.usage import UsageStore

_EPOCH = date(1970, 1, 1)


async def restore(redis: Client, prefix: str, store: UsageStore) -> bool:
    """Add what SQL knows of this month, once; whether it was missing. Raises QueueUnavailable, StoreUnavailable."""
    mark = f"{prefix}spent"
    async with translated():
        if await redis.exists(mark):
            return False
    known = await store.seconds_since(datetime.now(UTC).date().replace(day=1))
    async with translated():
        # Added to what has been used since, and all or nothing: the mark says that it is done.
        pipe = redis.pipeline(transaction=True)
        pipe.set(mark, "1")
        for (tenant, day), seconds in known.items():
            pipe.hincrbyfloat(f"{prefix}spent:{tenant}", str((day - _EPOCH).days), seconds)
        await pipe.execute()
    return True
