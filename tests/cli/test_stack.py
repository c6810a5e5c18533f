"""The parts of `inferq up` that need no stack: snapshot, model entries, back-off, what is shown."""

import io
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from rich.console import Console

from inferq import errors
from inferq.cli.stack import overrides, welcome
from inferq.cli.stack.board import Board
from inferq.cli.stack.child import Child, describe_exit
from inferq.cli.stack.lock import HomeLock
from inferq.cli.stack.program import Program
from inferq.cli.stack.requests import StopRequests
from inferq.cli.stack.supervisor import Supervisor
from inferq.config import Settings, load_settings

from .deadline import eventually


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "run").mkdir()
    return tmp_path


def settings_of(home: Path, text: str) -> Settings:
    (home / "given.yaml").write_text(text)
    return load_settings(home / "given.yaml", home=home, environ={})


def child_of(home: Path, program: str) -> Child:
    argv = (sys.executable, "-c", program)
    return Child(Program("it", argv, 1.0, "It"), logs=home, env=os.environ, cwd=home)


def test_snapshot_means_the_same_elsewhere(home: Path) -> None:
    text = """
        api: {port: 9100}
        queue: {redis_url: 'redis://:secret@host/0', lease: 20s}
        monitoring: {notification_channels: {email: {password: hidden}}}
        engines: {text: {python: .venv-engines/bin/python}}
        models: {m: {engine: text, source: models/m, memory: 2GiB}}
    """
    settings = settings_of(home, text)
    snapshot = overrides.write_snapshot(settings)
    again = load_settings(snapshot, home=home, environ={})
    assert again.engines["text"].python == home / ".venv-engines" / "bin" / "python"
    assert again.model_copy(update={"root": settings.root, "engines": settings.engines}) == settings
    assert (
        yaml.safe_load(snapshot.read_text())["monitoring"]["notification_channels"]["email"]["password"]
        == "hidden"
    )
    assert snapshot.stat().st_mode & 0o777 == 0o600


def test_children_do_not_see_overrides_that_the_snapshot_holds(home: Path) -> None:
    environ = {"PATH": "/bin", "INFERQ__API__PORT": "1", "INFERQ_CONFIG": "old", "INFERQ_API_KEY": "k"}
    made = overrides.child_environment(settings_of(home, ""), home / "snapshot", environ)
    assert "INFERQ__API__PORT" not in made
    assert (made["INFERQ_CONFIG"], made["INFERQ_HOME"]) == (str(home / "snapshot"), str(home))


def test_model_of_ones_own_is_named_after_its_folder(home: Path) -> None:
    (home / "My Model").mkdir()
    entry = overrides.model_entry(settings_of(home, ""), str(home / "My Model"))
    assert entry["My-Model"]["source"] == str(home / "My Model")
    hub = overrides.model_entry(settings_of(home, ""), "Qwen/Qwen3-0.6B")
    assert hub["Qwen3-0.6B"]["source"] == "Qwen/Qwen3-0.6B"


def test_model_that_cannot_be_added_is_refused(home: Path) -> None:
    settings = settings_of(home, "models: {m: {engine: text, source: x}}")
    with pytest.raises(errors.ConfigError, match="no folder /nowhere/model"):
        overrides.model_entry(settings, "/nowhere/model")
    with pytest.raises(errors.ConfigError, match="has a model m already"):
        overrides.model_entry(settings, "someone/m")
    with pytest.raises(errors.ConfigError, match="run scripts/install-vllm"):
        overrides.vllm_entry(settings)


def test_pauses_grow_and_last_words_are_of_the_last_run(home: Path) -> None:
    counter = "import pathlib; p = pathlib.Path('count'); n = len(p.read_text()) if p.exists() else 0; "
    child = child_of(home, counter + "p.write_text('x' * (n + 1)); raise SystemExit(f'error: run {n}')")
    pauses = []
    for _ in range(3):
        child.start()
        assert eventually(child.died) == 1
        pauses.append(child.pause)
    assert pauses == sorted(set(pauses))
    assert child.last_words() == ["error: run 2"]
    assert not child.is_due


@pytest.fixture
def requests() -> Iterator[StopRequests]:
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD)}
    yield StopRequests()
    signal.set_wakeup_fd(-1)
    for number, handler in before.items():
        signal.signal(number, handler)


def test_what_cannot_use_its_configuration_is_not_started_again(home: Path, requests: StopRequests) -> None:
    board = Board(Console(file=io.StringIO()))
    supervisor = Supervisor(board, requests, logs=home, env=os.environ, cwd=home)
    argv = (sys.executable, "-c", "import sys; print('error: no hook', file=sys.stderr); sys.exit(2)")
    supervisor.start([Program("it", argv, 1.0, "It")])
    with pytest.raises(errors.ConfigError, match=r"It ended: exit code 2\n  │ error: no hook"):
        supervisor.wait_until(lambda: False)
    assert (home / "it.log").read_text() == "error: no hook\n"


def test_last_words_prefer_errors(home: Path) -> None:
    noise = "[print('noise', file=sys.stderr) for _ in range(9)]"
    child = child_of(home, f"import sys; print('2026 ERROR b', file=sys.stderr); {noise}; int('x')")
    child.start()
    eventually(child.died)
    assert child.last_words() == ["2026 ERROR b", "ValueError: invalid literal for int() with base 10: 'x'"]


def test_old_log_is_kept(home: Path) -> None:
    (home / "it.log").write_text("the last stack")
    child_of(home, "pass")
    assert (home / "it.log.1").read_text() == "the last stack"


@pytest.mark.parametrize(
    ("code", "text"), [(3, "exit code 3"), (-9, "killed by SIGKILL"), (-64, "killed by SIGRTMAX")]
)
def test_exit_is_told_in_words(code: int, text: str) -> None:
    assert describe_exit(code) == text


def test_plain_board_tells_each_change_once(home: Path) -> None:
    console = Console(file=io.StringIO(), width=80)
    board = Board(console)
    board.open()
    board.expect("api", "API")
    for state in ("starting", "starting", "ready", "ready"):
        board.set("api", state, "0.1 s")
    board.close()
    board.set("api", "failed")
    assert console.file.getvalue() == "API: starting (0.1 s)\nAPI: ready (0.1 s)\n"  # type: ignore[attr-defined]


def test_board_outlives_its_terminal() -> None:
    class Gone(io.StringIO):
        def write(self, text: str) -> int:
            raise OSError(5, "Input/output error")

    board = Board(Console(file=Gone()))
    board.say("one")
    board.say("two")


def test_lock_is_exclusive_and_names_its_holder(home: Path) -> None:
    first = HomeLock(home)
    first.take()
    first.announce("http://127.0.0.1:9100")
    second = HomeLock(home)
    with pytest.raises(errors.Conflict, match=f"process {os.getpid()}, http://127.0.0.1:9100"):
        second.take()
    assert (home / "run" / "url").read_text() == "http://127.0.0.1:9100\n"
    first.release()
    second.take()
    second.release()
    assert not (home / "run" / "url").exists()


def test_welcome_fits_a_terminal_and_quotes_the_home(tmp_path: Path) -> None:
    home = tmp_path / "it's a home"
    home.mkdir()
    settings = settings_of(home, "models: {demo-chat: {engine: text, source: models/demo-chat}}")
    console = Console(file=io.StringIO(), width=80)
    shown_by = {
        "url": "http://h:1",
        "program": "inferq",
        "seconds": 1.0,
        "prompts": ["Say hello."],
        "failed": [],
    }
    console.print(welcome.render(settings, **shown_by), soft_wrap=True)  # type: ignore[arg-type]
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    assert '"content": "Say hello."' in shown
    assert "it'\"'\"'s a home" in shown
