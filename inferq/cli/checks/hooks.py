"""Hooks: whether those that the configuration names are installed here, can be loaded, and fit this inferq."""

from collections.abc import Iterator

from inferq import errors
from inferq.cli.checks.finding import Finding, fail, ok, warn
from inferq.config import Settings
from inferq.hooks import loading


def hooks(settings: Settings) -> Iterator[Finding]:
    for name in settings.hooks.enabled:
        try:
            found = loading.load([name])
        except errors.ConfigError as error:
            advice = "install its package in the environment of inferq, or take it out of hooks.enabled"
            yield fail("hooks", error.message, advice)
            continue
        if found:
            yield ok("hooks", name)
        else:
            yield warn("hooks", f"{name}: made for another inferq, so it is left out", "update its package")
