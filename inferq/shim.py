"""The shim: runs one program and sees to it that nothing of it is left when its owner or the program is gone.

Started by file path (``python -I -S inferq/shim.py --lifeline-fd N [--status-fd M] [--grace S] [--nice N] -- argv...``)
and so limited to the standard library. It holds the read end of a pipe whose write end is in its owner:
however the owner ends, the kernel closes the pipe. A parent-death signal alone would miss the grandchildren.
It must know nothing of what it runs.

1. The pipe closes, or SIGTERM or SIGINT arrives: every descendant gets SIGTERM, after `grace` seconds
   SIGKILL. A second signal shortens the grace to nothing.
2. The program ends: what it left behind goes the same way, within `LEFTOVER_GRACE`.

It exits with the program's code, 128 + n when signal n ended it, and writes ``pid N`` and ``exit CODE`` to
the status descriptor. Descendants are found by walking /proc from the shim, which is their subreaper:
daemonised ones are its children. Without /proc (macOS) it signals the program's process group instead.
"""

import ctypes
import os
import select
import signal
import sys
import time
from collections.abc import Sequence

LEFTOVER_GRACE = 2.0
_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_LINUX = sys.platform.startswith("linux")
_STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)
_POLL_SECONDS = 0.05
_AUTOGROUP_TRIES = 10


def wrap(
    argv: Sequence[str],
    *,
    lifeline_fd: int,
    grace: float = 10.0,
    status_fd: int | None = None,
    nice: int = 0,
) -> list[str]:
    """The command line that runs `argv` under a shim, the program itself `nice` steps below normal priority.

    Start it with both descriptors in `pass_fds` and close your copies of them. Your own end of the lifeline
    must not be inherited by anything else: the shim acts when the last copy is closed.
    """
    status = [] if status_fd is None else ["--status-fd", str(status_fd)]
    options = ["--lifeline-fd", str(lifeline_fd), *status, "--grace", str(grace), "--nice", str(nice)]
    return [sys.executable, "-I", "-S", os.path.abspath(__file__), *options, "--", *argv]


class Shim:
    """One program and all that it starts, until none of it is left."""

    def __init__(
        self, argv: Sequence[str], *, lifeline: int, status: int | None, grace: float, nice: int
    ) -> None:
        self._argv = list(argv)
        self._lifeline = lifeline
        self._status = status
        self._grace = grace
        self._nice = nice
        self._stops = 0
        self._child = 0
        self._code: int | None = None
        self._wakeup, writer = os.pipe()
        for end in (self._wakeup, writer):
            os.set_blocking(end, False)
        signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        self._poll = select.poll()
        for source in (self._wakeup, lifeline):
            self._poll.register(source, select.POLLIN)

    def run(self) -> int:
        _own_session()
        _become_subreaper()
        for number in (signal.SIGCHLD, *_STOP_SIGNALS):
            signal.signal(number, _noted)
        self._child = self._spawn()
        self._tell(f"pid {self._child}")
        while self._code is None and not self._stops:
            self._wait(None)
        self._end(LEFTOVER_GRACE if self._code is not None else self._grace)
        code = self._code if self._code is not None else 128 + signal.SIGKILL
        self._tell(f"exit {code}")
        return code

    def _spawn(self) -> int:
        pid = os.fork()
        if pid:
            return pid
        try:
            for number in (signal.SIGCHLD, signal.SIGPIPE, *_STOP_SIGNALS):
                signal.signal(number, signal.SIG_DFL)
            os.setsid()
            _step_back(self._nice)
            # The shim itself may be killed: then nobody is left to walk the tree, but the program is told.
            _prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
            os.execvp(self._argv[0], self._argv)  # noqa: S606
        except OSError as error:
            os.write(2, f"cannot run {self._argv[0]}: {error.strerror}\n".encode())
        os._exit(127)

    def _wait(self, seconds: float | None) -> None:
        """Sleep until a signal, the end of the lifeline, or the time-out; then take note of what happened."""
        ready = dict(self._poll.poll(None if seconds is None else seconds * 1000))
        if self._wakeup in ready:
            self._stops += sum(number in _STOP_SIGNALS for number in os.read(self._wakeup, 4096))
        if self._lifeline in ready and not _has_data(self._lifeline):
            self._stops += 1
            # It would stay ready for ever, and it has nothing more to say.
            self._poll.unregister(self._lifeline)
        self._reap()

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if pid == self._child:
                code = os.waitstatus_to_exitcode(status)
                self._code = code if code >= 0 else 128 - code

    def _end(self, grace: float) -> None:
        """Ask each descendant once, insist after the grace, and return when none is left."""
        deadline = time.monotonic() + grace
        asked: set[int] = set()
        patience = max(self._stops, 1)
        while alive := self._alive():
            late = time.monotonic() >= deadline or self._stops > patience
            for pid in alive if late else alive - asked:
                _send(pid, signal.SIGKILL if late else signal.SIGTERM)
            asked |= alive
            self._wait(_POLL_SECONDS)

    def _alive(self) -> set[int]:
        self._reap()
        if _LINUX:
            return descendants(os.getpid())
        return {-self._child} if _send(-self._child, 0) else set()

    def _tell(self, line: str) -> None:
        if self._status is None:
            return
        try:
            os.write(self._status, f"{line}\n".encode())
        except OSError:
            self._status = None


def descendants(root: int) -> set[int]:
    """The living processes below `root`; zombies hold nothing, so they are not counted."""
    children: dict[int, list[int]] = {}
    zombies: set[int] = set()
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        try:
            with open(f"/proc/{name}/stat", "rb") as file:
                # The program's name may hold spaces and brackets; the last bracket ends it.
                state, parent = file.read().rpartition(b")")[2].split()[:2]
        except OSError:
            continue
        children.setdefault(int(parent), []).append(int(name))
        if state in (b"Z", b"X"):
            zombies.add(int(name))
    found: set[int] = set()
    wanted = [root]
    while wanted:
        below = children.get(wanted.pop(), [])
        found.update(below)
        wanted.extend(below)
    return found - zombies


def _has_data(fd: int) -> bool:
    try:
        return bool(os.read(fd, 4096))
    except OSError:
        return False


def _send(pid: int, number: int) -> bool:
    """False when there is nobody to signal. A process that may not be signalled (setuid) counts as nobody."""
    try:
        os.kill(pid, number)
    except (ProcessLookupError, PermissionError):
        return False
    return True


def _noted(number: int, frame: object) -> None:
    """The wake-up pipe carries the number; a handler must exist for it to be written."""


def _own_session() -> None:
    try:
        os.setsid()
    except PermissionError:
        return  # already the leader of a process group


def _step_back(steps: int) -> None:
    """Lower this process's priority. Linux weighs sessions first where autogroups are on, and only then processes."""
    if not steps:
        return
    os.nice(steps)
    for _ in range(_AUTOGROUP_TRIES):
        try:
            with open("/proc/self/autogroup", "w") as file:
                file.write(str(steps))
        except BlockingIOError:
            time.sleep(0.1)  # the kernel takes ten of these a second from all ordinary users together
        except OSError:
            return  # no autogroups here
        else:
            return


def _become_subreaper() -> None:
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def _prctl(option: int, value: int) -> None:
    if _LINUX:
        ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


def main(arguments: Sequence[str]) -> int:
    options = {"--lifeline-fd": "", "--status-fd": "", "--grace": "10", "--nice": "0"}
    rest = list(arguments)
    while len(rest) > 1 and rest[0] in options:
        options[rest[0]] = rest[1]
        del rest[:2]
    if not options["--lifeline-fd"] or rest[:1] != ["--"] or len(rest) == 1:
        os.write(
            2,
            b"usage: shim.py --lifeline-fd N [--status-fd M] [--grace S] [--nice N] -- PROGRAM [ARGUMENT...]\n",
        )
        return 2
    status = int(options["--status-fd"]) if options["--status-fd"] else None
    lifeline = int(options["--lifeline-fd"])
    for fd in (lifeline, status):
        if fd is not None:
            # Inherited from the owner; what the program starts must not keep them open.
            os.set_inheritable(fd, False)
    grace, nice = float(options["--grace"]), int(options["--nice"])
    return Shim(rest[1:], lifeline=lifeline, status=status, grace=grace, nice=nice).run()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
