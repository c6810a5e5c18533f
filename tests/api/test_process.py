"""`python -m api` as a process: its flags, its exit codes, and one clear line for what a person can mend."""

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest
from fastapi import FastAPI

from api.server import server_for
from api.transport import MOST_HEAD
from tests.api.stack import ANSWER, CHAT, CHUNKS, Replica, settings_for, until

ROOT = Path(__file__).parents[2]


def run(
    home: Path, *arguments: str, environ: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "api", "--home", str(home), *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=ROOT,
        env={**os.environ, **(environ or {})},
        check=False,
    )


def one_line(result: subprocess.CompletedProcess[str], code: int) -> str:
    """The line that was said; nothing else was, and no traceback."""
    assert result.returncode == code, result.stderr
    lines = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    assert "Traceback" not in result.stderr
    return lines[0]


@pytest.fixture
def config(tmp_path: Path) -> Path:
    file = tmp_path / "config.yaml"
    file.write_text("models: {demo-chat: {engine: text, source: none}}\n")
    return file


@pytest.fixture
def home(tmp_path: Path, config: Path) -> Path:
    folder = tmp_path / "home"
    assert run(folder, "--init", "--config", str(config)).returncode == 0
    return folder


@pytest.fixture
def taken() -> Iterator[int]:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        sock.listen()
        yield sock.getsockname()[1]


def test_init_shows_the_admin_key_once(tmp_path: Path, config: Path) -> None:
    folder = tmp_path / "new" / "home"
    first = run(folder, "--init", "--config", str(config))
    assert first.returncode == 0, first.stderr
    key = (folder / "admin.key").read_text().strip()
    assert key.startswith("iq-")
    assert key in first.stdout.split()
    assert (folder / "admin.key").stat().st_mode & 0o777 == 0o600
    second = run(folder, "--init", "--config", str(config))
    assert second.returncode == 0
    assert key not in second.stdout


def test_it_serves_until_it_is_asked_to_stop(home: Path, config: Path) -> None:
    command = [sys.executable, "-m", "api", "--home", str(home), "--config", str(config), "--port", "0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=ROOT) as process:
        assert process.stderr is not None
        line = next(line for line in process.stderr if "listening on" in line)
        url = line.split("listening on ")[1].strip()
        key = (home / "admin.key").read_text().strip()
        response = httpx2.get(f"{url}/v1/models", headers={"Authorization": f"Bearer {key}"}, trust_env=False)
        assert [model["id"] for model in response.json()["data"]] == ["demo-chat"]
        process.send_signal(signal.SIGTERM)
        rest = process.stderr.read()
    assert process.returncode == 0
    assert "Traceback" not in rest


@contextlib.contextmanager
def served(
    home: Path, config: Path, redis_url: str, drain: str = "60s"
) -> Iterator[tuple[subprocess.Popen[str], httpx2.AsyncClient]]:
    """A serving process and its administrator; the process ends well."""
    environ = {
        **os.environ,
        "INFERQ__QUEUE__REDIS_URL": redis_url,
        "INFERQ__PROCESSING__DRAIN_TIMEOUT": drain,
    }
    command = [sys.executable, "-m", "api", "--home", str(home), "--config", str(config), "--port", "0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=ROOT, env=environ) as process:
        assert process.stderr is not None
        line = next(line for line in process.stderr if "listening on" in line)
        key = (home / "admin.key").read_text().strip()
        yield (
            process,
            httpx2.AsyncClient(
                base_url=line.split("listening on ")[1].strip(),
                headers={"Authorization": f"Bearer {key}"},
                trust_env=False,
                timeout=30,
            ),
        )
        assert process.wait(30) == 0


def test_only_one_of_us_handles_signals(tmp_path: Path) -> None:
    server = server_for(FastAPI(), settings_for(tmp_path, "redis://none"))
    before = signal.getsignal(signal.SIGINT)
    with server.capture_signals():
        assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_stop_lets_running_calls_end(
    home: Path, config: Path, redis_url: str, number: signal.Signals
) -> None:
    replica = Replica(settings_for(home, redis_url))
    with served(home, config, redis_url) as (process, http):
        async with http:
            call = asyncio.create_task(http.post("/v1/chat/completions", json=CHAT))
            attempt = await replica.claim()
            process.send_signal(number)
            await until(lambda: is_closed(http.base_url))
            await replica.result(attempt)
            assert (await call).content == ANSWER
    await replica.close()


async def test_a_call_that_outlasts_the_stop_is_told_so(home: Path, config: Path, redis_url: str) -> None:
    replica = Replica(settings_for(home, redis_url))
    with served(home, config, redis_url, drain="1s") as (process, http):
        async with http:
            call = asyncio.create_task(http.post("/v1/chat/completions", json=CHAT))
            await replica.claim()
            process.send_signal(signal.SIGTERM)
            answer = await call
            assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
            assert answer.json()["error"]["code"] == "server_stopping"
    await replica.close()


async def test_a_stream_that_outlasts_the_stop_ends_with_an_error(
    home: Path, config: Path, redis_url: str
) -> None:
    replica = Replica(settings_for(home, redis_url))
    with served(home, config, redis_url, drain="1s") as (process, http):
        async with http:
            call = asyncio.create_task(http.post("/v1/chat/completions", json=CHAT | {"stream": True}))
            await replica.chunks(await replica.claim(), CHUNKS[:1])
            process.send_signal(signal.SIGTERM)
            answer = await call
            assert answer.status_code == 200
            assert answer.content.startswith(CHUNKS[0])
            last = json.loads(answer.content.removeprefix(CHUNKS[0]).removeprefix(b"data: "))
            assert last["error"]["code"] == "server_stopping"
    await replica.close()


async def is_closed(url: httpx2.URL) -> bool:
    """Whether nobody listens there any more."""
    assert url.port is not None
    try:
        _, writer = await asyncio.open_connection(url.host, url.port)
    except ConnectionRefusedError:
        return True
    writer.close()
    await writer.wait_closed()
    return False


async def test_a_stop_does_not_wait_for_those_who_follow_a_job(
    home: Path, config: Path, redis_url: str
) -> None:
    with served(home, config, redis_url) as (process, http):
        async with http:
            links = (await http.post("/v1/jobs", json=CHAT)).json()["links"]
            async with http.stream("GET", links["events"]) as response:
                process.send_signal(signal.SIGTERM)
                assert await response.aread() == b""


def test_a_taken_port_is_told(home: Path, config: Path, taken: int) -> None:
    line = one_line(run(home, "--config", str(config), "--port", str(taken)), 1)
    assert str(taken) in line
    assert "--port" in line


def test_a_database_that_was_not_prepared_is_told(tmp_path: Path, config: Path) -> None:
    (tmp_path / "bare").mkdir()
    assert "--init" in one_line(run(tmp_path / "bare", "--config", str(config), "--port", "0"), 1)


def test_a_configuration_that_cannot_be_used_is_told(tmp_path: Path) -> None:
    missing = one_line(run(tmp_path, "--config", str(tmp_path / "none.yaml")), 2)
    assert "none.yaml" in missing
    broken = tmp_path / "broken.yaml"
    broken.write_text("api: {prt: 1}\n")
    assert "did you mean port" in one_line(run(tmp_path, "--config", str(broken)), 2)


def test_a_home_that_cannot_be_is_told(tmp_path: Path, config: Path) -> None:
    (tmp_path / "file").write_text("")
    line = one_line(run(tmp_path / "file" / "home", "--init", "--config", str(config)), 1)
    assert "file/home" in line


async def test_the_process_bounds_headers_too(home: Path, config: Path, redis_url: str) -> None:
    """On the event loop that it runs on, which is not that of the tests."""
    with served(home, config, redis_url) as (process, http):
        async with http:
            response = await http.get("/livez", headers={"X-A": "a" * 10 * MOST_HEAD})
            assert (response.status_code, response.json()["error"]["code"]) == (431, "headers_too_large")
            assert (await http.get("/livez")).status_code == 200
        process.send_signal(signal.SIGTERM)
