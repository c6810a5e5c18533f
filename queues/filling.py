"""Puts results of other jobs into a request that takes parts of them, and checks it as a new one. It queues nothing."""

import logging
from typing import Any

import orjson

from inferq import errors, inputs, request
from inferq.catalog import Catalog
from inferq.config import Settings
from inferq.endpoints import ENDPOINTS
from inferq.endpoints.endpoint import asks_for_events
from inferq.inputs import Place
from inferq.job import Failure, Job, JobState
from queues.door import Door
from storage import Storage

log = logging.getLogger(__name__)


class Filling:
    def __init__(self, storage: Storage, settings: Settings, catalog: Catalog, door: Door) -> None:
        self._storage = storage
        self._catalog = catalog
        self._door = door
        self._most = settings.api.max_body

    async def fill(self, job_id: str) -> None:
        """Fill a scheduled job's request, or fail the job as `dependency_input` when that cannot be done.

        Raises what may be otherwise at another time, AtCapacity and Unavailable; the job then stays as it is.
        """
        job = await self._storage.ledger.get(job_id)
        if job is None or job.state is not JobState.SCHEDULED:
            return
        try:
            filled = await self._filled(job)
        except errors.InferqError as error:
            if error.retryable:
                raise
            await self._fail(job, error.message, error.param)
        except Exception:
            await self._fail(
                job, "The request could not be filled: an error of this server, see its log.", None
            )
            raise
        else:
            await self._storage.waiting.fill(job, **filled)

    async def _fail(self, job: Job, message: str, param: str | None) -> None:
        failure = Failure(code="dependency_input", message=message, status=424, param=param)
        await self._storage.waiting.fail(job, failure)

    async def _filled(self, job: Job) -> dict[str, Any]:
        """The request as the engine gets it."""
        body = orjson.loads(job.spec.body)
        await self._put(inputs.places(body, job.spec.depends_on))
        if len(request.encode(body)) > self._most:
            raise errors.InvalidRequest(f"With its inputs the request is larger than {self._most} bytes.")
        checked = request.check(self._catalog, ENDPOINTS[job.spec.endpoint], body)
        await self._door.admit(checked, tenant=None, unattended=True)
        return {"body": checked.encoded, "stream": asks_for_events(checked.body), "units": checked.units}

    async def _put(self, places: list[Place]) -> None:
        """Job by job, so that one result at a time is held. Raises InvalidRequest naming the place."""
        for job_id in dict.fromkeys(place.job_id for place in places):
            job = await self._storage.ledger.get(job_id)
            file: bytes | None = None
            for place in (place for place in places if place.job_id == job_id):
                if job is None:
                    raise errors.InvalidRequest(f"There is no job {job_id} any more.", param=place.param)
                if file is None and inputs.needs_file(job, place.path):
                    file = await self._read(job, place.param)
                try:
                    place.holder[place.key] = inputs.part(job, place.path, file if place.path else None)
                except errors.InvalidRequest as error:
                    raise errors.InvalidRequest(error.message, param=place.param) from error

    async def _read(self, job: Job, param: str) -> bytes:
        """The bytes of a result that lies in a file."""
        assert job.artifact is not None
        artifact = await self._storage.artifacts.stat(job.artifact)
        if artifact is None or artifact.size > self._most:
            why = "is not there any more" if artifact is None else f"is larger than {self._most} bytes"
            raise errors.InvalidRequest(f"The result of job {job.id} {why}.", param=param)
        return b"".join([part async for part in self._storage.artifacts.open_read(job.artifact)])
