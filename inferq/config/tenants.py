"""Bounds of one tenant: whoever shares an API key, or a watched directory."""

from pydantic import Field

from inferq.config.section import Section


class Tenant(Section):
    """Unset bounds are those of the installation."""

    max_running: int | None = Field(default=None, ge=1)
    """Jobs of one model that run at once."""
