"""What is written into the output and error folders: the content of the files and their numbers.

The same name dropped again gets the next number and replaces nothing. What a job wrote before a crash is found by its
id, which stands first in every file, and is written once more under the same number.
"""

import contextlib
import hashlib
import mimetypes
import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from inferq import errors
from inferq.endpoints import ENDPOINTS, Answer
from inferq.job import Failure, Job, JobState
from watchers import names

RESULT, ERROR = ".json", ".error.json"
_OWNER = re.compile(rb'\{\s*"job_id":\s*(?:null|"([^"]*)")')
_READABLE = 16 * 1024
"""Results up to this size are indented for people."""
_ENDINGS = {
    JobState.CANCELLED: "the job was cancelled",
    JobState.EXPIRED: "the job's deadline passed while it waited",
    JobState.FAILED: "the job failed",
}


@dataclass(frozen=True, slots=True)
class Attachment:
    """A result that is no JSON, or too big for a record: a file beside the result. `size` as far as it is known."""

    sha256: str
    media_type: str
    size: int | None = None
    file: str | None = None

    def file_name(self, stem: str, number: int) -> str:
        """Holds part of the hash, so the same bytes written again get the same name."""
        extension = mimetypes.guess_extension(self.media_type.partition(";")[0]) or ".bin"
        return names.numbered(stem, number, f".{self.sha256[:12]}{extension}")


def attachment_of(job: Job) -> Attachment | None:
    """What of the result does not go into the result file itself."""
    if job.artifact:
        return Attachment(job.artifact, job.result_type)
    if job.result and not is_json(job.result):
        return Attachment(hashlib.sha256(job.result).hexdigest(), job.result_type, len(job.result))
    return None


def has_pictures(job: Job) -> bool:
    """Whether the result names pictures that are artifacts."""
    endpoint = ENDPOINTS.get(job.spec.endpoint)
    return endpoint is not None and endpoint.answer is Answer.PICTURES


def is_json(data: bytes) -> bool:
    try:
        orjson.loads(data)
    except orjson.JSONDecodeError:
        return False
    return True


def result(job: Job, attachment: Attachment | None) -> bytes:
    """The content of a result file."""
    content: dict[str, Any] = {
        "job_id": job.id,
        "model": job.spec.model,
        "state": job.state.value,
        "created_at": job.spec.created_at,
        "finished_at": job.finished_at,
        "result": None,
    }
    if attachment is not None:
        return _readable({**content, "artifact": attachment})
    raw = job.result or b"null"
    if len(raw) <= _READABLE:
        with contextlib.suppress(orjson.JSONEncodeError):
            return _readable({**content, "result": orjson.loads(raw)})
    # Large or deeply nested: as the engine wrote it.
    return orjson.dumps({**content, "result": orjson.Fragment(raw)}, option=orjson.OPT_APPEND_NEWLINE)


def failure(name: str, job: Job) -> bytes:
    """The content of an error file for a job that did not succeed."""
    error = job.error or Failure(code=job.state.value, message=_ENDINGS.get(job.state, job.state.value))
    return _error(name, job.id, error.code, error.message, error.param)


def refusal(name: str, error: errors.InferqError) -> bytes:
    """The content of an error file for a job file that became no job."""
    return _error(name, None, error.code, error.message, error.param)


def result_number(folder: Path, stem: str, job_id: str) -> int:
    """The number under which this job's result is, or can be, written."""
    number = 1
    while (path := folder / names.numbered(stem, number, RESULT)).exists() and _owner(path) != job_id:
        number += 1
    return number


def error_number(folder: Path, stem: str, extension: str, job_id: str | None) -> int:
    """The number that is free for both an error file and its job file, or that this job has already.

    An error file of no job, whose job file is not there, is that of a refusal that a crash cut in two.
    """
    number = 1
    while True:
        report = folder / names.numbered(stem, number, ERROR)
        with_file = (folder / names.numbered(stem, number, extension)).exists()
        if report.exists():
            if _owner(report) == job_id and (job_id is not None or not with_file):
                return number
        elif not with_file:
            return number
        number += 1


def _error(name: str, job_id: str | None, code: str, message: str, param: str | None) -> bytes:
    content = {
        "job_id": job_id,
        "file": name.encode(errors="replace").decode(),
        "code": code,
        "message": message,
        "param": param,
        "at": time.time(),
    }
    return _readable(content)


def _readable(content: dict[str, Any]) -> bytes:
    return orjson.dumps(content, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)


def _owner(path: Path) -> str | None:
    """The job that a file of ours belongs to; None for a refusal, empty for a file of somebody else."""
    with path.open("rb") as file:
        match = _OWNER.match(file.read(128))
    if match is None:
        return ""
    return match.group(1).decode() if match.group(1) else None
