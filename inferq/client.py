"""A small typed client of the HTTP API: jobs, models, status, keys, and events that survive a lost
connection.

It owns the wire names on the caller's side and turns the API's errors back into `inferq.errors`. It must not
print, and must not know the processes behind the API.
"""

import contextlib
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, NotRequired, Self, TypedDict
from urllib.parse import quote

import httpx2

from inferq import errors
from inferq.error_answers import error_of, raise_for
from inferq.job import TERMINAL, JobState

DEFAULT_URL = "http://127.0.0.1:9000"
_LONG_CALL = 300.0
"""Seconds for a call that changes many jobs."""
_RECONNECT_SECONDS = (0.2, 0.5, 1.0, 2.0, 5.0, 5.0, 5.0, 10.0)


class ErrorJson(TypedDict):
    code: str
    message: str
    status: int
    param: str | None


class JobJson(TypedDict):
    id: str
    model: str
    endpoint: str
    state: str
    lane: str
    tenant: str
    source: str
    generation: int
    attempt: int
    max_attempts: int
    created_at: float | None
    due_at: NotRequired[float | None]
    expires_at: NotRequired[float | None]
    depends_on: NotRequired[list[str]]
    group: NotRequired[str | None]
    queued_at: float | None
    started_at: float | None
    finished_at: float | None
    position: int | None
    eta_seconds: float | None
    progress: float | None
    replica: str | None
    error: ErrorJson | None
    result: NotRequired[Any]
    artifact: str | None
    metadata: dict[str, Any]


class JobPage(TypedDict):
    data: list[JobJson]
    has_more: bool
    next_cursor: str | None


class Event(NamedTuple):
    """One server-sent event of a job; `id` resumes after it."""

    id: str
    name: str
    data: str


class Client:
    """One server, one key. Every method raises a class of `inferq.errors`; nothing else escapes."""

    def __init__(self, url: str, key: str | None, *, timeout: float = 30.0) -> None:
        self.url = url.rstrip("/")
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._http = httpx2.Client(base_url=self.url, headers=headers, timeout=timeout, trust_env=False)

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] = os.environ, *, home: Path | None = None) -> Self:
        """The server and key that INFERQ_URL and INFERQ_API_KEY name.

        Unset, they are the ones that `inferq up` left in INFERQ_HOME, where those are readable.
        """
        home = home or Path(environ.get("INFERQ_HOME") or "data")
        url = environ.get("INFERQ_URL") or _read_line(home / "run" / "url") or DEFAULT_URL
        return cls(url, environ.get("INFERQ_API_KEY") or _read_line(home / "admin.key"))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._http.close()

    # Jobs

    def submit(self, job: Mapping[str, Any], *, idempotency_key: str = "") -> JobJson:
        """Accept a durable job: `{endpoint?, model, body, priority?, run_at?, ...}`, or a body itself."""
        headers = {"Idempotency-Key": idempotency_key} if idempotency_key else None
        accepted: JobJson = self._json("POST", "/v1/jobs", job, headers=headers)
        return accepted

    def job(self, job_id: str) -> JobJson:
        found: JobJson = self._json("GET", f"/v1/jobs/{job_id}")
        return found

    def jobs(
        self, *, group: str = "", limit: int = 50, cursor: str | None = None, **filters: str | None
    ) -> JobPage:
        """One page, newest first. `filters`: state, model, lane, source, tenant."""
        wanted = {name: value for name, value in {**filters, "cursor": cursor}.items() if value}
        path = f"/v1/groups/{quote(group)}/jobs" if group else "/v1/jobs"
        page: JobPage = self._json("GET", path, params={**wanted, "limit": str(limit)})
        return page

    def cancel(self, job_id: str) -> JobJson:
        cancelled: JobJson = self._json("POST", f"/v1/jobs/{job_id}/cancel")
        return cancelled

    def retry(self, job_id: str) -> JobJson:
        """Run a finished job again as it was asked."""
        queued: JobJson = self._json("POST", f"/v1/jobs/{job_id}/retry")
        return queued

    def requeue(self, job_id: str, edits: Mapping[str, Any]) -> JobJson:
        """Run a finished job again with another body, model, priority or metadata."""
        queued: JobJson = self._json("POST", f"/v1/jobs/{job_id}/requeue", edits)
        return queued

    # Dead letters

    def dead(self, *, limit: int = 50, cursor: str | None = None, **filters: str | None) -> JobPage:
        """One page of failed jobs, the newest failure first. `filters`: model, lane, tenant, source, code, since,
        until.
        """
        wanted = {name: value for name, value in {**filters, "cursor": cursor}.items() if value}
        page: JobPage = self._json("GET", "/v1/dead", params={**wanted, "limit": str(limit)})
        return page

    def dead_groups(self, *, limit: int = 50, **filters: str | None) -> dict[str, Any]:
        """Failed jobs by cause: `{data: [{model, code, pattern, count, first_at, last_at, example}], complete}`."""
        wanted = {name: value for name, value in filters.items() if value}
        return dict(self._json("GET", "/v1/dead/groups", params={**wanted, "limit": str(limit)}))

    def dead_job(self, job_id: str) -> dict[str, Any]:
        """A failed job with the request that failed, as `body`."""
        return dict(self._json("GET", f"/v1/dead/{job_id}"))

    def dead_requeue(self, wanted: Mapping[str, Any]) -> dict[str, Any]:
        """One call of requeueing: `{ids?, filter?, all?, edits?, dry_run?, limit?, cursor?}`."""
        return dict(self._json("POST", "/v1/dead/requeue", wanted, timeout=_LONG_CALL))

    def dead_purge(self, wanted: Mapping[str, Any]) -> dict[str, Any]:
        """One call of purging: `{ids?, filter?, all?, older_than?, dry_run?, limit?}`."""
        return dict(self._json("POST", "/v1/dead/purge", wanted, timeout=_LONG_CALL))

    def result(self, job_id: str) -> bytes:
        return self._send("GET", f"/v1/jobs/{job_id}/result").content

    def wait(self, job_id: str, *, every: float = 0.3, patience: float = 60.0) -> Iterator[JobJson]:
        """The job again and again, its terminal state last. A server away for `patience` is an error."""
        lost_at: float | None = None
        while True:
            try:
                job = self.job(job_id)
            except errors.Unavailable:
                lost_at = lost_at or time.monotonic()
                if time.monotonic() - lost_at > patience:
                    raise
            else:
                lost_at = None
                yield job
                if JobState(job["state"]) in TERMINAL:
                    return
            time.sleep(every)

    def follow(self, job_id: str, *, after: str = "") -> Iterator[Event]:
        """The events of a durable or kept job, from after the event `after` to its end.

        A lost connection is taken up again after the last event that arrived; none is seen twice.
        """
        pauses = iter(_RECONNECT_SECONDS)
        while True:
            try:
                for event in self._events(f"/v1/jobs/{job_id}/events", after):
                    after = event.id or after
                    pauses = iter(_RECONNECT_SECONDS)
                    yield event
                    if event.name == "done":
                        return
            except errors.Unavailable:
                pause = next(pauses, None)
                if pause is None:
                    raise
                time.sleep(pause)
            else:
                # The server ended the stream early (a restart): ask again, but never in a tight loop.
                time.sleep(next(pauses, _RECONNECT_SECONDS[-1]))

    # Groups and schedules

    def group(self, group_id: str) -> dict[str, Any]:
        return dict(self._json("GET", f"/v1/groups/{quote(group_id)}"))

    def groups(self, *, limit: int = 50, cursor: str = "") -> dict[str, Any]:
        """One page, newest first."""
        wanted = {"limit": str(limit), **({"cursor": cursor} if cursor else {})}
        return dict(self._json("GET", "/v1/groups", params=wanted))

    def create_group(self, wanted: Mapping[str, Any]) -> dict[str, Any]:
        """Accept jobs together, all or none: `{jobs, metadata?, webhook?}`."""
        return dict(self._json("POST", "/v1/groups", wanted, timeout=_LONG_CALL))

    def cancel_group(self, group_id: str) -> dict[str, Any]:
        return dict(self._json("POST", f"/v1/groups/{quote(group_id)}/cancel"))

    def schedules(self) -> list[dict[str, Any]]:
        return list(self._json("GET", "/v1/schedules")["data"])

    def schedule(self, schedule: str) -> dict[str, Any]:
        return dict(self._json("GET", f"/v1/schedules/{quote(schedule)}"))

    def create_schedule(self, wanted: Mapping[str, Any]) -> dict[str, Any]:
        """Make a job come again: `{name, cron, timezone?, job, enabled?}`."""
        return dict(self._json("POST", "/v1/schedules", wanted))

    def change_schedule(self, schedule: str, changes: Mapping[str, Any]) -> dict[str, Any]:
        return dict(self._json("PATCH", f"/v1/schedules/{quote(schedule)}", changes))

    def delete_schedule(self, schedule: str) -> None:
        self._send("DELETE", f"/v1/schedules/{quote(schedule)}")

    # Interactive calls

    def call(self, endpoint: str, body: Mapping[str, Any], *, timeout: float = 600.0) -> Any:
        """The answer of ``POST /v1/{endpoint}``, awaited on the open connection."""
        return self._json("POST", f"/v1/{endpoint}", body, timeout=timeout)

    def stream(self, endpoint: str, body: Mapping[str, Any], *, timeout: float = 600.0) -> Iterator[Any]:
        """The parsed chunks of a streamed call. An error event raises."""
        request = {**body, "stream": True}
        with (
            _translated(self.url),
            self._http.stream("POST", f"/v1/{endpoint}", json=request, timeout=timeout) as response,
        ):
            raise_for(response)
            for event in httpx2.EventSource(response):
                if event.data == "[DONE]":
                    return
                chunk = event.json()
                if isinstance(chunk, dict) and chunk.get("error"):
                    raise error_of(chunk, status=500)
                yield chunk

    # Models, status, keys

    def models(self, *, local: bool = False) -> list[dict[str, Any]]:
        """The configured models; with `local` also those that lie on the server and are not configured."""
        return list(self._json("GET", "/v1/models", params={"local": "true"} if local else None)["data"])

    def model(self, name: str) -> dict[str, Any]:
        """One model, by its name or an alias."""
        return dict(self._json("GET", f"/v1/models/{quote(name)}"))

    def pull(self, wanted: Mapping[str, Any]) -> JobJson:
        """Bring a model to the server: `{source, name?, revision?, files?, include?, exclude?, sha256?}`."""
        accepted: JobJson = self._json("POST", "/v1/models/pull", wanted)
        return accepted

    def status(self) -> dict[str, Any]:
        return dict(self._json("GET", "/status"))

    def is_ready(self) -> bool:
        """Whether the API and what stands behind it answer; never raises."""
        try:
            return self._http.get("/readyz", timeout=2.0).status_code == httpx2.codes.OK
        except httpx2.HTTPError:
            return False

    def queues(self) -> dict[str, Any]:
        """What waits and runs by model, lane and tenant, and what is paused or drained."""
        return dict(self._json("GET", "/v1/queues"))

    def pause(self, kind: str, name: str, reason: str = "") -> dict[str, Any]:
        """Pause a model, tenant or lane; drain a replica or node."""
        return dict(
            self._json("POST", "/v1/queues/pauses", {"kind": kind, "name": name, "reason": reason or None})
        )

    def resume(self, kind: str, name: str) -> dict[str, Any]:
        return dict(self._json("DELETE", f"/v1/queues/pauses/{kind}/{quote(name)}"))

    def reprioritise(self, job_id: str, priority: str) -> JobJson:
        """Give a job that has not ended another lane."""
        changed: JobJson = self._json("PATCH", f"/v1/jobs/{job_id}", {"priority": priority})
        return changed

    def keys(self) -> list[dict[str, Any]]:
        return list(self._json("GET", "/v1/keys")["data"])

    def create_key(
        self,
        name: str,
        role: str,
        *,
        tenant: str | None = None,
        weight: float | None = None,
        lane: str | None = None,
    ) -> dict[str, Any]:
        wanted = {"name": name, "role": role, "tenant": tenant, "weight": weight, "lane": lane}
        return dict(self._json("POST", "/v1/keys", {k: v for k, v in wanted.items() if v is not None}))

    def revoke_key(self, key: str) -> None:
        self._send("DELETE", f"/v1/keys/{key}")

    def deliveries(self, **filters: str | None) -> dict[str, Any]:
        """One page, newest first. `filters`: job, state, limit, cursor."""
        wanted = {name: value for name, value in filters.items() if value}
        return dict(self._json("GET", "/v1/webhooks/deliveries", params=wanted))

    def delivery(self, delivery_id: str) -> dict[str, Any]:
        return dict(self._json("GET", f"/v1/webhooks/deliveries/{delivery_id}"))

    def retry_delivery(self, delivery_id: str) -> dict[str, Any]:
        return dict(self._json("POST", f"/v1/webhooks/deliveries/{delivery_id}/retry"))

    def test_webhook(self, url: str) -> dict[str, Any]:
        return dict(self._json("POST", "/v1/webhooks/test", {"url": url}))

    def webhook_secret(self) -> str:
        return str(self._json("GET", "/v1/webhooks/secret")["secret"])

    def _events(self, path: str, after: str) -> Iterator[Event]:
        headers = {"Last-Event-ID": after} if after else {}
        # Keep-alive comments come every few seconds, so a minute of silence is a dead connection.
        with (
            _translated(self.url),
            self._http.stream("GET", path, headers=headers, timeout=60.0) as response,
        ):
            raise_for(response)
            for event in httpx2.EventSource(response):
                yield Event(event.id, event.event, event.data)

    def _json(self, method: str, path: str, body: Any = None, **options: Any) -> Any:
        response = self._send(method, path, body, **options)
        try:
            return response.json()
        except ValueError as error:
            raise errors.Unavailable(f"{self.url} does not answer like an inferq API") from error

    def _send(self, method: str, path: str, body: Any = None, **options: Any) -> httpx2.Response:
        with _translated(self.url):
            response = self._http.request(method, path, json=body, **options)
            raise_for(response)
            return response


@contextlib.contextmanager
def _translated(url: str) -> Iterator[None]:
    try:
        yield
    except (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.UnsupportedProtocol) as error:
        advice = "start it with `inferq up`, or set INFERQ_URL"
        raise errors.Unavailable(f"no inferq answers at {url}: {advice}") from error
    except httpx2.TimeoutException as error:
        raise errors.Unavailable(f"{url} gave no answer in time") from error
    except (httpx2.HTTPError, httpx2.SSEError) as error:
        raise errors.Unavailable(f"the connection to {url} broke: {error}") from error


def _read_line(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8").strip() or None
    except OSError:
        return None
