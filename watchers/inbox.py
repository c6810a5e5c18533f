"""Takes one settled file: makes it a durable job, or refuses it with a report. Decides nothing about when.

The order keeps it safe to be killed anywhere: the job is committed, then its file moves to the temp folder. A file
found with its job committed is only moved, whatever has become of what it names.
"""

import asyncio
import logging
from enum import Enum, auto
from pathlib import Path

from inferq import errors, failpoints
from inferq.catalog import Catalog
from inferq.config import Settings
from inferq.config.tenants import FILES
from inferq.job import JobSpec
from inferq.request import Request, job_spec
from queues import Gateway
from queues.door import Door
from storage import Storage
from storage.ledger import Ledger
from storage.texts import clean
from watchers import drops, identity, jobfile, moves, names, reports
from watchers.drops import Drop
from watchers.folders import Folders
from watchers.sightings import Sight

log = logging.getLogger(__name__)

TENANT = FILES
PATIENCE = 3.0
"""Seconds that a file which is no JSON (yet) must be unchanged before it is refused: its writer may come back."""
_SAME_SOURCE = 100


class Verdict(Enum):
    """What became of a file."""

    DONE = auto()
    """It left the directory."""
    LATER = auto()
    """It is not whole, or no longer the one that was seen."""


class Inbox:
    def __init__(self, folders: Folders, settings: Settings, gateway: Gateway, storage: Storage) -> None:
        self._folders = folders
        self._settings = settings
        self._catalog = Catalog(settings)
        self._door = Door(settings, gateway.queue, storage.media, gateway.hooks)
        self._intake = gateway.intake
        self._ledger = storage.ledger

    async def take(self, name: str, sight: Sight) -> Verdict:
        """Raises AtCapacity (`details` name the model whose queue is full), Unavailable and OSError; the file then
        stays.
        """
        path = self._folders.inbox / name
        try:
            drop = await asyncio.to_thread(drops.read, path, sight.identity, self._settings.api.max_body)
        except drops.Unsettled:
            return Verdict.LATER
        except errors.InvalidRequest as error:
            return await self._refuse(name, sight.identity, error)
        job_id, known = await self._find_id(name, drop)
        if not known:
            try:
                await self._submit(name, job_id, jobfile.understand(_parse(name, drop, sight), self._catalog))
            except drops.Unsettled:
                return Verdict.LATER
            except (errors.InvalidRequest, errors.NotFound, errors.Forbidden) as error:
                return await self._refuse(name, drop.identity, error)
        failpoints.reach("inbox.submitted")
        await asyncio.to_thread(
            moves.move_if, path, self._folders.temp / names.underway(job_id, name), drop.identity
        )
        log.info("%s became job %s", name, job_id)
        return Verdict.DONE

    async def _submit(self, name: str, job_id: str, asked: Request) -> None:
        """Take the files of a request and make it a job, which SQL holds from then on."""
        await self._door.admit(asked, tenant=TENANT, unattended=True)
        spec = job_spec(
            asked,
            self._settings,
            id=job_id,
            tenant=TENANT,
            durable=True,
            kept=True,
            source=f"{self._folders.source_prefix}{name}",
        )
        await self._intake.submit(spec)

    async def _find_id(self, name: str, drop: Drop) -> tuple[str, bool]:
        """(the id for this drop, whether it is a job already).

        1. No job has the id: a new drop. 2. Its job goes on, or its result is not delivered: we died before the move.
        3. Its job is over and delivered: somebody moved the file back, for another run under the next id.
        """
        for repeat in range(identity.MOST_REPEATS + 1):
            job_id = identity.job_id(self._folders.inbox, name, drop.identity, drop.sha256, repeat)
            job = await self._ledger.get(job_id)
            if job is None:
                return job_id, False
            if not job.terminal or not await is_delivered(self._ledger, job.spec):
                return job_id, True
        raise errors.Conflict(f"{name} was run {identity.MOST_REPEATS + 1} times; drop a new copy of it")

    async def _refuse(self, name: str, seen: identity.Identity, error: errors.InferqError) -> Verdict:
        moved = await asyncio.to_thread(self._file_refusal, name, seen, error)
        if moved:
            log.warning("%s was refused: %s", clean(name), error.message)
        return Verdict.DONE if moved else Verdict.LATER

    def _file_refusal(self, name: str, seen: identity.Identity, error: errors.InferqError) -> bool:
        folder = self._folders.errors
        stem, extension = names.split(name)
        number = reports.error_number(folder, stem, extension, None)
        report: Path = folder / names.numbered(stem, number, reports.ERROR)
        moves.write_whole(report, [reports.refusal(name, error)])
        target = folder / names.numbered(stem, number, extension)
        if moves.move_if(self._folders.inbox / name, target, seen):
            return True
        report.unlink(missing_ok=True)
        return False


async def is_delivered(ledger: Ledger, spec: JobSpec) -> bool:
    """Whether the result of a job that is over has reached its file."""
    waiting = await ledger.undelivered(spec.source, limit=_SAME_SOURCE)
    return all(job.id != spec.id for job in waiting)


def _parse(name: str, drop: Drop, sight: Sight) -> dict[str, object]:
    if name.encode(errors="replace").decode() != name:
        raise errors.InvalidRequest("The file's name is not valid UTF-8.")
    try:
        return jobfile.parse(drop.data)
    except errors.InvalidRequest as error:
        if not sight.renamed and sight.seen_at - sight.since < PATIENCE:
            raise drops.Unsettled from error
        raise
