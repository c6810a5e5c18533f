"""Delivers finished jobs: result files, error files, and the job file to its last place.

SQL says what is undelivered, so nothing is kept in memory that a crash could lose. For each job: write the result,
move the job file, and only then mark it delivered; each step may be repeated.
"""

import asyncio
import logging
import time
from dataclasses import replace
from pathlib import Path

import orjson

from inferq import errors, failpoints
from inferq.job import Job, JobState
from storage.artifacts import ArtifactStore
from storage.ledger import Ledger
from watchers import drops, identity, moves, names, reports
from watchers.complaints import Complaints
from watchers.folders import Folders
from watchers.moves import Partial
from watchers.reports import Attachment

log = logging.getLogger(__name__)

BATCH = 8
"""Jobs read at once: each may hold a large request."""
MOST_STUCK = 64
RETRY_AFTER = 2.0
"""Seconds until a delivery that failed is tried again."""
DEFECT_PAUSE = 60.0
"""The same after an error that nobody foresaw."""


class Outbox:
    def __init__(self, folders: Folders, ledger: Ledger, artifacts: ArtifactStore, largest: int) -> None:
        self._folders = folders
        self._ledger = ledger
        self._artifacts = artifacts
        self._largest = largest
        self._complaints = Complaints(log)
        self._stuck: dict[str, float] = {}

    async def deliver_some(self) -> int:
        """Deliver what is ready; the number of files delivered. Raises StoreUnavailable when SQL is away.

        One delivery that fails does not stop the others: it is left out until its next try.
        """
        now = time.monotonic()
        limit = BATCH + min(len(self._stuck), MOST_STUCK)
        jobs = await self._ledger.undelivered(self._folders.source_prefix, limit=limit)
        self._stuck = {job.id: self._stuck[job.id] for job in jobs if job.id in self._stuck}
        delivered = 0
        for job in jobs:
            if self._stuck.get(job.id, 0.0) <= now:
                delivered += await self._try(job)
        return delivered

    async def _try(self, job: Job) -> bool:
        try:
            await self._deliver(job)
        except (OSError, errors.StoreUnavailable) as error:
            text = error.message if isinstance(error, errors.InferqError) else f"{error.strerror or error}"
            self._complaints.tell("delivering results", text)
            self._stuck[job.id] = time.monotonic() + RETRY_AFTER
            return False
        except Exception:
            log.exception("job %s could not be delivered", job.id)
            self._stuck[job.id] = time.monotonic() + DEFECT_PAUSE
            return False
        self._stuck.pop(job.id, None)
        self._complaints.settle("delivering results")
        return True

    async def _deliver(self, job: Job) -> None:
        name = job.spec.source.removeprefix(self._folders.source_prefix)
        await asyncio.to_thread(self._fetch_left_behind, job, name)
        if job.state is JobState.SUCCEEDED:
            await self._write_result(job, name)
        else:
            await asyncio.to_thread(self._file_failure, job, name)
        failpoints.reach("outbox.written")
        await self._ledger.mark_delivered(job.id, generation=job.generation)
        log.info("%s: job %s is %s", name, job.id, job.state.value)

    def _fetch_left_behind(self, job: Job, name: str) -> None:
        """The file of a job that was accepted just before a crash lies in the inbox still.

        Were it left there after its job is delivered, it would be taken for a new wish to run it.
        """
        path, temp = self._folders.inbox / name, self._folders.temp / names.underway(job.id, name)
        if temp.exists() or drops.identify(path) is None:
            return
        try:
            drop = drops.read(path, None, self._largest)
        except (drops.Unsettled, errors.InvalidRequest):
            return
        found = identity.job_id(self._folders.inbox, name, drop.identity, drop.sha256)
        if identity.is_same_drop(found, job.id):
            moves.move_if(path, temp, drop.identity)

    async def _write_result(self, job: Job, name: str) -> None:
        folder, (stem, _) = self._folders.results, names.split(name)
        number = await asyncio.to_thread(reports.result_number, folder, stem, job.id)
        attachment = reports.attachment_of(job)
        if attachment is not None:
            attachment = await self._attach(job, attachment, attachment.file_name(stem, number))
        elif reports.has_pictures(job):
            job = replace(job, result=await self._with_pictures(job, stem, number))
        path = folder / names.numbered(stem, number, reports.RESULT)
        await asyncio.to_thread(moves.write_whole, path, [reports.result(job, attachment)])
        await asyncio.to_thread(self._put_away, job, name, self._folders.archive, name)

    async def _attach(self, job: Job, attachment: Attachment, name: str) -> Attachment:
        """The bytes of the result as a file of their own."""
        if job.artifact is None:
            await asyncio.to_thread(moves.write_whole, self._folders.results / name, [job.result or b""])
            return replace(attachment, file=name)
        known = await self._artifacts.stat(job.artifact)
        if known is None:
            log.error(
                "job %s: its artifact %s is not in the store; the result names it only", job.id, job.artifact
            )
            return attachment
        await self._fetch(job.artifact, self._folders.results / name)
        return replace(attachment, size=known.size, file=name)

    async def _with_pictures(self, job: Job, stem: str, number: int) -> bytes:
        """The result with each picture as a file beside it, named by `file`; none for one that is gone."""
        answer = orjson.loads(job.result or b"{}")
        for entry in answer.get("data", ()):
            known = await self._artifacts.stat(entry.get("artifact", ""))
            if known is None:
                log.error("job %s: a picture of its result is not in the store", job.id)
                continue
            entry["file"] = Attachment(known.sha256, known.media_type).file_name(stem, number)
            await self._fetch(known.sha256, self._folders.results / entry["file"])
        return orjson.dumps(answer)

    async def _fetch(self, sha256: str, path: Path) -> None:
        with Partial(path.parent) as partial:
            async for chunk in self._artifacts.open_read(sha256):
                await asyncio.to_thread(partial.write, chunk)
            await asyncio.to_thread(partial.place, path)

    def _file_failure(self, job: Job, name: str) -> None:
        folder, (stem, extension) = self._folders.errors, names.split(name)
        number = reports.error_number(folder, stem, extension, job.id)
        report: Path = folder / names.numbered(stem, number, reports.ERROR)
        moves.write_whole(report, [reports.failure(name, job)])
        self._put_away(job, name, folder, names.numbered(stem, number, extension))

    def _put_away(self, job: Job, name: str, folder: Path, new_name: str) -> None:
        """The job file to its last place. Somebody may have removed it meanwhile; the result counts all the same."""
        temp = self._folders.temp / names.underway(job.id, name)
        if temp.exists():
            moves.move_numbered(temp, folder, new_name)
