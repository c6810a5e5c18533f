"""Cuts off a caller that does not take what is sent to it. How slowly it takes it is not judged."""

import asyncio
import contextlib
import fcntl
import math
import struct
import termios

UNSENT_SECONDS = 60.0
"""A caller that takes no byte for this long is cut off."""


class SendingClock:
    """Looks now and then whether fewer bytes are left than before; ends the connection when not.

    It is to run while writing is paused, and while a connection closes that has bytes left.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, transport: asyncio.Transport) -> None:
        self._loop = loop
        self._transport = transport
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """The first look only measures. Without effect where it runs, or where nothing is left."""
        if self._timer is None and self._transport.get_write_buffer_size():
            self._set(math.inf)

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _set(self, left: float) -> None:
        self._timer = self._loop.call_later(UNSENT_SECONDS, self._look, left)

    def _look(self, before: float) -> None:
        left = self._left()
        if left < before:
            self._set(left)
        else:
            self._transport.abort()

    def _left(self) -> int:
        """Bytes that the caller has not taken. The kernel's are counted where it tells them (Linux): its buffer takes
        more only when much of it is free, so ours may rest for minutes while somebody reads slowly.
        """
        left = self._transport.get_write_buffer_size()
        with contextlib.suppress(OSError):
            sock = self._transport.get_extra_info("socket")
            left += struct.unpack("i", fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, bytes(4)))[0]
        return left
