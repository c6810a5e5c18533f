"""NVIDIA devices through NVML. A host without a driver has none; that is not an error."""

import logging
from typing import Any

import pynvml

log = logging.getLogger(__name__)


def detect() -> list[dict[str, Any]]:
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return []
    try:
        return [_describe(index) for index in range(pynvml.nvmlDeviceGetCount())]
    except pynvml.NVMLError as error:
        log.warning("NVML: %s", error)
        return []
    finally:
        pynvml.nvmlShutdown()


def visible(index: str) -> dict[str, str]:
    """The engine sees this device as its first."""
    return {"CUDA_DEVICE_ORDER": "PCI_BUS_ID", "CUDA_VISIBLE_DEVICES": index}


def _describe(index: int) -> dict[str, Any]:
    handle = pynvml.nvmlDeviceGetHandleByIndex(index)
    memory = pynvml.nvmlDeviceGetMemoryInfo(handle)
    name = pynvml.nvmlDeviceGetName(handle)
    product = name.decode() if isinstance(name, bytes) else name
    return {
        "name": f"cuda:{index}",
        "kind": "cuda",
        "product": product,
        "memory_total": int(memory.total),
        "memory_free": int(memory.free),
    }
