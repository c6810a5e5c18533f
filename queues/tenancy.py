"""What the keys say of tenants: the share of each, and whether a queue is shared. A reading serves five seconds.

Only the first reading is waited for; later ones go on beside whoever asks, and with SQL away what was known last holds.
"""

import asyncio
import logging
import time

from inferq import errors
from storage.keys import KeyStore

log = logging.getLogger(__name__)

FRESH = 5.0


class Tenancy:
    """Without `keys` nobody is known."""

    def __init__(self, keys: KeyStore | None) -> None:
        self._keys = keys
        self._weights: dict[str, float] = {}
        self._read_at: float | None = None
        self._reading: asyncio.Task[None] | None = None

    async def look(self) -> None:
        """Call before asking. Never raises."""
        if self._keys is None or (self._read_at is not None and time.monotonic() - self._read_at < FRESH):
            return
        if self._reading is None:
            self._reading = asyncio.create_task(self._read(self._keys))
            self._reading.add_done_callback(self._forget)
        if self._read_at is None:
            await asyncio.shield(self._reading)

    def weight(self, tenant: str) -> float:
        """The share that the tenant's newest key gives it; 0 when it has none."""
        return self._weights.get(tenant, 0.0)

    def shared(self, tenant: str) -> bool:
        """Whether other tenants have keys."""
        return len(self._weights) > (tenant in self._weights)

    def _forget(self, _: object) -> None:
        self._reading = None

    async def _read(self, keys: KeyStore) -> None:
        try:
            self._weights = await keys.weights()
        except errors.StoreUnavailable as error:
            log.debug("the tenants' weights are as they were: %s", error.message)
        self._read_at = time.monotonic()
