"""Passes a job's lane on to an engine that orders what it runs by a field `priority`, lower first, as vLLM does."""

from inferq.config import ModelSettings
from inferq.lanes import Lane

PRIORITIES = {Lane.HIGH: -1, Lane.MEDIUM: 0, Lane.LOW: 1}
"""Medium is what a request has that says nothing."""


def passes_lanes(model: ModelSettings) -> bool:
    """Whether the model's engine is configured to order by it; vLLM refuses the field otherwise."""
    return model.options.get("scheduling_policy") == "priority"


def with_priority(body: bytes, lane: Lane) -> bytes:
    """The body, a JSON object, with the lane's priority before its other fields."""
    priority = PRIORITIES[lane]
    if not priority:
        return body
    rest = body.lstrip()[1:]
    comma = b"" if rest.lstrip().startswith(b"}") else b","
    return b'{"priority":%d%b%b' % (priority, comma, rest)
