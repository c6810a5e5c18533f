"""After a start: what a predecessor left in the temp folder is sorted out, before anything else moves.

It deletes nothing and overwrites nothing.
"""

import asyncio
import logging
import os

from inferq.job import JobState
from storage.ledger import Ledger
from storage.texts import clean
from watchers import drops, moves, names
from watchers.folders import Folders
from watchers.inbox import is_delivered

log = logging.getLogger(__name__)


async def recover(folders: Folders, ledger: Ledger) -> None:
    """For each file in temp. Raises StoreUnavailable and OSError; may be repeated.

    1. No job of ours: back into the watched directory. 2. Its job is over and delivered: to its last place.
    3. Its job goes on, or waits for its delivery: it stays.
    """
    for name in await asyncio.to_thread(_waiting, folders):
        path = folders.temp / name
        job_id, original = names.parse_underway(name)
        job = await ledger.get(job_id) if job_id else None
        if job is None:
            place = await asyncio.to_thread(moves.move_numbered, path, folders.inbox, original)
            log.warning("%s has no job; it is back as %s", clean(name), clean(str(place)))
        elif job.terminal and await is_delivered(ledger, job.spec):
            last = folders.archive if job.state is JobState.SUCCEEDED else folders.errors
            await asyncio.to_thread(moves.move_numbered, path, last, original)


def has_files(folders: Folders) -> bool:
    """Whether any job file is under way."""
    with os.scandir(folders.temp) as entries:
        return any(
            names.is_job_file(entry.name) and entry.is_file(follow_symlinks=False) for entry in entries
        )


def _waiting(folders: Folders) -> list[str]:
    with os.scandir(folders.temp) as entries:
        listed = [entry.name for entry in entries if names.is_job_file(entry.name)]
    return sorted(name for name in listed if drops.identify(folders.temp / name) is not None)
