"""The process that the user started: takes the lock, starts the supervisor under the shim, and passes signals
on.

It does nothing else, so that it cannot fail: when it is gone, so is the stack.
"""

import os
import shutil
import signal
import sys
from pathlib import Path

import inferq
from inferq.cli.stack import overrides
from inferq.cli.stack.lock import HomeLock
from inferq.config import Settings
from inferq.lifeline import Guarded

# How long the stack may take to end in order when this process was killed.
_ORPHAN_GRACE_SECONDS = 5.0
_SHOW_CURSOR = "\033[?25h"


def run(settings: Settings, *, lock: HomeLock, url: str, program: str) -> int:
    """The supervisor's exit code, when nothing of the stack is left."""
    snapshot = overrides.write_snapshot(settings)
    lock.announce(url)
    guarded = Guarded(
        [sys.executable, "-m", "inferq.cli.stack", url, program],
        grace=_ORPHAN_GRACE_SECONDS,
        env=overrides.child_environment(settings, snapshot, os.environ),
        cwd=code_folder(),
        keep_open=[lock.fd],
    )
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: guarded.signal(signal.SIGTERM))
    try:
        code = guarded.wait()
    finally:
        # Sockets and lock files only, and nothing of the stack is left that could use them.
        shutil.rmtree(settings.run_dir, ignore_errors=True)
        lock.release()
        if sys.stdout.isatty():
            # A supervisor that was killed could not give the cursor back.
            print(_SHOW_CURSOR, end="", flush=True)
    return code if code >= 0 else 128 - code


def code_folder() -> Path:
    """Where the packages lie; the stack's working folder, so that a checkout runs without being installed."""
    return Path(inferq.__file__).absolute().parent.parent
