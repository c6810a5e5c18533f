"""A slot stays taken until the engine has let go of what was cancelled or ran too long; an engine that does not is
killed. On a real Redis, with a real engine process.
"""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from inferq.job import Failure, JobState
from queues.attempts import Outcome
from tests.workers.engine_stub import answered, hanging_up, silent, streamed
from tests.workers.runner_site import Site as RunnerSite
from tests.workers.service_site import Site, service_site, until
from workers import engine_process

CANCEL = Failure(code="cancelled", message="x", status=499)


@pytest.fixture
async def impatient(redis_url: str, short_dir: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Site]:
    """A replica whose engine has half a second to let go of a request."""
    monkeypatch.setattr(engine_process, "STOP_GRACE", 1)
    more: dict[str, Any] = {"release_timeout": 0.5, "processing": {"retry_delay": 0}}
    async with service_site(redis_url, short_dir, **more) as site:
        yield site


@pytest.fixture
async def patient(redis_url: str, short_dir: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Site]:
    monkeypatch.setattr(engine_process, "STOP_GRACE", 1)
    async with service_site(redis_url, short_dir, release_timeout=600.0, slots=1) as site:
        yield site


async def runs(site: Site) -> list[str]:
    """Ids of the requests that the engine works on."""
    return [run["id"] for run in await site.service._engine.runs._ask(10.0) or []]


async def working_on(site: Site, job_id: str) -> None:
    async def look() -> bool:
        return job_id in await runs(site)

    await until(look)


@pytest.mark.parametrize("text", ["!cling", "!block"])
async def test_an_engine_that_goes_on_with_a_job_that_ran_too_long_is_killed(
    impatient: Site, text: str
) -> None:
    engine = impatient.service._engine
    first = engine.pid
    job_id = await impatient.accept(text, run_timeout=0.5)
    slot = asyncio.create_task(impatient.service.serve())
    job = await impatient.ends(job_id, JobState.FAILED)
    assert job.error is not None
    assert job.error.code == "engine_timeout"
    await until(lambda: _is(lambda: engine.usable and engine.pid != first))
    assert engine.restarts == 1
    after = await impatient.accept()
    await impatient.service._look()
    await impatient.finished(after)
    await slot


async def test_why_it_was_killed_is_told(impatient: Site) -> None:
    engine, seen = impatient.service._engine, []
    job_id = await impatient.accept("!cling", run_timeout=0.5)

    async def told() -> bool:
        seen.append(engine.error or "")
        return job_id in seen[-1]

    slot = asyncio.create_task(impatient.service.serve())
    await until(told)
    assert "did not let go of job" in seen[-1]
    await slot


async def test_the_same_after_a_cancel(impatient: Site) -> None:
    engine = impatient.service._engine
    job_id = await impatient.accept("!cling")
    slot = asyncio.create_task(impatient.service.serve())
    await working_on(impatient, job_id)
    await impatient.queue.cancel(job_id, CANCEL)
    await until(lambda: _is(lambda: engine.restarts == 1 and engine.usable))
    assert (await impatient.ends(job_id, JobState.CANCELLED)).error == CANCEL
    await slot


async def test_what_ran_beside_it_is_run_again(impatient: Site) -> None:
    beside = await impatient.accept("!delay=2")
    slots = [asyncio.create_task(impatient.service.serve())]
    await working_on(impatient, beside)
    stuck = await impatient.accept("!cling", run_timeout=0.2)
    slots.append(asyncio.create_task(impatient.service.serve()))
    await impatient.ends(stuck, JobState.FAILED)
    await impatient.finished(beside)
    job = await impatient.queue.get(beside)
    assert job is not None
    assert job.attempt == 2
    await asyncio.gather(*slots)


async def test_a_slot_is_taken_until_the_engine_has_let_go(patient: Site) -> None:
    """Its caller is told at once."""
    stuck = await patient.accept("!cling", run_timeout=0.5)
    waiting = await patient.accept()
    slot = asyncio.create_task(patient.service.serve())
    await patient.ends(stuck, JobState.FAILED)
    assert stuck in await runs(patient)
    assert patient.service._busy == 1
    assert (await patient.ends(waiting, JobState.QUEUED)).attempt == 0
    patient.service._engine.kill("the test is over")
    await patient.finished(waiting)
    await slot


async def test_an_engine_that_lets_go_lives_on(patient: Site) -> None:
    late = await patient.accept("!hang", run_timeout=0.3)
    waiting = await patient.accept()
    slot = asyncio.create_task(patient.service.serve())
    await patient.ends(late, JobState.FAILED)
    await patient.finished(waiting)
    assert patient.service._engine.restarts == 0
    assert await runs(patient) == []
    await slot


async def test_a_drain_does_not_wait_for_it(patient: Site) -> None:
    job_id = await patient.accept("!cling")
    slot = asyncio.create_task(patient.service.serve())
    await working_on(patient, job_id)
    for running in list(patient.service._runner.running.values()):
        running.stop("the replica stops", Outcome.HANDBACK)
    patient.service._draining = True
    await asyncio.wait_for(slot, 20)


@pytest.mark.parametrize("script", [answered(b"{}"), answered(b"{}", 400), hanging_up, streamed(end=False)])
async def test_what_the_engine_has_ended_needs_no_confirmation(site: RunnerSite, script: Any) -> None:
    await site.run(script)
    assert site.released == []


async def test_what_was_taken_from_the_engine_does(site: RunnerSite) -> None:
    job = await site.run(silent, run_timeout=0.1)
    assert site.released == [job.id]


async def _is(question: Any) -> bool:
    return bool(question())
