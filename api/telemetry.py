"""What this process counts about itself: HTTP calls, jobs accepted and finished, streams, refusals.

Numbers of the whole installation (queues, replicas, devices) are read when asked for, in `api.exposition`. Labels are
bounded: handler templates, models, lanes, outcomes; never a job, a key or a path.
"""

import re

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector

import inferq

_HTTP_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 600)
_FIRST_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)
_JOB_BUCKETS = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 600, 1800, 3600, 14400)
_COUNTED = ("/v1/", "/openai/v1/")
_SERVER_ERROR = 500
_USAGE = re.compile(rb'"completion_tokens" ?: ?([0-9]{1,9})')
_TAIL = 2048
"""Bytes at the end of an answer among which its usage is."""


class Telemetry:
    """One registry per application, so tests and several applications in a process do not share numbers."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        ProcessCollector(namespace="inferq", registry=registry)
        self._requests = Counter(
            "inferq_http_requests",
            "HTTP requests answered.",
            ("handler", "method", "status"),
            registry=registry,
        )
        self._seconds = Histogram(
            "inferq_http_request_duration_seconds",
            "Time from the request's head to the end of its answer.",
            ("handler", "method"),
            buckets=_HTTP_BUCKETS,
            registry=registry,
        )
        self.in_progress = Gauge(
            "inferq_http_requests_in_progress", "HTTP requests being answered.", registry=registry
        )
        self._accepted = Counter(
            "inferq_jobs_accepted",
            "Jobs accepted by this process.",
            ("model", "lane", "kind"),
            registry=registry,
        )
        self._rejected = Counter(
            "inferq_queue_rejections", "Jobs refused with 429 or 503.", ("model", "reason"), registry=registry
        )
        self._finished = Counter(
            "inferq_jobs_finished",
            "Interactive jobs whose answer went through this process.",
            ("model", "outcome"),
            registry=registry,
        )
        self._job_seconds = Histogram(
            "inferq_job_duration_seconds",
            "Interactive jobs from acceptance to the end of the answer.",
            ("model",),
            buckets=_JOB_BUCKETS,
            registry=registry,
        )
        self._first_seconds = Histogram(
            "inferq_time_to_first_byte_seconds",
            "Streams from acceptance to the first bytes of the answer.",
            ("model",),
            buckets=_FIRST_BUCKETS,
            registry=registry,
        )
        self.streams = Gauge("inferq_sse_streams_open", "Streams being sent.", registry=registry)
        self.departures = departures_of(registry)
        self._cache = lookups_of(registry)
        self._refused = Counter(
            "inferq_auth_failures", "Calls refused for their key.", ("reason",), registry=registry
        )
        build = Gauge("inferq_build_info", "The version that runs.", ("version",), registry=registry)
        build.labels(inferq.__version__).set(1)
        self._children: dict[tuple[str, str, int], tuple[Counter, Histogram]] = {}
        self._told: dict[str, tuple[int, float]] = {}
        self.total = 0
        self.failed = 0

    def answered(self, handler: str, method: str, status: int, seconds: float) -> None:
        """One request is done. `handler` is a route's template. Probes are left out of `total` and `failed`."""
        key = (handler, method, status)
        children = self._children.get(key)
        if children is None:
            children = self._children[key] = (
                self._requests.labels(handler, method, str(status)),
                self._seconds.labels(handler, method),
            )
        children[0].inc()
        children[1].observe(seconds)
        if handler.startswith(_COUNTED):
            self.total += 1
            self.failed += status >= _SERVER_ERROR

    def job_accepted(self, model: str, lane: str, *, durable: bool) -> None:
        self._accepted.labels(model, lane, "durable" if durable else "interactive").inc()

    def job_rejected(self, model: str, reason: str) -> None:
        self._rejected.labels(model, reason).inc()

    def job_finished(self, model: str, outcome: str, seconds: float) -> None:
        self._finished.labels(model, outcome).inc()
        self._job_seconds.labels(model).observe(seconds)

    def answer_told(self, model: str, data: bytes, seconds: float) -> None:
        """A whole answer, or the piece of a stream that ends it: its tokens are noted if it tells them."""
        found = _USAGE.search(data, max(0, len(data) - _TAIL))
        if found:
            tokens, so_far = self._told.get(model, (0, 0.0))
            self._told[model] = (tokens + int(found[1]), so_far + seconds)

    def tokens_per_second(self, model: str) -> float | None:
        """Mean over the answers whose tokens are known; None when there are none."""
        tokens, seconds = self._told.get(model, (0, 0.0))
        return tokens / seconds if seconds else None

    def first_bytes(self, model: str, seconds: float) -> None:
        self._first_seconds.labels(model).observe(seconds)

    def cache_looked(self, model: str, *, hit: bool) -> None:
        self._cache.labels(model, "hit" if hit else "miss").inc()

    def auth_failed(self, reason: str) -> None:
        self._refused.labels(reason).inc()


def lookups_of(registry: CollectorRegistry) -> Counter:
    return Counter(
        "inferq_cache_lookups",
        "Pure requests looked up in the cache.",
        ("model", "outcome"),
        registry=registry,
    )


def departures_of(registry: CollectorRegistry) -> Counter:
    return Counter(
        "inferq_client_disconnects", "Callers that hung up before their answer.", registry=registry
    )
