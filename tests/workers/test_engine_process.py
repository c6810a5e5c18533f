"""One engine as a child: its states, its failures, its end. The engines are real processes, most of them `noop`."""

import asyncio
import os
import sys
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import psutil
import pytest

from inferq.engine import Command, Launch
from tests.engines.process import ENVIRONMENT
from workers import engine_process
from workers.adapters import NOOP
from workers.engine_process import EngineProcess, EngineState

DEADLINE = 60.0
CHAT = "/v1/chat/completions"


@dataclass
class Watched:
    """An engine process and what it told about itself."""

    engine: EngineProcess
    log: Path
    ready: int = 0
    failures: list[str] = field(default_factory=list)
    states: list[EngineState] = field(default_factory=list)

    async def until(self, look: Callable[[], Any], what: str, within: float = DEADLINE) -> None:
        deadline = time.monotonic() + within
        while not look():
            assert time.monotonic() < deadline, f"not within {within} s: {what}, but {self.engine.state}"
            await asyncio.sleep(0.01)

    async def becomes(self, state: EngineState) -> None:
        await self.until(lambda: self.engine.state is state, f"the engine is {state}")

    def child(self) -> psutil.Process:
        """The program itself, below its shim."""
        return self.children()[0]

    def children(self) -> list[psutil.Process]:
        return psutil.Process(self.engine.pid).children() if self.engine.pid else []

    async def ask(self, text: str) -> int:
        assert self.engine.session is not None
        body = {"messages": [{"role": "user", "content": text}]}
        async with self.engine.session.post(CHAT, json=body) as response:
            return response.status


@dataclass(frozen=True)
class Script:
    """An engine that is a piece of shell."""

    text: str
    health: str = "/health"
    endpoints: frozenset[str] = frozenset()

    def command(self, launch: Launch) -> Command:
        return Command(("/bin/sh", "-c", self.text))


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_process, "PAUSES", (0.05, 0.1))
    monkeypatch.setattr(engine_process, "HEALTH_EVERY", 0.1)
    monkeypatch.setattr(engine_process, "HEALTH_TIMEOUT", 0.3)
    monkeypatch.setattr(engine_process, "HEALTH_FAILURES", 3)
    monkeypatch.setattr(engine_process, "STOP_GRACE", 1)


Make = Callable[..., Watched]


@pytest.fixture
async def make(short_dir: Path) -> AsyncIterator[Make]:
    """Makes engine processes and starts their `run`; ends all of them."""
    running: list[tuple[EngineProcess, asyncio.Task[None]]] = []

    def made(engine: Any = NOOP, *, load_timeout: float = DEADLINE, **options: Any) -> Watched:
        launch = Launch(
            model="m",
            source="none",
            socket=Path(),
            device="cpu:0",
            slots=2,
            python=Path(sys.executable),
            options=options,
        )
        log = short_dir / f"engine-{len(running)}.log"

        async def on_ready() -> None:
            watched.ready += 1

        async def on_failed(why: str) -> None:
            watched.failures.append(why)

        process = EngineProcess(
            engine,
            launch,
            env={"PYTHONPATH": ENVIRONMENT["PYTHONPATH"]},
            run_dir=short_dir,
            log_file=log,
            load_timeout=load_timeout,
            nice=0,
            on_ready=on_ready,
            on_failed=on_failed,
        )
        watched = Watched(process, log)
        running.append((process, asyncio.create_task(process.run())))
        return watched

    yield made
    for process, task in running:
        process.stop()
        await task
        assert process.state is EngineState.STOPPED


async def test_the_log_of_the_life_before_is_kept(make: Make, short_dir: Path) -> None:
    """It often holds the only trace of why an engine ended."""
    watched = make(Script("echo last words >&2; exit 3"))
    before = short_dir / "engine-0.log.1"
    await watched.until(before.exists, "the next life has begun")
    assert "last words" in before.read_text()


async def test_what_an_engine_says_of_its_model_is_read_once_it_is_ready(make: Make) -> None:
    watched = make(tokens=7)
    assert watched.engine.facts == {}
    await watched.becomes(EngineState.READY)
    assert watched.engine.facts == {"tokens": 7}


async def test_from_start_to_stop(make: Make, short_dir: Path) -> None:
    watched = make(load_s=0.3)
    engine = watched.engine
    await watched.becomes(EngineState.STARTING)
    await watched.becomes(EngineState.READY)
    assert (watched.ready, watched.failures, engine.error, engine.restarts) == (1, [], None, 0)
    assert engine.load_seconds is not None
    assert 0.3 <= engine.load_seconds < DEADLINE
    assert (engine.memory() or 0) > 10_000_000
    assert await watched.ask("hello") == 200
    child = watched.child()
    engine.stop()
    await watched.becomes(EngineState.STOPPING)
    await watched.becomes(EngineState.STOPPED)
    assert not child.is_running()
    assert (engine.pid, engine.session, engine.memory()) == (None, None, None)
    assert not list(short_dir.glob("e-*"))


async def test_a_folder_whose_replica_was_killed_is_removed(make: Make, short_dir: Path) -> None:
    gone = await asyncio.create_subprocess_exec("true")
    await gone.wait()
    left, kept = short_dir / f"e-{gone.pid}-x", short_dir / f"e-{os.getpid()}-y"
    for folder in (left, kept):
        folder.mkdir()
    watched = make()
    await watched.becomes(EngineState.READY)
    assert not left.exists()
    assert kept.exists()
    watched.engine.stop()
    await watched.becomes(EngineState.STOPPED)


async def test_killed_it_comes_back(make: Make) -> None:
    watched = make()
    await watched.becomes(EngineState.READY)
    first = watched.child()
    first.kill()
    await watched.until(lambda: watched.ready == 2, "it is ready again")
    assert (watched.engine.restarts, watched.failures) == (1, [])
    assert watched.child().pid != first.pid
    assert await watched.ask("hello") == 200


async def test_killed_while_it_loads_it_is_started_again(make: Make) -> None:
    watched = make(load_s=0.5)
    await watched.until(watched.children, "it loads")
    watched.child().kill()
    await watched.becomes(EngineState.READY)
    assert (watched.engine.restarts, watched.ready, watched.failures) == (1, 1, [])


async def test_after_three_failed_loads_it_has_failed_with_its_last_words(make: Make) -> None:
    watched = make(fail_load="the weights are torn")
    await watched.until(lambda: watched.failures, "it has failed")
    assert watched.engine.restarts == 3
    assert watched.engine.state is EngineState.FAILED
    assert "the weights are torn" in watched.failures[0]
    assert watched.engine.error == watched.failures[0]
    # It goes on trying, and what comes meanwhile fails too.
    await watched.until(lambda: len(watched.failures) == 2, "the next attempt has failed")


async def test_a_cause_that_goes_away(make: Make, short_dir: Path) -> None:
    """Failed, and then all is well again."""
    marker = short_dir / "marker"
    serve = f'exec "{sys.executable}" -m workers.engines.noop --model none --uds "$SOCKET"'

    class Later(Script):
        def command(self, launch: Launch) -> Command:
            text = f'[ -e "{marker}" ] || {{ echo "no marker" >&2; exit 1; }}; {serve}'
            return Command(("/bin/sh", "-c", text), {"SOCKET": str(launch.socket)})

    watched = make(Later(""))
    await watched.becomes(EngineState.FAILED)
    assert "no marker" in (watched.engine.error or "")
    marker.touch()
    await watched.becomes(EngineState.READY)
    assert watched.engine.error is None


async def test_a_program_that_is_not_there(make: Make) -> None:
    @dataclass(frozen=True)
    class Absent(Script):
        def command(self, launch: Launch) -> Command:
            return Command(("/nowhere/python",))

    watched = make(Absent(""))
    await watched.until(lambda: watched.failures, "it has failed")
    assert "/nowhere/python" in watched.failures[0]


async def test_an_adapter_that_raises_is_a_failed_start(make: Make) -> None:
    @dataclass(frozen=True)
    class Wrong(Script):
        def command(self, launch: Launch) -> Command:
            raise KeyError("no such option")

    watched = make(Wrong(""))
    await watched.until(lambda: watched.failures, "it has failed")
    assert "no such option" in watched.failures[0]


async def test_a_load_that_never_ends(make: Make) -> None:
    watched = make(Script("sleep 1000"), load_timeout=0.2)
    await watched.until(lambda: watched.failures, "it has failed")
    assert "not ready within" in watched.failures[0]


async def test_a_hung_engine_is_killed_and_another_comes(make: Make) -> None:
    """Its whole event loop stands: it answers no health check, and no SIGTERM either."""
    watched = make()
    await watched.becomes(EngineState.READY)
    hung = watched.child()
    with pytest.raises(aiohttp.ClientError):
        await watched.ask("!block")
    await watched.until(lambda: watched.ready == 2, "another one is ready")
    assert not hung.is_running()
    assert await watched.ask("hello") == 200


async def test_a_busy_engine_is_not_taken_for_a_hung_one(make: Make) -> None:
    watched = make()
    await watched.becomes(EngineState.READY)
    assert await watched.ask("!delay=1.5") == 200
    assert (watched.ready, watched.engine.restarts) == (1, 0)


async def test_a_doubted_engine_is_looked_at_before_it_gets_more_work(make: Make) -> None:
    """Between the death of an engine and the news of it lie milliseconds in which many jobs could be burnt."""
    watched = make()
    await watched.becomes(EngineState.READY)
    assert watched.engine.usable
    watched.engine.doubt()
    assert not watched.engine.usable
    await watched.until(lambda: watched.engine.usable, "it is well")
    assert watched.engine.restarts == 0
    watched.child().kill()
    watched.engine.doubt()
    while watched.engine.restarts == 0:
        assert not watched.engine.usable
        await asyncio.sleep(0)
    await watched.until(lambda: watched.engine.usable, "another one is well")


async def test_one_load_at_a_time_per_device(make: Make) -> None:
    """The second waits for the first, and its wait is neither its load time nor counted against it."""
    first, second = make(load_s=2.0), make(load_s=0.1, load_timeout=1.9)
    await first.until(lambda: first.engine.pid, "the first loads")
    assert second.engine.pid is None
    await second.becomes(EngineState.READY)
    assert first.engine.state is EngineState.READY
    assert (second.engine.restarts, second.failures) == (0, [])
    assert (second.engine.load_seconds or 9) < 1.9


async def test_stopped_while_it_loads(make: Make) -> None:
    watched = make(load_s=100)
    await watched.until(watched.children, "it loads")
    child = watched.child()
    watched.engine.stop()
    await watched.becomes(EngineState.STOPPED)
    assert not child.is_running()
    assert (watched.ready, watched.failures) == (0, [])


async def test_stopped_while_it_waits_for_the_device(make: Make) -> None:
    first, second = make(load_s=100), make()
    await first.until(lambda: first.engine.pid, "the first loads")
    second.engine.stop()
    await second.becomes(EngineState.STOPPED)
    first.engine.stop()


async def test_what_an_engine_left_behind_goes_with_it(make: Make, short_dir: Path) -> None:
    note = short_dir / "pid"
    watched = make(Script(f"sleep 1000 & echo $! > {note}; exit 3"))
    await watched.until(lambda: note.exists() and note.read_text().strip(), "it has left a child")
    orphan = int(note.read_text())
    await watched.until(lambda: not psutil.pid_exists(orphan) or watched.engine.restarts, "the child goes")
    await watched.until(lambda: watched.failures, "it has failed")
    assert not psutil.pid_exists(orphan)
    assert os.path.exists(watched.log)
