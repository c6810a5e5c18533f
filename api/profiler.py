"""How fast models are: what `GET /v1/profiler` tells, gathered from the ledger, Redis and the replicas' records.

Times of jobs are those of the whole installation, tokens per second those of this process: the ledger knows no tokens.
"""

import asyncio
import math
import time
from collections.abc import Sequence
from typing import Any

from api import operations
from api.context import Context
from api.fleet import Fleet, last_load, read_fleet, read_or_none
from inferq import errors
from inferq.config.settings import ModelSettings, ModelType
from inferq.job import JobState
from storage.ledger import COUNTED, Span

WINDOW, SHORTEST, LONGEST = 900, 1, 86_400
"""Seconds in which a job has to have ended to be counted: when nothing is asked, at least, at most."""

UNITS: dict[ModelType, str] = {
    **dict.fromkeys(("chat", "completion", "embedding", "rerank"), "tokens"),
    **dict.fromkeys(("asr", "tts"), "seconds of sound"),
    "image": "megapixel-steps",
    "video": "megapixel-frame-steps",
    "pull": "pulls",
}
"""In what the endpoints of each type of model measure the size of a request (`Endpoint.units`)."""

WINDOW_PARAMETER = operations.parameter(
    "query",
    "window",
    f"Seconds back from now, {SHORTEST} to {LONGEST}; {WINDOW} when not given.",
    {"type": "integer", "minimum": SHORTEST, "maximum": LONGEST, "default": WINDOW},
)

_NUMBER = {"type": ["number", "null"]}
_SECONDS = {
    "type": "object",
    "description": "Median and 95th percentile in seconds.",
    "properties": {"p50": _NUMBER, "p95": _NUMBER},
}
ANSWER = operations.answer(
    "One object per configured model.",
    {
        "type": "object",
        "properties": {
            "object": {"type": "string", "const": "list"},
            "window_seconds": {"type": "integer"},
            "data": {
                "type": "array",
                "items": {
                    "type": "object",
                    "properties": {
                        "model": {"type": "string"},
                        "state": {"type": "string"},
                        "replicas": {"type": ["integer", "null"]},
                        "load_seconds": {**_NUMBER, "description": "The latest load, from start to ready."},
                        "requests": {
                            "type": ["integer", "null"],
                            "description": f"Jobs that ended in the window, among the newest {COUNTED}.",
                        },
                        "failed": {"type": ["integer", "null"]},
                        "success_rate": {
                            **_NUMBER,
                            "description": "Percent of those that ended well or failed.",
                        },
                        "queued_seconds": _SECONDS,
                        "running_seconds": _SECONDS,
                        "unit": {
                            "type": "string",
                            "description": "In what the size of its requests is measured.",
                        },
                        "units_per_second": {
                            **_NUMBER,
                            "description": "Learnt: size of requests, as estimated before they ran, per device second.",
                        },
                        "tokens_per_second": {
                            **_NUMBER,
                            "description": "Tokens of an answer per second its caller waited for it, mean over the "
                            "answers that went through this process and told their usage.",
                        },
                    },
                },
            },
        },
    },
)


def window_of(text: str | None) -> int:
    """The seconds that a request asks for. Raises InvalidRequest."""
    if text is None:
        return WINDOW
    if not (text.isascii() and text.isdigit() and len(text) < 9 and SHORTEST <= int(text) <= LONGEST):
        raise errors.InvalidRequest(
            f"Invalid 'window': {text[:20]!r}; give whole seconds from {SHORTEST} to {LONGEST}.",
            param="window",
        )
    return int(text)


async def profile(context: Context, window: int) -> list[dict[str, Any]]:
    """One object per configured model; None where a part of the system is away or nothing has happened yet."""
    names = list(context.catalog.models)
    fleet, rates, spans = await asyncio.gather(
        read_fleet(context),
        read_or_none(context.gateway.queue.rates(names)),
        read_or_none(context.storage.ledger.spans(time.time() - window)),
    )
    return [
        {
            "model": name,
            **_residence(fleet, name, model),
            **_times(None if spans is None else [span for span in spans if span.model == name]),
            "unit": UNITS[model.type],
            "units_per_second": 1 / rates[name] if rates and rates.get(name) else None,
            "tokens_per_second": context.telemetry.tokens_per_second(name),
        }
        for name, model in context.catalog.models.items()
    ]


def _residence(fleet: Fleet, name: str, model: ModelSettings) -> dict[str, Any]:
    known = last_load(fleet, name, model)
    return {
        "state": fleet.state_of(name),
        "replicas": None if fleet.replicas is None else len(fleet.of(name)),
        "load_seconds": known.load_seconds if known else None,
    }


def _times(spans: Sequence[Span] | None) -> dict[str, Any]:
    """What is known of jobs that have ended; those that were cancelled or expired say nothing of success."""
    ended = spans or []
    failed = sum(span.state is JobState.FAILED for span in ended)
    judged = failed + sum(span.state is JobState.SUCCEEDED for span in ended)
    waits = [
        span.started_at - span.queued_at
        for span in ended
        if span.started_at is not None and span.queued_at is not None
    ]
    runs = [span.finished_at - span.started_at for span in ended if span.started_at is not None]
    return {
        "requests": None if spans is None else len(ended),
        "failed": None if spans is None else failed,
        "success_rate": round(100 * (judged - failed) / judged, 2) if judged else None,
        "queued_seconds": _middle_and_tail(waits),
        "running_seconds": _middle_and_tail(runs),
    }


def _middle_and_tail(seconds: list[float]) -> dict[str, float | None]:
    """Nearest-rank percentiles: each is a time that was really taken."""
    ordered = sorted(seconds)

    def rank(share: float) -> float | None:
        return max(0.0, ordered[math.ceil(share * len(ordered)) - 1]) if ordered else None

    return {"p50": rank(0.5), "p95": rank(0.95)}
