"""Bounds of one tenant: whoever shares an API key, or a watched directory."""

from typing import Self

from pydantic import Field

from inferq.config.section import Section
from inferq.config.units import Duration, Size

FILES = "files"
"""The tenant of what is dropped into watched directories."""


class Tenant(Section):
    """Bounds of a tenant; `"*"` names those of all. Unset: no bound, or that of the queue."""

    max_jobs: int | None = Field(default=None, ge=1)
    """Waiting jobs per model; unset: queue.max_tenant_jobs."""
    max_bytes: Size | None = Field(default=None, ge=1)
    """Bytes of waiting request bodies per model; unset: half of queue.max_queue_bytes where other tenants have keys,
    else all."""
    max_running: int | None = Field(default=None, ge=1)
    """Jobs of one model that run at once."""
    requests_per_minute: int | None = Field(default=None, ge=1)
    """Requests that are accepted, as a token bucket that holds one minute's."""
    tokens_per_minute: int | None = Field(default=None, ge=1)
    """Tokens of accepted requests to models of text: those of the prompt, and the most that may be answered."""
    device_seconds_per_day: Duration | None = Field(default=None, gt=0)
    """Device time that its jobs may use in a day of UTC; one that runs is never cut off."""
    device_seconds_per_month: Duration | None = Field(default=None, gt=0)
    """The same in a month of UTC."""

    def over(self, general: Self) -> Self:
        """These bounds, and those of `general` where none is set."""
        own = {name: value for name, value in self if value is not None}
        return general.model_copy(update=own)
