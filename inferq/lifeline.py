"""The owner's side of the shim: starts a program under it, and holds the lifeline while this process lives.

It must not know what the program is.
"""

import contextlib
import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from inferq import shim


class Guarded:
    """A program that does not outlive this process, nor leave anything behind when it ends."""

    def __init__(
        self,
        argv: Sequence[str],
        *,
        grace: float,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        keep_open: Sequence[int] = (),
    ) -> None:
        """Returns when the program runs. The shim keeps the descriptors in `keep_open` till all has ended."""
        lifeline, self._lifeline = os.pipe()
        status, writer = os.pipe()
        self._shim = subprocess.Popen(
            shim.wrap(argv, lifeline_fd=lifeline, grace=grace, status_fd=writer),
            stdin=subprocess.DEVNULL,
            env=env,
            cwd=cwd,
            pass_fds=(lifeline, writer, *keep_open),
        )
        os.close(lifeline)
        os.close(writer)
        with os.fdopen(status) as lines:
            self.pid = int(lines.readline().removeprefix("pid ") or 0)

    def signal(self, number: int) -> None:
        """To the program itself; it decides what that means for its own children."""
        if self._shim.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def wait(self, timeout: float | None = None) -> int:
        """The program's exit code, when nothing of it is left. Negative when the shim itself was killed."""
        return self._shim.wait(timeout)

    def kill(self) -> None:
        """End it at once: a closed lifeline ends everything, and a second signal the shim's patience."""
        os.close(self._lifeline)
        self._shim.terminate()
