"""The rate-limit headers that OpenAI's answers carry, for tenants that have such bounds.

What a request has left is noted in its scope, and the boundary adds it to whatever answer it gets, refusals included.
Names and the form of durations are OpenAI's (platform.openai.com/docs/guides/rate-limits).
"""

from starlette.types import Scope

from queues.bounds import Rate, Rates


def note(scope: Scope, rates: Rates) -> None:
    """Tell the caller what is left of the tenant's buckets."""
    for name, rate in (("requests", rates.requests), ("tokens", rates.tokens)):
        if rate is not None:
            scope["told"] += _headers(name, rate)


def _headers(name: str, rate: Rate) -> list[tuple[bytes, bytes]]:
    values = {"limit": str(rate.limit), "remaining": str(rate.remaining), "reset": duration(rate.reset)}
    return [(f"x-ratelimit-{kind}-{name}".encode(), value.encode()) for kind, value in values.items()]


def duration(seconds: float) -> str:
    """`250ms`, `12s`, `6m0s`, `1h2m3s`."""
    if seconds < 1:
        return f"{max(round(seconds * 1000), 0)}ms"
    whole = round(seconds)
    hours, minutes = whole // 3600, whole % 3600 // 60
    parts = [f"{hours}h"] if hours else []
    parts += [f"{minutes}m"] if hours or minutes else []
    return "".join([*parts, f"{whole % 60}s"])
