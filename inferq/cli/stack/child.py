"""One child process of the supervisor: its log, its last words, and when it may be started again."""

import os
import re
import signal
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path

from inferq.cli.stack.program import Program

_BACKOFF_SECONDS = (0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
# A child that lived this long starts again with the shortest pause.
_SETTLED_SECONDS = 60.0
_STEADY_SECONDS = 4.0
_TAIL_BYTES = 16384
_LOUD = re.compile(r"^error: |\b(ERROR|CRITICAL)\b|^[\w.]+(Error|Exception|Exit)\b")


class Child:
    def __init__(self, program: Program, *, logs: Path, env: Mapping[str, str], cwd: Path) -> None:
        self.program = program
        self.log = logs / f"{program.name}.log"
        self.deaths = 0
        self.start_at = 0.0
        self.was_missed = False
        self._env = env
        self._cwd = cwd
        self._process: subprocess.Popen[bytes] | None = None
        self._started = 0.0
        self._logged_before = 0
        if self.log.exists():
            self.log.replace(self.log.with_suffix(".log.1"))

    @property
    def name(self) -> str:
        return self.program.name

    def is_alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def is_steady(self) -> bool:
        """Alive for long enough that it did not fail at its start."""
        return self.is_alive() and time.monotonic() - self._started > _STEADY_SECONDS

    def start(self) -> None:
        with self.log.open("ab") as log:
            self._logged_before = log.tell()
            # A session of its own: what a child sends to its group must not reach its siblings.
            self._process = subprocess.Popen(
                self.program.argv,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self._env,
                cwd=self._cwd,
                start_new_session=True,
            )
        self._started = time.monotonic()

    def died(self) -> int | None:
        """Its exit code, once: the first call after its end. Also decides when it may start again."""
        if self._process is None or (code := self._process.poll()) is None:
            return None
        self._process = None
        settled = time.monotonic() - self._started > _SETTLED_SECONDS
        self.deaths = 1 if settled else self.deaths + 1
        self.start_at = time.monotonic() + self.pause
        return code

    @property
    def pause(self) -> float:
        return _BACKOFF_SECONDS[min(self.deaths, len(_BACKOFF_SECONDS)) - 1]

    @property
    def is_due(self) -> bool:
        return self._process is None and self.deaths > 0 and time.monotonic() >= self.start_at

    def signal(self, number: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(number)

    def last_words(self, count: int = 6) -> list[str]:
        """The last error lines of this run, else its last lines."""
        try:
            with self.log.open("rb") as log:
                end = log.seek(0, os.SEEK_END)
                log.seek(max(self._logged_before, end - _TAIL_BYTES))
                lines = log.read().decode(errors="replace").splitlines()
        except OSError:
            return []
        lines = [line for line in lines if line.strip()]
        loud = [line for line in lines if _LOUD.search(line)]
        return (loud or lines)[-count:]


def describe_exit(code: int) -> str:
    if code >= 0:
        return f"exit code {code}"
    try:
        return f"killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"killed by signal {-code}"
