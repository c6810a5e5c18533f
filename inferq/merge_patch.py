"""JSON merge patch (RFC 7396): what to change about an object, written as the part of it that changes. Pure."""

from typing import Any

from inferq import errors

DEEPEST = 64


def merged(target: Any, patch: Any, *, depth: int = 0) -> Any:
    """`target` with the members of `patch`; null removes one, and what is no object replaces. Changes neither.

    Raises InvalidRequest for a patch that is nested deeper than 64 levels.
    """
    if not isinstance(patch, dict):
        return patch
    if depth == DEEPEST:
        raise errors.InvalidRequest(f"A merge patch may be nested {DEEPEST} levels deep at most.")
    made = dict(target) if isinstance(target, dict) else {}
    for name, value in patch.items():
        if value is None:
            made.pop(name, None)
        else:
            made[name] = merged(made.get(name), value, depth=depth + 1)
    return made
