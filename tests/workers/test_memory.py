"""Out of memory: recognised, tried once more alone, and then told; an engine that one job kills."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from inferq.job import Failure, JobState
from tests.workers.engine_stub import Connection, answered, event, hanging_up, streamed
from tests.workers.runner_site import Site as RunnerSite
from tests.workers.service_site import Site, service_site, until
from workers.breaker import Circuit
from workers.engines.failures import EngineFault, OutOfMemory, fault_of, tells_no_memory
from workers.room import Room
from workers.service import ReplicaService

_CANCEL = Failure(code="cancelled", message="x", status=499)
OOM = b'{"error": {"message": "CUDA out of memory. Tried to allocate 2.00 GiB.", "code": "engine_error"}}'


@pytest.mark.parametrize(
    "message",
    [
        "CUDA out of memory. Tried to allocate 20.00 MiB. GPU 0 has a total capacity of 79.10 GiB",
        "CUDA error: out of memory",
        "MPS backend out of memory (MPS allocated: 9.05 GB)",
        "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to",
        "DefaultCPUAllocator: not enough memory: you tried to allocate 9 bytes.",
        "CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
        "torch.OutOfMemoryError: HIP out of memory",
        "std::bad_alloc",
        "failed to allocate buffer for kv cache",
        "Unable to allocate 7.28 TiB for an array",
    ],
)
def test_what_libraries_say_of_memory(message: str) -> None:
    assert tells_no_memory(message)


@pytest.mark.parametrize(
    "message",
    [
        "",
        "the model failed",
        "I have no memory of this place",
        "cannot allocate a slot",
        "tensor sizes differ",
    ],
)
def test_what_is_something_else(message: str) -> None:
    assert not tells_no_memory(message)


def test_exceptions_are_known_by_their_class_too() -> None:
    class OutOfMemoryError(RuntimeError):
        """As torch's is called."""

    for error in (OutOfMemoryError("x"), MemoryError(), RuntimeError("CUDA error: out of memory")):
        fault = fault_of(error)
        assert isinstance(fault, OutOfMemory)
        assert (fault.error_code, fault.status) == ("out_of_memory", 500)
    other = fault_of(RuntimeError("x"))
    assert type(other) is EngineFault
    assert other.error_code == "engine_error"


async def test_alone_it_may_have_room(site: RunnerSite) -> None:
    asked = []

    async def script(connection: Connection) -> None:
        asked.append(connection.head.lower().count(b"x-inferq-alone: 1"))
        await connection.whole(OOM, 500) if len(asked) == 1 else await connection.whole(b"{}")

    job = await site.run(script)
    assert (job.state, job.attempt, asked) == (JobState.SUCCEEDED, 1, [0, 1])
    assert site.broken == []


@pytest.mark.parametrize("script", [answered(OOM, 500), streamed(b"data: " + OOM + b"\n\n")])
async def test_alone_it_may_have_none_either(site: RunnerSite, script: object) -> None:
    job = await site.run(script, stream=True)  # type: ignore[arg-type]
    assert (job.state, job.attempt) == (JobState.FAILED, 1)
    assert job.error is not None
    assert (job.error.code, job.error.status) == ("out_of_memory", 500)
    assert "Tried to allocate 2.00 GiB. (also alone; ask for less" in job.error.message
    assert (len(site.stub.bodies), site.broken) == (2, [])
    assert site.runner.endings.breaker.state is Circuit.CLOSED


async def test_what_was_begun_is_not_asked_for_twice(site: RunnerSite) -> None:
    job = await site.run(streamed(event("a"), b"data: " + OOM + b"\n\n"), stream=True)
    assert (job.state, len(site.stub.bodies)) == (JobState.FAILED, 1)


async def test_the_callers_own_words_about_memory_are_no_fault(site: RunnerSite) -> None:
    refusal = b'{"error": {"message": "no such field: out of memory", "code": "invalid_value"}}'
    job = await site.run(answered(refusal, 400))
    assert job.error is not None
    assert (job.error.code, len(site.stub.bodies)) == ("invalid_value", 1)


async def test_who_is_alone_goes_first_and_alone() -> None:
    room, order = Room(), []
    leave = {name: asyncio.Event() for name in "abcd"}

    async def visit(name: str, *, alone: bool) -> None:
        async with room.enter(alone=alone):
            order.append(name)
            await leave[name].wait()

    async def settled() -> list[str]:
        for _ in range(5):
            await asyncio.sleep(0)
        return order

    visits = [asyncio.create_task(visit("a", alone=False))]
    await settled()
    visits += [asyncio.create_task(visit(name, alone=name in "bc")) for name in "bcd"]
    assert await settled() == ["a"]
    assert room.closed
    for name, then in (("a", "ab"), ("b", "abc"), ("c", "abcd")):
        leave[name].set()
        assert await settled() == list(then)
    assert not room.closed
    leave["d"].set()
    await asyncio.gather(*visits)


async def test_who_gives_up_waiting_leaves_the_room_open() -> None:
    room = Room()
    async with room.enter(alone=False):
        waiting = asyncio.create_task(room.enter(alone=True).__aenter__())
        await asyncio.sleep(0)
        assert room.closed
        waiting.cancel()
        await asyncio.wait({waiting})
        assert not room.closed
        async with room.enter(alone=False):
            pass


@pytest.fixture
async def replica(redis_url: str, short_dir: Path) -> AsyncIterator[Site]:
    async with service_site(redis_url, short_dir, processing={"retry_delay": 0}) as site:
        yield site


async def test_a_job_that_is_alone_has_the_engine_for_itself(replica: Site) -> None:
    beside = await replica.accept("!delay=1")
    crowd = await replica.accept("!crowd")
    after = await replica.accept("x")
    slots = [asyncio.create_task(replica.service.serve()) for _ in range(2)]
    await replica.finished(crowd)
    await replica.finished(beside)
    await replica.finished(after)
    await asyncio.gather(*slots)
    assert replica.service._engine.restarts == 0


async def test_nothing_is_taken_while_a_job_waits_to_be_alone(replica: Site) -> None:
    service = replica.service
    beside = await replica.accept("!hang")
    slot = asyncio.create_task(service.serve())
    await until(_runs(service))
    async with asyncio.timeout(30):
        crowd = await replica.accept("!crowd")
        other = asyncio.create_task(service.serve())
        while not service._runner.closed:
            await asyncio.sleep(0.01)
        waiting = await replica.accept("x")
        await service._look()
        assert (await replica.ends(waiting, JobState.QUEUED)).attempt == 0
        next(r for r in service._runner.running.values() if r.attempt.id == beside).stop("enough")
        await replica.finished(crowd)
        await replica.finished(waiting)
    await replica.queue.cancel(beside, _CANCEL)
    await asyncio.gather(slot, other)


def _runs(service: ReplicaService) -> Callable[[], Awaitable[bool]]:
    async def look() -> bool:
        return bool(await service._engine.runs._ask(10.0))

    return look


async def test_a_job_that_kills_its_engine_twice_fails_and_not_its_model(replica: Site) -> None:
    job_id = await replica.accept("!crash", max_attempts=9)
    slot = asyncio.create_task(replica.service.serve())
    job = await replica.ends(job_id, JobState.FAILED)
    assert job.attempt == 2
    assert job.error is not None
    assert job.error.code == "engine_crashed"
    assert "died 2 times while it ran this job and no other" in job.error.message
    assert replica.service._breaker.state is Circuit.CLOSED
    await replica.finished(await replica.accept())
    await slot


async def test_a_job_beside_others_is_not_blamed(site: RunnerSite) -> None:
    """Two jobs whose connections break together, three times."""
    for number in range(1, 4):
        attempts = [await site.claim() if number == 1 else await site.attempts.claim() for _ in range(2)]
        arrived = asyncio.Barrier(2)

        async def together(_: Connection, barrier: asyncio.Barrier = arrived) -> None:
            await barrier.wait()

        site.stub.script = together
        both = [site.runner.run(attempt, may_claim=lambda: False) for attempt in attempts if attempt]
        await asyncio.gather(*both)
        for attempt in attempts:
            assert attempt is not None
            assert (await site.job(attempt.id)).state == ("failed" if number == 3 else "queued")
    assert site.runner.endings._crashes == {}
    site.stub.script = hanging_up
