"""Hooks: code of others around a job. What they may do is in `contract`, how they are kept in check in `running`."""

from inferq.hooks.contract import Hook, Incoming, Refused
from inferq.hooks.running import Counts, Hooks

__all__ = ["Counts", "Hook", "Hooks", "Incoming", "Refused"]
