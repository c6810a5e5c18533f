"""What must not be lost: the ledger of jobs and the keys (SQL), and the artifacts (files or objects).

It must not know Redis, HTTP, engines or watched folders. Names load on first use, so that a replica,
which takes only `storage.artifacts`, never imports SQLAlchemy.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from storage.opening import Storage, open_storage

__all__ = ["Storage", "open_storage"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'storage' has no attribute {name!r}")
    return getattr(import_module("storage.opening"), name)
