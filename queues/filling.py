"""Puts results of other jobs into a request that takes parts of them, and checks it as a new one. It queues nothing."""

import asyncio
import contextlib
import logging
import time
from collections import defaultdict
from dataclasses import replace
from typing import Any

import orjson

from inferq import errors, inputs, request
from inferq.catalog import Catalog
from inferq.config import Settings
from inferq.endpoints import ENDPOINTS
from inferq.endpoints.endpoint import asks_for_events
from inferq.inputs import Place
from inferq.job import Failure, Job, JobState
from inferq.request import Request
from queues.door import Door
from queues.queue import JobQueue
from storage import Storage

log = logging.getLogger(__name__)

PATIENCE = 3600.0
"""Seconds after which a job fails that could not be filled for a reason that may have passed: an artifact store that is
away, but also an artifact that is damaged."""


class Filling:
    def __init__(
        self, queue: JobQueue, storage: Storage, settings: Settings, catalog: Catalog, door: Door
    ) -> None:
        self._queue = queue
        self._storage = storage
        self._catalog = catalog
        self._door = door
        self._most = settings.api.max_body

    async def fill(self, job_id: str) -> None:
        """Fill a scheduled job's request, or fail the job as `dependency_input` when that cannot be done.

        Raises what may be otherwise at another time, AtCapacity and Unavailable; the job then stays as it is, until it
        has been due for `PATIENCE`.
        """
        job = await self._storage.ledger.get(job_id)
        if job is None or job.state is not JobState.SCHEDULED:
            return
        try:
            filled = await self._filled(job)
        except errors.InferqError as error:
            if error.retryable and time.time() - (job.spec.due_at or 0.0) < PATIENCE:
                raise
            await self._fail(job, error.message, error.param)
        except Exception:
            await self._fail(
                job, "The request could not be filled: an error of this server, see its log.", None
            )
            raise
        else:
            if await self._storage.waiting.fill(job, **filled):
                with contextlib.suppress(errors.QueueUnavailable):  # without Redis nobody counts
                    await self._queue.owe(replace(job.spec, units=filled["units"]))

    async def _fail(self, job: Job, message: str, param: str | None) -> None:
        failure = Failure(code="dependency_input", message=message, status=424, param=param)
        await self._storage.waiting.fail(job, failure)

    async def _filled(self, job: Job) -> dict[str, Any]:
        """The request as the engine gets it. What may be large is for a thread: others are served meanwhile."""
        body, places = await asyncio.to_thread(_unfilled, job)
        room = self._most
        for job_id, mine in places.items():
            room -= await self._put(job_id, mine, room)
        checked = await asyncio.to_thread(self._checked, job, body)
        checked.large = True
        await self._door.admit(checked, tenant=None, unattended=True)
        return {"body": checked.encoded, "stream": asks_for_events(checked.body), "units": checked.units}

    def _checked(self, job: Job, body: Any) -> Request:
        encoded = request.encode(body)
        if len(encoded) > self._most:
            raise errors.InvalidRequest(f"With its inputs the request is larger than {self._most} bytes.")
        # Read anew: what stands in several places is one object as yet, and a body is changed while it is checked.
        return request.check(self._catalog, ENDPOINTS[job.spec.endpoint], orjson.loads(encoded))

    async def _put(self, job_id: str, places: list[Place], room: int) -> int:
        """Fill the places of one job's result, so that one result at a time is held; the bytes that came.

        Raises InvalidRequest naming the place.
        """
        job = await self._storage.ledger.get(job_id)
        if job is None:
            raise errors.InvalidRequest(f"There is no job {job_id} any more.", param=places[0].param)
        inside = next((place for place in places if inputs.needs_file(job, place.path)), None)
        file = None if inside is None else await self._read(job, inside.param)
        return await asyncio.to_thread(inputs.fill, places, job, file, room=room)

    async def _read(self, job: Job, param: str) -> bytes:
        """The bytes of a result that lies in a file."""
        assert job.artifact is not None
        artifact = await self._storage.artifacts.stat(job.artifact)
        if artifact is None or artifact.size > self._most:
            why = "is not there any more" if artifact is None else f"is larger than {self._most} bytes"
            raise errors.InvalidRequest(f"The result of job {job.id} {why}.", param=param)
        return b"".join([part async for part in self._storage.artifacts.open_read(job.artifact)])


def _unfilled(job: Job) -> tuple[Any, dict[str, list[Place]]]:
    """The body as it was asked for, and its places by the job whose result comes there."""
    body, by_job = orjson.loads(job.spec.body), defaultdict[str, list[Place]](list)
    for place in inputs.places(body, job.spec.depends_on):
        by_job[place.job_id].append(place)
    return body, by_job
