"""Configuration: typed settings, where they come from, and their JSON Schema."""

from inferq.config.settings import ModelSettings, Settings
from inferq.config.sources import load_settings

__all__ = ["ModelSettings", "Settings", "load_settings"]
