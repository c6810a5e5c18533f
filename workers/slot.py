"""One of a replica's slots while it is taken. It must not know jobs."""

import asyncio
import secrets


class Slot:
    """One of a replica's slots while it is taken: it looks for a job, runs one, or lingers."""

    def __init__(self) -> None:
        self.name = secrets.token_hex(8)
        self.lingers = False
        self._woken = asyncio.Event()

    def wake(self) -> None:
        self._woken.set()

    async def linger(self, seconds: float) -> bool:
        """Wait for a wake; False when none came. One that came since the last wait counts."""
        self.lingers = True
        try:
            async with asyncio.timeout(seconds):
                await self._woken.wait()
        except TimeoutError:
            return False
        finally:
            self.lingers = False
            self._woken.clear()
        return True
