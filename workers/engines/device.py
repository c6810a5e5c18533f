"""The device an engine runs on, as torch names it. Knows which package brings which kind of card."""

from __future__ import annotations

import importlib

# Cards whose torch support comes in a package of the maker's, which announces them when it is imported.
MAKERS = {"gcu": "torch_gcu", "npu": "torch_npu"}


def torch_device(kind: str) -> str:
    """`cpu`, or the first visible card of a kind. Raises ImportError where the maker's package is missing."""
    if kind == "cpu" or ":" in kind:
        return kind
    if kind in MAKERS:
        importlib.import_module(MAKERS[kind])
    return f"{kind}:0"
