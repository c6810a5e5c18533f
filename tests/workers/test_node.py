"""The node agent: starts, adopts, buries and stops replicas. Here a replica is a small program that only waits."""

import asyncio
import contextlib
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import orjson
import psutil
import pytest

from inferq.config import Settings
from queues.connection import Client, connect
from queues.desired import desired_key
from queues.presence import Presence, ReplicaInfo
from workers import node
from workers.node import NodeAgent

# Ends on SIGTERM; with a file `stubborn` in its home it does not. In any case it ends with its time.
STAND_IN = """
import os, signal, sys
signal.alarm(300)
home = sys.argv[sys.argv.index("--home") + 1]
if os.path.exists(os.path.join(home, "stubborn")):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
while True:
    signal.pause()
"""

KILLED: list[NodeAgent] = []
"""A real one takes what it knows with it; here its children would be complained of when they are forgotten."""


class Site:
    """One agent at work, and what it is told."""

    def __init__(self, settings: Settings, redis: Client) -> None:
        self.settings, self.redis = settings, redis
        self.presence = Presence(redis, settings.queue.prefix)
        self.agents: list[tuple[NodeAgent, asyncio.Event, asyncio.Task[None]]] = []

    def agent(self) -> NodeAgent:
        agent, stopping = NodeAgent(self.settings), asyncio.Event()
        self.agents.append((agent, stopping, asyncio.create_task(agent.run(stopping))))
        return agent

    async def stop(self) -> None:
        for _, stopping, task in self.agents:
            stopping.set()
            await task
        self.agents.clear()

    async def kill(self) -> None:
        """The agent is gone without a word to its replicas."""
        for agent, _, task in self.agents:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
            await agent._redis.aclose()
            KILLED.append(agent)
        self.agents.clear()

    async def want(self, *names: str) -> None:
        name = node.socket.gethostname()
        places = [{"name": f"{n}@cpu:0.{name}", "model": n, "device": "cpu:0", "node": name} for n in names]
        await self.redis.set(desired_key(self.settings.queue.prefix, name), orjson.dumps(places))

    def running(self) -> dict[str, int]:
        """Model to process id, of the stand-ins of this home."""
        found = {}
        for process in psutil.process_iter():
            try:
                argv = process.cmdline()
                dead = process.status() == psutil.STATUS_ZOMBIE
            except psutil.Error:
                continue
            if "--replica" in argv and str(self.settings.home) in argv and not dead:
                found[argv[argv.index("--model") + 1]] = process.pid
        return found

    async def show(self, model: str, pid: int) -> None:
        host = node.socket.gethostname()
        info = ReplicaInfo(
            name=f"{model}@cpu:0.{host}",
            model=model,
            device="cpu:0",
            node=host,
            pid=pid,
            state="ready",
            since=time.time(),
            slots=1,
        )
        await self.presence.show_replica(info)


async def until(look: Callable[[], Any], what: str, within: float = 30.0) -> Any:
    deadline = time.monotonic() + within
    while not (seen := look()):
        assert time.monotonic() < deadline, f"not within {within} s: {what}"
        await asyncio.sleep(0.02)
    return seen


@pytest.fixture
async def site(redis_url: str, short_dir: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Site]:
    monkeypatch.setattr(node, "PASS_EVERY", 0.05)
    monkeypatch.setattr(node, "KILL_AFTER", 0.2)
    monkeypatch.setattr(node, "PROGRAM", [sys.executable, "-c", STAND_IN])
    tree = {"queue": {"redis_url": redis_url}, "processing": {"drain_timeout": 0.1}}
    settings = Settings.model_validate(tree | {"home": short_dir / "home"})
    settings.home.mkdir(exist_ok=True)
    redis = connect(settings)
    site = Site(settings, redis)
    yield site
    await site.stop()
    for pid in site.running().values():
        os.kill(pid, signal.SIGKILL)
    await redis.aclose()


async def test_what_is_wanted_is_started_and_what_is_not_is_stopped(site: Site) -> None:
    site.agent()
    await site.want("a", "b")
    await until(lambda: set(site.running()) == {"a", "b"}, "both run")
    before = site.running()["a"]
    await site.want("a")
    await until(lambda: set(site.running()) == {"a"}, "one is stopped")
    assert site.running()["a"] == before


async def test_what_died_is_started_again(site: Site) -> None:
    site.agent()
    await site.want("a")
    first = (await until(site.running, "it runs"))["a"]
    os.kill(first, signal.SIGKILL)
    await until(lambda: site.running().get("a", first) != first, "another one runs")


async def test_what_dies_again_and_again_is_given_time(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(node, "PROGRAM", [sys.executable, "-c", "raise SystemExit(1)"])
    monkeypatch.setattr(node, "PAUSES", (0.0, 1000.0))
    agent = site.agent()
    await site.want("a")
    host = node.socket.gethostname()
    await until(lambda: agent._deaths.get(f"a@cpu:0.{host}") == 2, "it died twice")
    await site.want("a", "b")
    await until(lambda: agent._deaths.get(f"b@cpu:0.{host}") == 2, "the other one too")
    assert agent._deaths[f"a@cpu:0.{host}"] == 2


async def test_what_was_ready_is_started_again_at_once(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """However often it was killed: it is missed, and its model has shown that it can be loaded."""
    monkeypatch.setattr(node, "PAUSES", (0.0, 1000.0))
    agent = site.agent()
    await site.want("a")
    host = node.socket.gethostname()
    known: set[int] = set()
    for _ in range(4):
        await until(lambda: site.running().get("a") not in (None, *known), "a new one runs")
        known.add(pid := site.running()["a"])
        await site.show("a", pid)
        await until(lambda: not agent._deaths.get(f"a@cpu:0.{host}"), "it was seen to be ready")
        os.kill(pid, signal.SIGKILL)


async def test_a_record_of_the_one_before_says_nothing(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(node, "PROGRAM", [sys.executable, "-c", "raise SystemExit(1)"])
    monkeypatch.setattr(node, "PAUSES", (0.0, 1000.0))
    host = node.socket.gethostname()
    await site.show("a", os.getpid())
    await site.redis.persist(f"{site.settings.queue.prefix}replica:a@cpu:0.{host}")
    agent = site.agent()
    await site.want("a")
    await until(lambda: agent._deaths.get(f"a@cpu:0.{host}") == 2, "it died twice")
    await site.want("a", "b")
    await until(lambda: agent._deaths.get(f"b@cpu:0.{host}") == 2, "some passes later")
    assert agent._deaths[f"a@cpu:0.{host}"] == 2


async def test_a_model_s_name_may_look_like_a_path(site: Site) -> None:
    site.agent()
    await site.want("folder/a", "../b")
    await until(lambda: set(site.running()) == {"folder/a", "../b"}, "both run")
    logs = {each.name for each in (site.settings.home / "logs").iterdir()}
    host = node.socket.gethostname()
    assert logs == {f"replica-folder%2Fa@cpu:0.{host}.log", f"replica-..%2Fb@cpu:0.{host}.log"}


async def test_what_cannot_be_started_does_not_keep_the_others(site: Site) -> None:
    host = node.socket.gethostname()
    in_the_way = site.settings.home / "logs" / f"replica-a@cpu:0.{host}.log"
    in_the_way.mkdir(parents=True)
    agent = site.agent()
    await site.want("a", "b")
    await until(lambda: set(site.running()) == {"b"}, "the other one runs")
    assert agent._deaths == {f"a@cpu:0.{host}": 1}


@pytest.mark.parametrize("shown", [True, False])
async def test_the_next_agent_adopts(site: Site, shown: bool) -> None:
    """By their records, and where there is none yet by their command lines."""
    site.agent()
    await site.want("a")
    pid = (await until(site.running, "it runs"))["a"]
    await site.kill()
    if shown:
        await site.show("a", pid)
    agent = site.agent()
    await until(lambda: agent._replicas, "it is adopted")
    await site.want("a", "b")
    await until(lambda: "b" in site.running(), "a pass later")
    assert site.running()["a"] == pid
    await site.want()
    await until(lambda: not site.running(), "an adopted one can be stopped")


async def test_a_record_of_another_process_is_no_replica(site: Site) -> None:
    """Process ids come round again."""
    stranger = await asyncio.create_subprocess_exec("sleep", "1000")
    await site.show("a", stranger.pid)
    agent = site.agent()
    await site.want("a")
    pid = (await until(site.running, "one is started"))["a"]
    await site.want()
    await until(lambda: not agent._replicas, "it is stopped")
    assert site.running() == {}
    assert stranger.returncode is None
    assert pid != stranger.pid
    stranger.kill()
    await stranger.wait()


async def test_the_stop_of_the_agent_ends_its_replicas(site: Site) -> None:
    site.agent()
    await site.want("a", "b")
    await until(lambda: len(site.running()) == 2, "both run")
    await site.stop()
    assert site.running() == {}
    assert await site.presence.nodes() == []


async def test_one_that_does_not_stop_is_killed(site: Site) -> None:
    (site.settings.home / "stubborn").touch()
    site.agent()
    await site.want("a")
    await until(site.running, "it runs")
    await site.want()
    await until(lambda: not site.running(), "it is killed")


async def test_it_shows_its_devices(site: Site) -> None:
    site.agent()
    deadline = time.monotonic() + 30
    while not (nodes := await site.presence.nodes()):
        assert time.monotonic() < deadline
    (info,) = nodes
    assert info.pid == os.getpid()
    cpu = next(device for device in info.devices if device["name"] == "cpu:0")
    assert 0 < cpu["memory_free"] <= cpu["memory_total"]


async def test_a_replica_gets_the_agents_configuration(site: Site, tmp_path: Path) -> None:
    """Also where it was given as a flag, which no environment hands down."""
    agent = NodeAgent(site.settings, config=tmp_path / "mine.yaml")
    argv = agent.command(node.Place(name="a@cpu:0.x", model="a", device="cpu:0", node="x"))
    assert argv[argv.index("--config") + 1] == str(tmp_path / "mine.yaml")
    assert argv[argv.index("--home") + 1] == str(site.settings.home)
