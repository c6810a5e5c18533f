"""Connections that break: a command is tried again, once, and what it changes is changed once."""

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from inferq.testing import eventually
from queues.attempts import Attempts
from queues.connection import connect
from queues.queue import NOBODY, JobQueue
from tests.chaos import proxy
from tests.queues.builders import DONE, MODEL, settings_for, spec

PARALLEL = 8


class Wire:
    """A queue whose connections lead through a network that can be broken."""

    def __init__(self, url: str, control: Path) -> None:
        self._control = control
        self.settings = settings_for(url)
        self.redis = connect(self.settings)
        self.queue = JobQueue(self.redis, self.settings)
        self.attempts = Attempts(self.redis, self.settings, MODEL, "replica", "node")

    async def used(self) -> None:
        """Have several connections in the pool."""
        await asyncio.gather(*(self.queue.depths() for _ in range(PARALLEL)))

    def cut(self) -> None:
        """From now on each of them dies at its next answer, which is lost."""
        proxy.order(self._control, "api", "cut")


def started(argv: list[str]) -> "subprocess.Popen[str]":
    return subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)


@pytest.fixture
def network(redis_url: str, short_dir: Path) -> Iterator[str]:
    """The address of Redis behind a network that `proxy.order` breaks."""
    control = short_dir / "control"
    argv = [sys.executable, proxy.__file__, redis_url.removeprefix("unix://"), str(control), "api"]
    with started(argv) as process:
        eventually(control.exists, "the network is there", 60)
        assert process.stdout
        yield f"redis://127.0.0.1:{int(process.stdout.readline())}/0"
        process.kill()


@pytest.fixture
async def wire(network: str, short_dir: Path) -> AsyncIterator[Wire]:
    made = Wire(network, short_dir / "control")
    yield made
    await made.redis.aclose()


async def test_every_connection_of_the_pool_may_be_broken(wire: Wire) -> None:
    await wire.used()
    wire.cut()
    answers = await asyncio.gather(*(wire.queue.depths() for _ in range(PARALLEL)))
    assert answers == [{}] * PARALLEL


async def test_what_was_carried_out_is_not_carried_out_again(wire: Wire) -> None:
    """The answers of accept, claim and finish are lost with their connections."""
    await wire.used()
    wire.cut()
    first, second = spec(), spec()
    standing = await wire.queue.accept(first, "direct", capacity=NOBODY)
    assert standing is not None
    assert standing.position == 1
    await wire.queue.accept(second, "direct")
    wire.cut()
    attempt = await wire.attempts.claim()
    assert attempt is not None
    assert (attempt.id, attempt.job.attempt) == (first.id, 1)
    assert await wire.attempts.waiting() == 1
    wire.cut()
    state, following = await wire.attempts.finish(attempt, DONE, claim_next=True)
    assert state == "succeeded"
    assert following is not None
    assert (following.id, following.job.attempt) == (second.id, 1)
