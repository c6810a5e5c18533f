"""Redis: keys, Lua, ready sets, leases, replies, the Celery app, and the scheduler process (`python -m queues`).

It owns queue order and who may run what. It must not know HTTP, engines or files. Names load on first use: a replica
must not import SQL because it imports this package.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from queues.gateway import Gateway, open_gateway

__all__ = ["Gateway", "open_gateway"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'queues' has no attribute {name!r}")
    return getattr(import_module("queues.gateway"), name)
