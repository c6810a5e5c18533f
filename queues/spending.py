"""Gives a Redis that has lost its memory the device seconds that tenants have used, so that budgets still hold."""

from datetime import UTC, date, datetime
from typing import Any

from queues.connection import Client, translated
from queues.scripts import Scripts
from storage.usage import UsageStore

_EPOCH = date(1970, 1, 1)


async def restore(redis: Client, scripts: Scripts, prefix: str, store: UsageStore) -> bool:
    """Add what SQL knows of this month to what has been used since, once; whether it was missing.

    Raises QueueUnavailable, StoreUnavailable.
    """
    async with translated():
        if await redis.exists(f"{prefix}spent"):
            return False
    known = await store.seconds_since(datetime.now(UTC).date().replace(day=1))
    flat: list[Any] = []
    for (tenant, day), seconds in known.items():
        flat += [tenant, (day - _EPOCH).days, repr(seconds)]
    async with translated():
        return bool(await scripts("restore_spent", *flat))
