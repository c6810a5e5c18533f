"""The supervisor's children: started, restarted with back-off, and stopped in order.

It owns the child processes. What is waited for at start belongs to `startup`; it must not speak HTTP.
"""

import signal
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from inferq import errors
from inferq.cli import exits
from inferq.cli.stack.board import Board
from inferq.cli.stack.child import Child, describe_exit
from inferq.cli.stack.program import STOP_ORDER, Program
from inferq.cli.stack.requests import StopRequests

_TICK_SECONDS = 0.2
# A child that dies this often before the stack is ready will not get better.
_DEATHS_AT_START = 3
# After so many deaths in a row there is nothing new to tell.
_DEATHS_TOLD = 6


class StopRequestedError(Exception):
    """Somebody asked the stack to stop; raised by `pump` only."""


class Supervisor:
    def __init__(
        self, board: Board, requests: StopRequests, *, logs: Path, env: Mapping[str, str], cwd: Path
    ) -> None:
        self.board = board
        self.starting = True
        self._requests = requests
        self._logs = logs
        self._env = env
        self._cwd = cwd
        self._children: dict[str, Child] = {}

    def start(self, programs: Sequence[Program]) -> None:
        for program in programs:
            child = Child(program, logs=self._logs, env=self._env, cwd=self._cwd)
            self._children[program.name] = child
            self.board.set(program.name, "starting")
            child.start()

    def run_once(self, program: Program) -> str:
        """Run a program that ends by itself; its last line is shown. Returns all it said, raises if it failed."""
        child = Child(program, logs=self._logs, env=self._env, cwd=self._cwd)
        self.board.set(program.name, "starting")
        child.start()
        try:
            while (code := child.died()) is None:
                self.pump()
                self.board.set(program.name, "starting", " ".join(child.last_words(1)))
        except StopRequestedError:
            child.signal(signal.SIGTERM)
            raise
        self.board.set(program.name, "failed" if code else "ready")
        if code:
            raise errors.ConfigError(_last_words(child, f"{program.title}: {describe_exit(code)}"))
        return child.log.read_text(encoding="utf-8", errors="replace")

    def wait_until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            self.pump()

    def pump(self) -> None:
        """One turn: a short pause, then restart what died. Raises StopRequestedError when asked to stop."""
        self._requests.pause(_TICK_SECONDS)
        if self._requests.count:
            raise StopRequestedError
        for child in self._children.values():
            code = child.died()
            if code is not None:
                self._mourn(child, code)
            if child.is_due:
                self.board.set(child.name, "starting", f"restart {child.deaths}")
                child.start()
            if child.is_steady():
                self._settled(child)

    def _settled(self, child: Child) -> None:
        if not (self.starting and child.program.speaks):
            self.board.set(child.name, "ready")
        if child.was_missed:
            child.was_missed = False
            self.board.say(f"{child.program.title} runs again", style="green")

    def _mourn(self, child: Child, code: int) -> None:
        what = f"{child.program.title} ended: {describe_exit(code)}"
        if self.starting and child.program.essential:
            if code == exits.USAGE:
                # It cannot use its configuration, and that stays as it is.
                raise errors.ConfigError(_last_words(child, what))
            if child.deaths >= _DEATHS_AT_START:
                raise errors.ConfigError(_last_words(child, f"{what}, {child.deaths} times"))
        self.board.set(child.name, "failed", describe_exit(code))
        # The same words again and again would bury everything else.
        words = f"{what}, again;" if child.deaths > 1 else _last_words(child, what) + "\n "
        child.was_missed = child.deaths <= _DEATHS_TOLD
        if child.was_missed:
            self.board.say(f"{words} starting it again in {child.pause:g} s", style="yellow")

    def stop(self) -> None:
        """In STOP_ORDER, each within its time; a further request kills what is left at once."""
        patience = self._requests.count + (0 if self._requests.count else 1)
        for name in STOP_ORDER:
            child = self._children.get(name)
            if child is None or not child.is_alive():
                continue
            began = time.monotonic()
            child.signal(signal.SIGTERM)
            while child.is_alive() and self._requests.count <= patience:
                if time.monotonic() - began > child.program.stop_seconds:
                    self.board.say(
                        f"  {child.program.title} did not stop in time and is killed", style="yellow"
                    )
                    break
                self._requests.pause(_TICK_SECONDS)
            if self._requests.count > patience:
                self._kill_all()
                return
            child.signal(signal.SIGKILL)
            self.board.say(f"  {child.program.title} stopped ({time.monotonic() - began:.1f} s)", style="dim")

    def _kill_all(self) -> None:
        """What the children started is left to the shim, which ends when nothing is left."""
        self.board.say("  killed what was left", style="yellow")
        for child in self._children.values():
            child.signal(signal.SIGKILL)


def _last_words(child: Child, what: str) -> str:
    words = "".join(f"\n  │ {line[:300]}" for line in child.last_words())
    return f"{what}{words}\n  log: {child.log}"
