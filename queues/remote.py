"""Flower's revoke and terminate buttons: a replica turns them into requests that the leading scheduler carries out.

Celery broadcasts a revoke to every worker, and its own command only notes the id in the worker's memory, where a job
that waits in Redis never meets it. A replica calls `take_over_revoke` before its Celery worker starts. From then on the
command appends ``kind id gen`` to the stream ``PREFIXrequests``; the scheduler reads it with `requests`, cancels (SQL
first for durable jobs) and lets it go with `forget`. Each replica that hears the broadcast appends the same request,
and a cancel bears a repeat: `gen` keeps a late one away from a job that has been requeued since.

A broadcast needs a listener: while no replica runs, nobody hears the button. Waiting jobs are then cancelled through
the API, the console or the command line.
"""

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from celery.worker.control import Panel, nok, ok
from redis.exceptions import RedisError

from inferq.config import Settings
from inferq.job import is_job_id
from queues import stream_id
from queues.connection import Client, connect_sync, translated

log = logging.getLogger(__name__)

CANCEL = "cancel"
LIMIT = 10_000
"""Requests that are kept while no scheduler reads."""
PATIENCE = 2.0
"""Seconds that a remote command may wait for Redis: meanwhile the worker answers nobody else."""


@dataclass(frozen=True, slots=True)
class Request:
    """Cancel `job_id`. `generation` is what Redis held when the button was pressed, None when it held nothing."""

    position: str
    kind: str
    job_id: str
    generation: int | None


def take_over_revoke(settings: Settings) -> None:
    """Make this process' Celery worker answer revoke and terminate with cancel requests."""
    client = connect_sync(settings, patience=PATIENCE, name="inferq-remote")
    prefix = settings.queue.prefix

    def revoke(
        state: Any, task_id: Any, terminate: bool = False, signal: Any = None, **more: Any
    ) -> dict[str, str]:
        """Cancel jobs by id."""
        return _request(client, prefix, [task_id] if isinstance(task_id, str) else task_id or [])

    def terminate(state: Any, signal: Any = None, task_id: Any = None, **more: Any) -> dict[str, str]:
        """Cancel jobs by id, down to the engine, exactly as revoke does."""
        return revoke(state, task_id)

    for name, command in (("revoke", revoke), ("terminate", terminate)):
        meta = Panel.meta[name]
        Panel.register(
            name=name, type="control", variadic=meta.variadic, signature=meta.signature, args=meta.args
        )(command)


def _request(client: Any, prefix: str, ids: Iterable[Any]) -> dict[str, str]:
    wanted = [str(job_id) for job_id in ids if is_job_id(str(job_id))]
    try:
        for job_id in wanted:
            generation = client.hget(f"{prefix}job:{job_id}", "gen") or b""
            entry = {"kind": CANCEL, "id": job_id, "gen": generation}
            client.xadd(f"{prefix}requests", entry, maxlen=LIMIT, approximate=True)
    except RedisError as error:
        log.warning("a cancel from Flower was not passed on: %s", error)
        return dict(nok(f"not cancelled: {error}"))
    return dict(ok(f"asked to cancel {', '.join(wanted) or 'nothing: these are no job ids'}"))


async def requests(client: Client, prefix: str, after: str = "0-0", *, limit: int = 100) -> list[Request]:
    """Requests after a position, oldest first; at once, without waiting for new ones. Raises QueueUnavailable."""
    async with translated():
        entries = await client.xrange(f"{prefix}requests", min=f"({after}", count=limit)
    return [
        Request(
            position=position.decode(),
            kind=entry.get(b"kind", b"").decode(),
            job_id=entry.get(b"id", b"").decode(),
            generation=int(entry[b"gen"]) if entry.get(b"gen") else None,
        )
        for position, entry in entries
    ]


async def forget(client: Client, prefix: str, upto: str) -> None:
    """These requests have been carried out; the stream is trimmed up to and with `upto`. Raises QueueUnavailable."""
    async with translated():
        await client.xtrim(f"{prefix}requests", minid=stream_id.after(upto), approximate=False)
