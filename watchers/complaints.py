"""Faults that last are said once, and once more when they are over; the loops would repeat them every second."""

import logging

_MOST = 1000


class Complaints:
    def __init__(self, log: logging.Logger) -> None:
        self._log = log
        self._open: dict[str, str] = {}

    def tell(self, subject: str, message: str) -> None:
        """`subject` does not work because of `message`."""
        if self._open.get(subject) == message:
            return
        if len(self._open) >= _MOST:
            self._open.clear()
        self._open[subject] = message
        self._log.warning("%s: %s; it is tried again", subject, message)

    def settle(self, subject: str) -> None:
        """`subject` works."""
        if self._open.pop(subject, None) is not None:
            self._log.info("%s: works again", subject)
