"""Why a pull does not go on. Must not know where it came from.

CannotPull      422   another try changes nothing: answered to the caller as it is
Passing               the network or the hub; tried again here, then it becomes
HubUnreachable  503   tried again by the queue
"""

from __future__ import annotations

import errno

from workers.engines.failures import EngineError

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class CannotPull(EngineError):
    """The source, the hub's answer or this disk forbids it."""

    status = 422
    kind = "invalid_request_error"
    code = "cannot_pull"


class HubUnreachable(EngineError):
    """The hub, or the server of a URL, could not be reached, or gave up again and again."""

    status = 503
    code = "hub_unreachable"


class Passing(Exception):
    """It may go better soon; `after` is how many seconds the hub wants to be left alone."""

    def __init__(self, message: str, after: float = 0.0) -> None:
        super().__init__(message)
        self.after = after


def full(wanted: str) -> CannotPull:
    return CannotPull(f"The disk is full: {wanted}.", code="disk_full")


def told(error: OSError, doing: str) -> CannotPull:
    """What the file system refused, in our words."""
    if error.errno in _FULL:
        return full(f"{doing} was not possible")
    return CannotPull(f"{doing} was not possible: {error.strerror or error}.", code="disk_error")
