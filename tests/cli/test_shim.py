"""The shim with real processes: whatever ends its owner or its program, nothing is left."""

import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from inferq import shim

from .deadline import eventually

# A child, a grandchild, and a daemon that detached by double fork and setsid; each writes its pid.
FAMILY = """
import os, signal, sys, time
def note(name):
    new = f"{sys.argv[1]}/{name}.{os.getpid()}"  # all three may note that they were asked
    with open(new, "w") as file:
        file.write(str(os.getpid()))
    os.rename(new, f"{sys.argv[1]}/{name}")
if "stubborn" in sys.argv:
    signal.signal(signal.SIGTERM, lambda number, frame: note("asked"))
if os.fork() == 0:
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            note("daemon")
            time.sleep(600)
        os._exit(0)
    note("grandchild")
    time.sleep(600)
note("child")
while not all(os.path.exists(f"{sys.argv[1]}/{name}") for name in ("daemon", "grandchild")):
    time.sleep(0.01)
if "leave" in sys.argv:
    os._exit(7)
time.sleep(600)
"""

# An owner that starts the shim with its own end of the lifeline open, and waits to be killed.
OWNER = """
import os, subprocess, sys
sys.path.insert(0, sys.argv[1])
from inferq import shim
lifeline, mine = os.pipe()
subprocess.Popen(shim.wrap(sys.argv[3:], lifeline_fd=lifeline, grace=float(sys.argv[2])), pass_fds=[lifeline])
os.close(lifeline)
print("started", flush=True)
sys.stdin.read()
"""
ROOT = Path(shim.__file__).parent.parent


@pytest.fixture
def pids(tmp_path: Path) -> Iterator[Callable[[], dict[str, int]]]:
    """The family's pids, once all are there; whoever is left is killed after the test."""

    def read() -> dict[str, int]:
        names = ("child", "grandchild", "daemon")
        eventually(lambda: all((tmp_path / name).exists() for name in names), what="the family's pids")
        return {name: int((tmp_path / name).read_text()) for name in names}

    yield read
    for name in ("child", "grandchild", "daemon"):
        if (tmp_path / name).exists() and psutil.pid_exists(int((tmp_path / name).read_text())):
            os.kill(int((tmp_path / name).read_text()), signal.SIGKILL)


class Run:
    """A program under the shim, this test being the owner."""

    def __init__(self, *argv: str, grace: float = 5.0) -> None:
        lifeline, self.lifeline = os.pipe()
        self.status, status = os.pipe()
        command = shim.wrap(argv, lifeline_fd=lifeline, status_fd=status, grace=grace)
        self.process = subprocess.Popen(command, pass_fds=[lifeline, status], stderr=subprocess.PIPE)
        os.close(lifeline)
        os.close(status)

    def end(self) -> tuple[int, str]:
        """Exit code and status lines."""
        with self.process:
            code = self.process.wait(20)
            assert self.process.stderr is not None
            self.errors = self.process.stderr.read().decode()
        with os.fdopen(self.status) as lines:
            told = lines.read()
        if self.lifeline >= 0:
            os.close(self.lifeline)
        return code, told

    def cut(self) -> None:
        os.close(self.lifeline)
        self.lifeline = -1


def family(folder: Path, *words: str) -> list[str]:
    return [sys.executable, "-c", FAMILY, str(folder), *words]


def all_gone(pids: dict[str, int]) -> bool:
    return not any(psutil.pid_exists(pid) and not _is_zombie(pid) for pid in pids.values())


def _is_zombie(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def test_kill_of_owner_ends_children_grandchildren_and_daemons(tmp_path: Path, pids) -> None:
    command = [sys.executable, "-c", OWNER, str(ROOT), "5", *family(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL) as owner:
        alive = pids()
        assert not all_gone(alive)
        owner.send_signal(signal.SIGKILL)
    eventually(lambda: all_gone(alive), what=f"the end of {alive}")


def test_closed_lifeline_kills_what_ignores_the_request(tmp_path: Path, pids) -> None:
    run = Run(*family(tmp_path, "stubborn"), grace=0.3)
    alive = pids()
    run.cut()
    code, told = run.end()
    assert all_gone(alive)
    assert code == 128 + signal.SIGKILL
    assert told == f"pid {alive['child']}\nexit 137\n"


def test_grace_is_given_before_the_kill(tmp_path: Path) -> None:
    last_words = tmp_path / "last-words"
    program = textwrap.dedent(f"""
        import signal, sys, time
        def stop(number, frame):
            time.sleep(0.4)
            open({str(last_words)!r}, "w").write("saved")
            sys.exit(5)
        signal.signal(signal.SIGTERM, stop)
        open({str(tmp_path / "up")!r}, "w").close()
        signal.pause()
    """)
    run = Run(sys.executable, "-c", program, grace=10)
    eventually((tmp_path / "up").exists, what="the program's start")
    run.process.send_signal(signal.SIGTERM)
    code, _ = run.end()
    assert last_words.read_text() == "saved"
    assert code == 5


def test_second_signal_does_not_wait_for_the_grace(tmp_path: Path, pids) -> None:
    run = Run(*family(tmp_path, "stubborn"), grace=600)
    alive = pids()
    run.process.send_signal(signal.SIGTERM)
    eventually((tmp_path / "asked").exists, what="the first request")
    run.process.send_signal(signal.SIGTERM)
    run.end()
    assert all_gone(alive)


def test_leftovers_of_a_program_that_ended_are_ended_too(tmp_path: Path, pids) -> None:
    run = Run(*family(tmp_path, "leave"), grace=600)
    code, told = run.end()
    alive = pids()
    assert all_gone(alive)
    assert code == 7
    assert told == f"pid {alive['child']}\nexit 7\n"


@pytest.mark.parametrize(
    ("program", "code"),
    [
        ("import sys; sys.exit(0)", 0),
        ("import sys; sys.exit(42)", 42),
        ("import os; os.kill(os.getpid(), 9)", 137),
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", 139),
    ],
    ids=["success", "failure", "killed", "crashed"],
)
def test_exit_code_is_the_programs(program: str, code: int) -> None:
    assert Run(sys.executable, "-c", program).end()[0] == code


def test_missing_program_is_named_and_exits_127() -> None:
    run = Run("/nowhere/engine")
    assert run.end()[0] == 127
    assert "cannot run /nowhere/engine: No such file or directory" in run.errors


def test_kill_of_the_shim_itself_tells_the_program(tmp_path: Path, pids) -> None:
    run = Run(*family(tmp_path))
    alive = pids()
    run.process.kill()
    run.process.wait()
    eventually(lambda: all_gone({"child": alive["child"]}), what="the program's end")
    assert run.process.stderr is not None
    run.process.stderr.close()
    os.close(run.status)
    run.cut()


def test_program_inherits_neither_descriptors_nor_ignored_signals() -> None:
    lifeline, mine = os.pipe()
    command = shim.wrap(
        ["/bin/sh", "-c", "ls /proc/self/fd; grep SigIgn /proc/self/status"], lifeline_fd=lifeline
    )
    done = subprocess.run(
        command, pass_fds=[lifeline], capture_output=True, text=True, check=True, timeout=20
    )
    os.close(lifeline)
    os.close(mine)
    # 3 is the descriptor with which `ls` reads the folder.
    assert done.stdout.split()[:4] == ["0", "1", "2", "3"]
    assert not int(done.stdout.split()[-1], 16) & 1 << (signal.SIGPIPE - 1)


def run_plainly(command: list[str], lifeline: int) -> list[str]:
    done = subprocess.run(
        command, pass_fds=[lifeline], capture_output=True, text=True, check=True, timeout=20
    )
    return done.stdout.splitlines()


def test_program_steps_back_when_told() -> None:
    """Its session too: with autogroups on, Linux shares the processor among sessions and looks at nice only inside."""
    lifeline, mine = os.pipe()
    show = ["/bin/sh", "-c", "nice; cat /proc/self/autogroup 2>/dev/null || true"]
    before, *_ = run_plainly(show, lifeline)
    nice, *group = run_plainly(shim.wrap(show, lifeline_fd=lifeline, nice=7), lifeline)
    assert int(nice) == min(int(before) + 7, 19)
    assert not group or group[0].endswith("nice 7")
    os.close(lifeline)
    os.close(mine)


def test_wrong_arguments_are_a_usage_error() -> None:
    command = [sys.executable, str(Path(shim.__file__)), "--", "true"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("usage: shim.py")
