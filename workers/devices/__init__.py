"""The devices of this host: found by asking (CUDA through NVML, the CPU always) or named in the configuration.

One module per kind. A device is described by a plain mapping: name, kind, product, memory_total, memory_free (bytes).
"""

from typing import Any

from inferq.config import Settings
from workers.devices import cpu, cuda


def detect(settings: Settings) -> list[dict[str, Any]]:
    """What there is now, with current readings; configured devices correct or add to what was found."""
    found = {device["name"]: device for device in [*cuda.detect(), *cpu.detect()]}
    for name, configured in settings.devices.items():
        blank = {
            "name": name,
            "kind": name.partition(":")[0],
            "product": "configured",
            "memory_total": 0,
            "memory_free": 0,
        }
        device = found.setdefault(name, blank)
        if configured.memory is not None:
            used = max(device["memory_total"] - device["memory_free"], 0)
            device["memory_total"] = configured.memory
            device["memory_free"] = max(configured.memory - used, 0)
    return list(found.values())


def device_env(name: str, settings: Settings) -> dict[str, str]:
    """Environment that makes one device the only one an engine sees."""
    kind, _, index = name.partition(":")
    env = cuda.visible(index) if kind == "cuda" else {}
    configured = settings.devices.get(name)
    return {**env, **(configured.env if configured else {})}
