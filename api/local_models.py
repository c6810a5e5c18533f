"""The models that lie under `models/` and are not configured, looked for in a thread and seldom."""

import asyncio
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from inferq.config import Settings
from inferq.modelscan import Found, scan, suggestion, unconfigured

if TYPE_CHECKING:
    from api.context import Context

FRESH = 5.0
"""Seconds for which one look is believed: whoever asks again and again costs one look."""


@dataclass(slots=True)
class LocalModels:
    """One look at a time, for all who ask."""

    _looked_at: float = -FRESH
    _found: list[Found] = field(default_factory=list)
    _looking: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def list(self, settings: Settings) -> "list[Found]":
        async with self._looking:
            if time.monotonic() - self._looked_at >= FRESH:
                self._found = await asyncio.to_thread(scan, settings.models_dir)
                self._looked_at = time.monotonic()
            return unconfigured(self._found, _sources(settings))


def local_object(context: "Context", found: Found, *, accelerated: bool) -> dict[str, Any]:
    """A model as `GET /v1/models?local=true` shows it."""
    return {
        "id": found.id,
        "object": "model",
        "created": int(found.modified),
        "owned_by": "local",
        "info": {
            "state": "not_configured",
            **found.facts(),
            "suggestion": suggestion(found, accelerated=accelerated, taken=context.catalog.models),
        },
    }


def _sources(settings: Settings) -> Iterator[Path]:
    return (settings.under_home(model.source) for model in settings.models.values())
