"""What a replica does while the artifact store is full or away: a real full disk, a real Redis, a runner."""

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from inferq import errors
from inferq.job import Failure, Job, JobSpec, JobState
from queues.attempts import Attempt, Outcome
from tests.disk import Disk, small_disk
from tests.workers.engine_stub import answered
from tests.workers.runner_site import Site, runner_site, until
from workers.device_clock import DeviceClock
from workers.running import Charge, Running
from workers.storing import patiently

BIG = b"x" * 2000
PICTURES = b'{"data": [{"b64_json": "aGVsbG8="}]}'


@pytest.fixture
def disk(short_dir: Path) -> Iterator[Disk]:
    with small_disk(short_dir / "home" / "artifacts") as disk:
        yield disk


@pytest.fixture
async def site(disk: Disk, redis_url: str, short_dir: Path) -> AsyncIterator[Site]:
    async with runner_site(redis_url, short_dir) as site:
        disk.fill()
        site.stub.script = answered(BIG, media="image/png")
        yield site


async def waiting(site: Site, attempt: Attempt) -> asyncio.Task[Attempt | None]:
    """The attempt runs, the engine has answered, and the store has refused its answer."""
    task = await site.begun(attempt)
    (running,) = site.runner.running.values()
    await until(lambda: running.store and "disk is full" in running.store)
    return task


@pytest.mark.parametrize("picture", [False, True], ids=["result", "picture in a result"])
async def test_an_answer_waits_for_room(site: Site, disk: Disk, picture: bool) -> None:
    """The engine works once, and one attempt is used."""
    if picture:
        site.stub.script = answered(PICTURES)
    endpoint = "images/generations" if picture else "chat/completions"
    attempt = await site.claim(durable=True, kept=True, endpoint=endpoint)
    task = await waiting(site, attempt)
    disk.free()
    await task
    job = await site.job(attempt.id)
    assert (job.state, job.attempt, job.error) == ("succeeded", 1, None)
    assert len(site.stub.bodies) == 1
    assert site.broken == []
    assert (job.artifact is None) == picture
    if job.artifact:
        assert b"".join([piece async for piece in site.artifacts.open_read(job.artifact)]) == BIG


async def test_an_attempt_lasts_as_long_as_its_time_and_the_last_one_says_what_to_do(site: Site) -> None:
    attempt: Attempt | None = await site.claim(durable=True, kept=True, run_timeout=2.0, max_attempts=2)
    for state in ("queued", "failed"):
        assert attempt is not None
        await asyncio.wait_for(site.runner.run(attempt, may_claim=lambda: False), 30)
        job = await site.job(attempt.id)
        assert job.state == state
        attempt = await site.attempts.claim()
    assert job.error is not None
    assert (job.error.code, job.error.status) == ("store_unavailable", 503)
    assert "the disk is full" in job.error.message
    assert "free space on the artifact store" in job.error.message
    assert (len(site.stub.bodies), site.broken) == (2, [])


async def test_a_cancel_ends_the_waiting(site: Site) -> None:
    attempt = await site.claim(durable=True, kept=True)
    task = await waiting(site, attempt)
    await site.queue.cancel(attempt.id, Failure(code="cancelled", message="x", status=499))
    (running,) = site.runner.running.values()
    running.stop("the attempt is no longer trusted")
    await asyncio.wait_for(task, 5)
    job = await site.job(attempt.id)
    assert (job.state, job.error and job.error.message) == ("cancelled", "x")


async def test_a_replica_that_stops_hands_the_job_back(site: Site) -> None:
    attempt = await site.claim(durable=True, kept=True)
    task = await waiting(site, attempt)
    (running,) = site.runner.running.values()
    running.stop("the replica stops", Outcome.HANDBACK)
    await asyncio.wait_for(task, 5)
    job = await site.job(attempt.id)
    assert (job.state, job.attempt) == ("queued", 0)


async def test_a_caller_on_the_line_is_told_at_once(site: Site) -> None:
    """The pictures of a call that is not kept need room too; whoever made it can decide better than we."""
    job = await site.run(answered(PICTURES), endpoint="images/generations")
    assert (job.state, job.attempt) == ("failed", 1)
    assert job.error is not None
    assert (job.error.code, job.error.status) == ("store_unavailable", 503)


class _Clock:
    """Time that passes only by sleeping; at `end` the sleeper is cancelled."""

    def __init__(self, end: float) -> None:
        self.slept: list[float] = []
        self._end = end

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        if sum(self.slept) > self._end:
            raise asyncio.CancelledError


def running(*, kept: bool = True, device: DeviceClock | None = None) -> Running:
    spec = JobSpec(id="j", model="m", endpoint="chat/completions", body=b"", kept=kept)
    task = asyncio.create_task(asyncio.sleep(0))
    attempt = Attempt(job=Job(spec=spec, state=JobState.RUNNING), token="t", reply_to=None)
    return Running(attempt, task, Charge(device or DeviceClock()))  # type: ignore[arg-type]


async def away() -> bytes:
    raise errors.StoreUnavailable("the share is away")


async def test_the_pauses_grow_to_the_longest(caplog: pytest.LogCaptureFixture) -> None:
    clock, subject = _Clock(end=60.0), running()
    with pytest.raises(asyncio.CancelledError), caplog.at_level(logging.WARNING):
        await patiently(subject, away, sleep=clock.sleep)
    assert clock.slept == [0.5, 1, 2, 4, 8, 15, 15, 15]
    assert subject.store == "the share is away"
    begun, ended = [record.getMessage() for record in caplog.records]
    assert begun == "job j waits: the share is away"
    assert "is waited for no longer" in ended


async def test_one_refusal_costs_one_pause(caplog: pytest.LogCaptureFixture) -> None:
    clock, subject, refusals = _Clock(end=60.0), running(), [errors.StoreUnavailable("full")]

    async def put() -> bytes:
        if refusals:
            raise refusals.pop()
        return b"stored"

    with caplog.at_level(logging.WARNING):
        assert await patiently(subject, put, sleep=clock.sleep) == b"stored"
        assert await patiently(subject, put, sleep=clock.sleep) == b"stored"
    assert (clock.slept, subject.store) == ([0.5], None)
    begun, ended = [record.getMessage() for record in caplog.records]
    assert begun == "job j waits: full"
    assert "works again" in ended


async def test_the_device_is_not_charged_for_the_pauses() -> None:
    device = DeviceClock()
    subject, running_then, answers = running(device=device), [], [b"stored"]

    async def sleep(_: float) -> None:
        running_then.append(device._running)

    async def put() -> bytes:
        if not running_then:
            raise errors.StoreUnavailable("full")
        return answers.pop()

    await patiently(subject, put, sleep=sleep)
    assert (running_then, device._running) == ([0], 1)


async def test_other_errors_are_not_waited_out() -> None:
    async def gone() -> bytes:
        raise errors.NotFound("gone")

    clock = _Clock(end=60.0)
    with pytest.raises(errors.NotFound):
        await patiently(running(), gone, sleep=clock.sleep)
    with pytest.raises(errors.StoreUnavailable):
        await patiently(running(kept=False), away, sleep=clock.sleep)
    assert clock.slept == []


def test_a_paused_charge_costs_no_device_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr("workers.device_clock.time.monotonic", lambda: now)
    clock = DeviceClock()
    charge = Charge(clock)
    now = 2.0
    charge.pause()
    now = 100.0
    charge.resume()
    now = 103.0
    assert charge.end() == 5.0
