"""The end of a node: SIGTERM to its agent ends all replicas and leaves neither a process nor a lost job."""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from signal import SIGINT, SIGTERM

import psutil
import pytest

from tests.e2e.conftest import noop, sections, stack_of
from tests.e2e.stack import Stack, arguments_of
from tests.e2e.waiting import until


@pytest.fixture(scope="module")
def small() -> Iterator[Stack]:
    tree = sections() | {"models": {"one": noop(warm=True, slots=2)}}
    with tempfile.TemporaryDirectory(prefix="iq-stop-") as name, stack_of(tree, Path(name)) as stack:
        stack.until_ready("one")
        yield stack


def left_of(stack: Stack) -> list[list[str]]:
    """Replicas and engines of this stack that still run."""
    places = (str(stack.home), str(stack.settings.run_dir))
    return [
        argv
        for argv in map(arguments_of, psutil.process_iter())
        if ("--replica" in argv or "--uds" in argv) and any(place in " ".join(argv) for place in places)
    ]


def test_the_node_is_stopped_with_work(small: Stack) -> None:
    short, long = small.submit("one", "!delay=1"), small.submit("one", "!delay=60")
    until(lambda: small.engine_health("one")["running"] == 2, "the engine runs both jobs")
    small.signal("node", SIGTERM)
    assert left_of(small) == []
    assert small.ended(short)["state"] == "succeeded"
    job = small.job(long)
    assert (job["state"], job["attempt"]) == ("queued", 0)
    assert small.get("/v1/running_models").json() == []
    assert small.post(f"/v1/jobs/{long}/cancel").json()["state"] == "cancelled"


def test_a_stopped_node_without_redis_ends_too(small: Stack) -> None:
    small.start("node")
    small.until_ready("one")
    small.signal("redis")
    small.signal("node", SIGTERM)
    assert left_of(small) == []


@pytest.mark.parametrize("component", ["api", "scheduler", "watcher"])
def test_every_process_ends_in_order(small: Stack, component: str) -> None:
    small.signal(component, SIGINT)
    assert "Traceback" not in small.log(component)
