"""How attempts end: a real Redis, a runner, and an engine that answers as it is told."""

import asyncio
import json

import aiohttp
import pytest

from inferq.job import Failure, JobSpec, new_job_id
from queues import frames
from queues.attempts import Outcome
from queues.frames import FrameKind
from tests.workers.engine_stub import (
    DONE,
    Connection,
    Script,
    answered,
    event,
    hanging_up,
    silent,
    streamed,
)
from tests.workers.runner_site import API, Site, until

BODY = b'{"object":"chat.completion"}'


async def test_an_answer(site: Site) -> None:
    job = await site.run(answered(BODY))
    assert (job.state, job.attempt, job.result, job.error) == ("succeeded", 1, BODY, None)
    (frame,) = await site.replies()
    assert (frame.kind, frame.data) == (FrameKind.RESULT, BODY)
    assert site.broken == []


async def test_a_big_answer_is_an_artifact(site: Site) -> None:
    job = await site.run(answered(b"x" * 1001, media="image/png"), durable=True, kept=True)
    assert (job.state, job.result, job.result_type) == ("succeeded", None, "image/png")
    assert job.artifact is not None
    found = await site.artifacts.stat(job.artifact)
    assert found is not None
    assert (found.size, found.media_type) == (1001, "image/png")


async def test_a_stream(site: Site) -> None:
    job = await site.run(streamed(event("a"), event("b"), DONE), stream=True)
    assert (job.state, job.result) == ("succeeded", None)
    *chunks, end = await site.replies()
    assert b"".join(frame.data for frame in chunks) == event("a") + event("b") + DONE
    assert [frame.seq for frame in chunks] == list(range(len(chunks)))
    assert (end.kind, end.seq) == (FrameKind.END, len(chunks))


async def test_the_end_of_a_stream_is_sent_when_the_job_has_ended(site: Site) -> None:
    """Clients hang up when they have read it; the job must be over by then."""
    said, ends = asyncio.Event(), asyncio.Event()

    async def script(connection: Connection) -> None:
        await connection.begin()
        await connection.piece(event("a"))
        await connection.piece(event("b") + DONE)
        said.set()
        await ends.wait()
        await connection.end()

    site.stub.script = script
    attempt = await site.claim(stream=True)
    running = asyncio.create_task(site.runner.run(attempt, may_claim=lambda: False))
    await said.wait()
    await asyncio.sleep(0.1)
    assert [frame.data for frame in await site.replies()] == [event("a")]
    ends.set()
    await running
    assert (await site.job(attempt.id)).state == "succeeded"
    entries = await site.redis.xrange(f"inferq:reply:{API}")
    last = [(frame.kind, frame.seq, frame.data) for frame in frames.unpack(entries[-1][1][b"b"])]
    assert last == [(FrameKind.CHUNK, 1, event("b") + DONE), (FrameKind.END, 2, b"")]


async def test_what_an_engine_says_after_the_end_is_passed_on(site: Site) -> None:
    job = await site.run(streamed(event("a"), DONE, b": still here\n\n"), stream=True)
    assert job.state == "succeeded"
    *chunks, end = await site.replies()
    assert b"".join(frame.data for frame in chunks) == event("a") + DONE + b": still here\n\n"
    assert (end.kind, end.seq) == (FrameKind.END, len(chunks))


async def test_a_kept_stream_has_a_result_too(site: Site) -> None:
    job = await site.run(streamed(event("a"), event("b"), DONE), stream=True, kept=True)
    assert job.result is not None
    answer = json.loads(job.result)
    assert answer["choices"][0]["message"] == {"role": "assistant", "content": "ab"}


async def test_a_refusal_is_final(site: Site) -> None:
    error = b'{"error": {"message": "no such thing", "code": "invalid_value", "param": "n"}}'
    job = await site.run(answered(error, 400))
    assert (job.state, job.attempt) == ("failed", 1)
    assert job.error == Failure(code="invalid_value", message="no such thing", status=400, param="n")
    (frame,) = await site.replies()
    assert frame.kind is FrameKind.ERROR
    assert site.broken == []


@pytest.mark.parametrize("script", [hanging_up, answered(b"oops", 500), streamed(end=False)])
async def test_an_engine_that_broke_off_is_tried_again(site: Site, script: Script) -> None:
    job = await site.run(script)
    assert (job.state, job.attempt) == ("queued", 1)
    assert site.broken == ["broken"]
    for number in (2, 3):
        attempt = await site.attempts.claim()
        assert attempt is not None
        await site.runner.run(attempt, may_claim=lambda: False)
        job = await site.job(attempt.id)
        assert (job.state, job.attempt) == ("failed" if number == 3 else "queued", number)
    assert job.error is not None
    assert (job.error.code, job.error.status) == ("engine_crashed", 502)
    assert [frame.kind for frame in await site.replies()] == [FrameKind.ERROR]


async def test_an_engine_that_cannot_reach_its_hub_is_not_doubted(site: Site) -> None:
    error = b'{"error": {"message": "the hub is away; hub.huggingface", "code": "hub_unreachable"}}'
    job = await site.run(answered(error, 503), max_attempts=2)
    assert (job.state, job.attempt) == ("queued", 1)
    attempt = await site.attempts.claim()
    assert attempt is not None
    await site.runner.run(attempt, may_claim=lambda: False)
    job = await site.job(attempt.id)
    assert (job.state, job.attempt, site.broken) == ("failed", 2, [])
    assert job.error == Failure(
        code="hub_unreachable", message="the hub is away; hub.huggingface", status=503
    )


async def test_a_stream_that_had_begun_is_not_tried_again(site: Site) -> None:
    job = await site.run(streamed(event("a"), end=False), stream=True)
    assert (job.state, job.attempt) == ("failed", 1)
    assert [frame.kind for frame in await site.replies()] == [FrameKind.CHUNK, FrameKind.ERROR]


async def test_a_durable_stream_that_had_begun_is(site: Site) -> None:
    job = await site.run(streamed(event("a"), end=False), stream=True, durable=True, kept=True)
    assert (job.state, job.attempt) == ("queued", 1)


async def test_no_engine_at_the_moment(site: Site) -> None:
    site.runner._session = lambda: None
    job = await site.run(silent)
    assert (job.state, job.attempt) == ("queued", 1)


async def test_a_session_that_was_just_closed(site: Site) -> None:
    """The engine ended between the claim and the call."""
    closed = aiohttp.ClientSession("http://engine")
    await closed.close()
    site.runner._session = lambda: closed
    job = await site.run(silent)
    assert (job.state, job.attempt) == ("queued", 1)
    assert site.broken == ["broken"]


async def test_too_long(site: Site) -> None:
    job = await site.run(silent, run_timeout=0.1)
    assert job.state == "failed"
    assert job.error is not None
    assert (job.error.code, job.error.status) == ("engine_timeout", 504)
    await until(lambda: site.stub.departures == 1)
    assert site.broken == ["broken"]


async def test_cancelled(site: Site) -> None:
    """Redis has decided; the replica only stops the engine and writes nothing."""
    attempt = await site.claim()
    task = await site.begun(attempt)
    assert (
        await site.queue.cancel(attempt.id, Failure(code="cancelled", message="x", status=499)) == "running"
    )
    (running,) = site.runner.running.values()
    running.stop("the attempt is no longer trusted")
    assert await task is None
    await until(lambda: site.stub.departures == 1)
    job = await site.job(attempt.id)
    assert (job.state, job.error and job.error.message) == ("cancelled", "x")


async def test_a_caller_that_is_gone(site: Site) -> None:
    attempt = await site.claim()
    task = await site.begun(attempt)
    (running,) = site.runner.running.values()
    running.stop("the caller is gone", Outcome.CANCELLED)
    await task
    assert (await site.job(attempt.id)).state == "cancelled"


async def test_handed_back(site: Site) -> None:
    attempt = await site.claim()
    task = await site.begun(attempt)
    (running,) = site.runner.running.values()
    running.stop("the replica stops", Outcome.HANDBACK)
    await task
    job = await site.job(attempt.id)
    assert (job.state, job.attempt) == ("queued", 0)


async def test_a_lease_that_could_not_be_renewed_cancels_nothing(site: Site) -> None:
    """Redis was away and is back before somebody else took the job: nobody asked for its cancellation."""
    attempt = await site.claim(durable=True, kept=True)
    task = await site.begun(attempt)
    (running,) = site.runner.running.values()
    running.stop("the lease could not be renewed")
    await task
    job = await site.job(attempt.id)
    assert (job.state, job.attempt) == ("queued", 1)


async def test_two_attempts_of_one_job_do_not_disturb_each_other(site: Site) -> None:
    """Cancelled and queued again at once, the next attempt can begin before the last one has unwound."""

    async def slow_to_leave(connection: Connection) -> None:
        await connection.left.wait()

    site.stub.script = slow_to_leave
    first = await site.claim(durable=True, kept=True)
    task = await site.begun(first)
    await site.queue.cancel(first.id, Failure(code="cancelled", message="x", status=499))
    await site.queue.accept(first.job.spec, "restore", generation=1)
    second = await site.attempts.claim()
    assert second is not None
    assert second.id == first.id
    following = await site.begun(second)
    next(r for r in site.runner.running.values() if r.attempt is first).stop("no longer trusted")
    await task
    assert [running.attempt for running in site.runner.running.values()] == [second]
    site.stub.script = answered(BODY)
    next(iter(site.runner.running.values())).stop("the end", Outcome.HANDBACK)
    await following
    assert (await site.job(first.id)).state == "queued"


@pytest.mark.parametrize("may", [True, False])
async def test_the_next_job_comes_with_the_end_of_the_last(site: Site, may: bool) -> None:
    site.stub.script = answered(BODY)
    attempt = await site.claim()
    spec = JobSpec(id=new_job_id(), model="m", endpoint="chat/completions", body=b"{}")
    await site.queue.accept(spec, "direct", reply_to=API)
    following = await site.runner.run(attempt, may_claim=lambda: may)
    assert (following.id if following else None) == (spec.id if may else None)
    assert site.runner.done == 1


async def test_a_broken_engine_gets_no_next_job(site: Site) -> None:
    """What it is asked is asked after the engine was doubted."""
    site.stub.script = hanging_up
    attempt = await site.claim()
    following = await site.runner.run(attempt, may_claim=lambda: not site.broken)
    assert following is None
    assert (await site.job(attempt.id)).attempt == 1
