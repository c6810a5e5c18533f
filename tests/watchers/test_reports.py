"""What stands in result and error files, and under which number."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest

from inferq import errors
from inferq.job import Job, JobSpec, JobState
from watchers import reports

ONE, TWO = "0189f7e4-0000-7000-8000-000000000001", "0189f7e4-0000-7000-8000-000000000002"
SPEC = JobSpec(id=ONE, model="demo", endpoint="completions", body=b"{}", created_at=5.0)
DONE = Job(spec=SPEC, state=JobState.SUCCEEDED, result=b'{"a": [1]}', finished_at=7.5)


def written(job: Job) -> Any:
    return orjson.loads(reports.result(job, reports.attachment_of(job)))


def test_a_result() -> None:
    assert written(DONE) == {
        "job_id": ONE,
        "model": "demo",
        "state": "succeeded",
        "created_at": 5.0,
        "finished_at": 7.5,
        "result": {"a": [1]},
    }


@pytest.mark.parametrize("raw", [b"[" + b"1," * 20_000 + b"1]", b"[" * 500 + b"]" * 500, b"null", b'"text"'])
def test_any_json_is_a_result(raw: bytes) -> None:
    assert written(replace(DONE, result=raw))["result"] == orjson.loads(raw)


def test_what_is_no_json_is_a_file_beside_it() -> None:
    sound = replace(DONE, result=b"RIFF\x00", result_type="audio/x-wav")
    attachment = reports.attachment_of(sound)
    assert attachment is not None
    assert attachment.file_name("a", 2) == f"a-2.{attachment.sha256[:12]}.wav"
    assert written(sound)["result"] is None
    assert written(sound)["artifact"]["media_type"] == "audio/x-wav"


@pytest.mark.parametrize("state", [JobState.CANCELLED, JobState.EXPIRED, JobState.FAILED])
def test_a_job_without_an_error_has_a_reason_too(state: JobState) -> None:
    said = orjson.loads(reports.failure("a.json", replace(DONE, state=state)))
    assert said["code"] == state.value
    assert state.value in said["message"] or "deadline" in said["message"]


def test_a_result_never_takes_the_place_of_another_job(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes(reports.result(replace(DONE, spec=replace(SPEC, id=TWO)), None))
    (tmp_path / "a-2.json").write_text("somebody's own file")
    assert reports.result_number(tmp_path, "a", ONE) == 3
    assert reports.result_number(tmp_path, "a", TWO) == 1


def test_error_files_and_their_job_files_share_a_number(tmp_path: Path) -> None:
    refusal = reports.refusal("a.json", errors.InvalidRequest("no"))
    (tmp_path / "a.json").touch()
    assert reports.error_number(tmp_path, "a", ".json", None) == 2
    (tmp_path / "a-2.error.json").write_bytes(refusal)
    assert reports.error_number(tmp_path, "a", ".json", None) == 2, "a refusal that a crash cut in two"
    assert reports.error_number(tmp_path, "a", ".json", ONE) == 3
    (tmp_path / "a-2.json").touch()
    (tmp_path / "a-3.error.json").write_bytes(reports.failure("a.json", DONE))
    assert reports.error_number(tmp_path, "a", ".json", None) == 4
    (tmp_path / "a-3.json").touch()
    assert reports.error_number(tmp_path, "a", ".json", ONE) == 3, "the job's own report is written once more"
