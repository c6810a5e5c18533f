"""Celery's consumer of doorbells, with one difference: a connection that cannot be used is closed.

Celery 5.7 opens a connection and then registers it with its event loop, which writes to Redis. Where that is refused
(Redis at `maxmemory`), it tries again with a new connection, five times a second, and the old one stays open until the
process has no file descriptors left.
"""

from typing import Any

from celery.worker.consumer import Consumer as CeleryConsumer


class Consumer(CeleryConsumer):
    _opened: Any = None

    def connection_for_read(self, heartbeat: float | None = None) -> Any:
        self._opened = super().connection_for_read(heartbeat)
        return self._opened

    def connect(self) -> Any:
        self._opened = None
        try:
            return super().connect()
        except self.connection_errors + self.channel_errors:
            if self._opened:
                self._opened.close()
            raise
