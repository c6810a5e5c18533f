"""Armed places kill, stop and fail a real process at the right time; unarmed ones do nothing."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from inferq import failpoints
from inferq.testing import eventually

_PROGRAM = """
from inferq import failpoints
for turn in range(3):
    try:
        failpoints.reach("here")
    except failpoints.Reached as reached:
        print("reached", reached, flush=True)
    failpoints.reach("elsewhere")
    print("after", turn, flush=True)
"""


def start(armed: str | None) -> subprocess.Popen[str]:
    environ = {name: value for name, value in os.environ.items() if name != failpoints.VARIABLE}
    environ |= {} if armed is None else {failpoints.VARIABLE: armed}
    argv = [sys.executable, "-c", _PROGRAM]
    root = Path(failpoints.__file__).parents[1]
    return subprocess.Popen(
        argv, cwd=root, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


@pytest.mark.parametrize("armed", [None, "", "nowhere:kill"])
def test_nothing_happens_where_nothing_is_armed(armed: str | None) -> None:
    out, err = start(armed).communicate(timeout=60)
    assert (out.split(), err) == (["after", "0", "after", "1", "after", "2"], "")


def test_kill_at_the_second_time() -> None:
    with start("here:kill:2") as process:
        out, err = process.communicate(timeout=60)
    assert (out.split(), process.returncode) == (["after", "0"], -signal.SIGKILL)
    assert err == "failpoint here: kill\n"


def test_raise_goes_on_raising() -> None:
    out, _ = start("here:raise:2").communicate(timeout=60)
    assert out.count("reached here") == 2
    assert "after 2" in out


def test_stop_until_somebody_continues_it() -> None:
    with start("elsewhere:stop") as process:
        status = Path(f"/proc/{process.pid}/stat")
        eventually(lambda: status.read_text().rpartition(") ")[2].startswith("T"), "it is stopped", 60)
        process.send_signal(signal.SIGCONT)
        out, _ = process.communicate(timeout=60)
    assert out.count("after") == 3


@pytest.mark.parametrize("text", ["here", "here:explode", "here:kill:0", "here:kill:x", ":"])
def test_what_is_no_failpoint_ends_the_process_with_a_clear_error(text: str) -> None:
    with pytest.raises(ValueError, match="INFERQ_FAILPOINTS"):
        failpoints.parse(text)
