"""Making a device kind usable in this process. One place, because some kinds come as a plug-in of torch."""

from __future__ import annotations

import importlib

# Kinds that torch knows only after their package was imported.
PLUG_INS = {"gcu": "torch_gcu", "npu": "torch_npu", "musa": "torch_musa"}


def prepare(device: str) -> str:
    """The name for torch of a device kind such as `cpu`, `cuda` or `gcu`. Raises ValueError without its package."""
    kind = device.partition(":")[0]
    package = PLUG_INS.get(kind)
    if package is not None:
        try:
            importlib.import_module(package)
        except ImportError as error:
            raise ValueError(f"device {device} needs the package {package}: {error}") from error
    return device
