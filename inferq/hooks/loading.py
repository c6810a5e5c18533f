"""Finding the hooks that the configuration names, and refusing those that were made for another inferq."""

import logging
from collections.abc import Sequence
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from packaging.specifiers import InvalidSpecifier, SpecifierSet

import inferq
from inferq import errors
from inferq.hooks.contract import GROUP

log = logging.getLogger("inferq.hooks")


def load(enabled: Sequence[str]) -> list[tuple[str, Any]]:
    """(name, hook) of those that may run, in the configured order. Raises ConfigError.

    1. Not installed, or it cannot be imported: an error, since somebody relies on it. 2. Made for another version: left
    out with a line in the log, or an error where it is `required`.
    """
    known = {entry.name: entry for entry in entry_points(group=GROUP)}
    found = []
    for name in enabled:
        if name not in known:
            shown = ", ".join(sorted(known)) or "none"
            raise errors.ConfigError(f"hooks.enabled: no hook {name!r} is installed; known: {shown}")
        hook = _imported(name, known[name])
        why = _misfit(hook)
        if why is None:
            found.append((name, hook))
        elif getattr(hook, "required", False):
            raise errors.ConfigError(f"hooks.enabled: the hook {name!r} is required and {why}")
        else:
            log.error("the hook %r is left out: it %s", name, why)
    return found


def _imported(name: str, entry: EntryPoint) -> Any:
    try:
        hook = entry.load()
        return hook() if isinstance(hook, type) else hook
    except Exception as error:
        raise errors.ConfigError(f"hooks.enabled: the hook {name!r} cannot be loaded: {error}") from error


def _misfit(hook: Any) -> str | None:
    requires = getattr(hook, "requires", None)
    if not isinstance(requires, str):
        return "does not say which versions of inferq it was made for (requires)"
    try:
        fits = SpecifierSet(requires).contains(inferq.__version__, prereleases=True)
    except InvalidSpecifier:
        return f"says {requires!r} for the versions of inferq it was made for, which cannot be read"
    return None if fits else f"was made for inferq {requires}, and this is {inferq.__version__}"
