"""Requests to stop, counted: SIGTERM and SIGINT. A pause ends early when one comes or a child dies."""

import os
import select
import signal
import time

# Terminals, shells and wrappers may deliver one Ctrl-C twice.
_SAME_REQUEST_SECONDS = 0.1


class StopRequests:
    def __init__(self) -> None:
        self.count = 0
        self._last = 0.0
        self._wakeup, writer = os.pipe()
        for end in (self._wakeup, writer):
            os.set_blocking(end, False)
        signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._requested)
        signal.signal(signal.SIGCHLD, lambda number, frame: None)

    def pause(self, seconds: float) -> None:
        if select.select([self._wakeup], [], [], max(seconds, 0.0))[0]:
            os.read(self._wakeup, 4096)

    def _requested(self, number: int, frame: object) -> None:
        now = time.monotonic()
        if now - self._last > _SAME_REQUEST_SECONDS:
            self.count += 1
        self._last = now
