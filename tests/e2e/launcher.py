"""Starts the programs of one stack, as it is told on standard input. Runs under the shim, so that nothing outlives it.

A line ``{"argv": [...], "log": path}`` is answered by the program's process id. When standard input ends, so does this.
"""

import json
import os
import subprocess
import sys
import threading
from pathlib import Path


def reap() -> None:
    """Collect what has ended, so that a process that is gone looks gone. Forever; there is always a child."""
    while True:
        os.wait()


def start(order: dict[str, object]) -> int:
    with Path(str(order["log"])).open("ab") as output:
        argv = order["argv"]
        assert isinstance(argv, list)
        return subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=output, stderr=output).pid


def main() -> None:
    # A child that never ends, so that waiting for any child blocks instead of failing.
    subprocess.Popen(["sleep", "infinity"])
    threading.Thread(target=reap, daemon=True).start()
    for line in sys.stdin:
        print(start(json.loads(line)), flush=True)


if __name__ == "__main__":
    main()
