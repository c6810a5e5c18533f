"""How an engine process starts, fails to start, and stops."""

import signal
from pathlib import Path

import httpx2
import pytest

from tests.engines.conftest import chat
from tests.engines.process import EngineProcess, eventually, running, spawn

CHAT = "/v1/chat/completions"


def ended(engine: EngineProcess) -> tuple[int, str]:
    """Exit status, and the last line on stderr."""
    _, errors = engine.process.communicate(timeout=60)
    return engine.process.returncode, errors.strip().splitlines()[-1] if errors.strip() else ""


def test_it_says_starting_until_it_is_loaded(short_dir: Path) -> None:
    with spawn("noop", short_dir, options={"load_s": 1.5}) as engine:
        eventually(engine.listens, "listening")
        health = engine.get("/health")
        refused = engine.post(CHAT, chat("hello"))
        assert (health.status_code, health.json()["status"]) == (503, "starting")
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "engine_not_ready")
        eventually(engine.ready, "ready")
        assert engine.post(CHAT, chat("hello")).status_code == 200


def test_a_failed_load_ends_the_process_with_one_clear_line(short_dir: Path) -> None:
    with spawn("noop", short_dir, options={"fail_load": "no such\nweights"}) as engine:
        assert ended(engine) == (3, "inferq engine: cannot load none: RuntimeError: no such weights")


@pytest.mark.parametrize("module", ["text", "embed"])
def test_a_missing_model_ends_the_process_with_its_name(module: str, short_dir: Path) -> None:
    with spawn(module, short_dir, str(short_dir / "absent")) as engine:
        status, words = ended(engine)
    assert status == 3
    assert words.startswith(f"inferq engine: cannot load {short_dir}/absent: ")


def test_an_unknown_option_is_named(short_dir: Path) -> None:
    with spawn("noop", short_dir, options={"speed": 9}) as engine:
        assert ended(engine) == (2, "inferq engine: unknown options: speed")


def test_an_option_of_the_wrong_type_is_named(short_dir: Path) -> None:
    with spawn("noop", short_dir, options={"tokens": "many"}) as engine:
        assert ended(engine) == (2, "inferq engine: option 'tokens' must be a int")


def test_sigterm_ends_with_status_zero_and_removes_the_socket(short_dir: Path) -> None:
    with running("noop", short_dir) as engine:
        engine.process.send_signal(signal.SIGTERM)
        assert ended(engine) == (0, "")
        assert not engine.address.exists()


def test_sigterm_lets_a_running_request_finish(short_dir: Path) -> None:
    with running("noop", short_dir) as engine, engine.client() as client:
        with client.stream("POST", CHAT, json=chat("!tokens=3", stream=True)) as warm:
            warm.read()
        with engine.sent(CHAT, chat("!delay=1"), "last") as connection:
            eventually(lambda: "last" in engine.running(), "running")
            engine.process.send_signal(signal.SIGTERM)
            eventually(lambda: not engine.listens(), "closed to new callers")
            answer = connection.recv(65536)
        assert answer.startswith(b"HTTP/1.1 200")
        assert ended(engine)[0] == 0


def test_a_second_sigterm_cuts_what_still_runs(short_dir: Path) -> None:
    with running("noop", short_dir) as engine, engine.sent(CHAT, chat("!hang"), "stuck"):
        eventually(lambda: "stuck" in engine.running(), "running")
        engine.process.send_signal(signal.SIGTERM)
        eventually(lambda: not engine.listens(), "closed to new callers")
        engine.process.send_signal(signal.SIGTERM)
        engine.process.wait(timeout=5)


def test_text_stops_on_sigterm_while_it_generates(short_dir: Path, chat_model: Path) -> None:
    with running("text", short_dir, str(chat_model)) as engine:
        with engine.sent(CHAT, chat("go on", ignore_eos=True, max_tokens=100), "last") as connection:
            eventually(lambda: "last" in engine.running(), "running")
            engine.process.send_signal(signal.SIGTERM)
            assert connection.recv(65536).startswith(b"HTTP/1.1 200")
        assert ended(engine)[0] == 0


def test_a_killed_engine_is_started_again_on_its_old_socket(short_dir: Path) -> None:
    with running("noop", short_dir) as engine:
        with pytest.raises(httpx2.RemoteProtocolError):
            engine.post(CHAT, chat("!crash"))
        assert engine.process.wait(timeout=5) == -signal.SIGKILL
        assert engine.address.exists()
