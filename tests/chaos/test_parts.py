"""The suite's own parts do what they say: the broken network, the look into Redis, the plan."""

import itertools
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
import redis.exceptions

from inferq import webhooks
from inferq.testing import eventually
from tests.chaos import ground, proxy, truth
from tests.chaos.catalogue import FAULTS
from tests.chaos.clocks import Clocks, find_library
from tests.chaos.leaks import Held, leaked
from tests.chaos.mailbox import SECRET, is_signed
from tests.chaos.nemesis import plan
from tests.chaos.sentinels import Sentinels

ORDER = "inferq:order:m"


class Network:
    """The proxy as a process, with one link."""

    def __init__(self, target: str, folder: Path) -> None:
        self.control = folder / "control"
        argv = [sys.executable, proxy.__file__, target, str(self.control), "api"]
        self.process = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)
        eventually(self.control.exists, "the network is there", 60)
        assert self.process.stdout
        self.port = int(self.process.stdout.readline())

    def set(self, mode: str) -> None:
        proxy.order(self.control, "api", mode)

    def client(self) -> "redis.Redis":
        return redis.Redis(port=self.port, socket_timeout=1, retry=None)


@pytest.fixture
def network(redis_url: str, short_dir: Path) -> Iterator[Network]:
    made = Network(redis_url.removeprefix("unix://"), short_dir)
    yield made
    made.process.kill()
    made.process.communicate()


def test_a_black_hole_delivers_late(network: Network, redis_url: str) -> None:
    with network.client() as client, redis.Redis.from_url(redis_url) as direct:
        assert client.incr("n") == 1
        network.set("blackhole")
        with pytest.raises(redis.exceptions.TimeoutError):
            client.incr("n")
        assert direct.get("n") == b"1"
        network.set("pass")
        eventually(lambda: direct.get("n") == b"2", "what was sent arrives", 60)
        assert client.incr("n") == 3


@pytest.mark.parametrize("mode", ["deaf", "cut"])
def test_the_request_is_carried_out_and_its_answer_is_lost(
    network: Network, redis_url: str, mode: str
) -> None:
    with network.client() as client, redis.Redis.from_url(redis_url) as direct:
        assert client.incr("n") == 1
        network.set(mode)
        with pytest.raises((redis.exceptions.TimeoutError, redis.exceptions.ConnectionError)):
            client.incr("n")
        assert direct.get("n") == b"2"
        network.set("pass")
        assert client.incr("n") == 3


@pytest.fixture
def client(redis_url: str) -> Iterator["redis.Redis"]:
    """A Redis with one job that waits and one that runs."""
    with redis.Redis.from_url(redis_url) as made:
        made.sadd("inferq:models", "m")
        made.zadd("inferq:ready:m:t:h", {"one": 1})
        made.zadd("inferq:tenants:m", {"t": 1})
        made.hset(
            ORDER, mapping={"jobs": 1, "n:high": 1, "q:t": 1, "bytes": 5, "run": 1, "rl:low": 1, "rt:u": 1}
        )
        made.hset("inferq:job:one", mapping={"state": "queued", "model": "m", "lane": "high", "tenant": "t"})
        made.hset("inferq:job:two", mapping={"state": "running", "model": "m", "lane": "low", "tenant": "u"})
        made.zadd("inferq:leases", {"two": 9e9})
        yield made


def test_what_fits_together(client: "redis.Redis") -> None:
    found = truth.look(client)
    assert found.wrong == []
    assert found.waiting == {"m": {"high": 1, "medium": 0, "low": 0}}
    assert (sorted(found.live), found.is_idle) == (["one", "two"], False)


def test_an_empty_redis_is_idle(redis_url: str) -> None:
    with redis.Redis.from_url(redis_url) as client:
        assert truth.look(client).is_idle


@pytest.mark.parametrize(
    ("command", "wrong"),
    [
        (("HSET", ORDER, "n:high", "2"), "n:high says 2"),
        (("HSET", ORDER, "jobs", "0"), "jobs says 0"),
        (("HSET", ORDER, "q:t", "2"), "q:t says 2"),
        (("HSET", ORDER, "run", "2"), "run says 2, and it is 1"),
        (("HINCRBY", ORDER, "rt:t", "1"), "rt:t says 1, and it is 0"),
        (("DEL", "inferq:leases"), "two is running and not in the leases"),
        (("HSET", "inferq:job:two", "state", "succeeded"), "two is succeeded and stands in the leases"),
        (("HSET", "inferq:job:two", "state", "scheduled"), "two is scheduled and not in the jobs for later"),
        (("HSET", "inferq:job:one", "state", "cancelled"), "one is cancelled and stands in a ready set"),
        (("HSET", "inferq:job:three", "state", "queued"), "three is queued and not in a ready set"),
        (("DEL", "inferq:job:one"), "one is gone and stands in a ready set"),
        (("ZADD", "inferq:tenants:m", "2", "u"), "u have a turn and no jobs"),
    ],
)
def test_what_does_not(client: "redis.Redis", command: tuple[str, ...], wrong: str) -> None:
    client.execute_command(*command)
    assert any(wrong in text for text in truth.look(client).wrong)


def test_keys_that_stay_for_ever(client: "redis.Redis") -> None:
    client.set("inferq:tomb:x", "1", ex=60)
    client.delete("inferq:job:two")
    client.expire("inferq:job:one", 60)
    assert truth.without_end(client) == []
    client.persist("inferq:tomb:x")
    assert truth.without_end(client) == ["inferq:tomb:x"]


def test_a_seed_always_says_the_same() -> None:
    names = list(FAULTS)
    assert plan("7", names, 30) == plan("7", names, 30)
    assert plan("7", names, 30) != plan("8", names, 30)
    told = [name for step in plan("7", names, len(names)) for name in step.names]
    assert set(told) == set(names)


class Programs:
    """Starts what a site would start, and ends it."""

    def __init__(self) -> None:
        self.started: list[subprocess.Popen[bytes]] = []

    def launch(self, argv: list[str], _: str) -> int:
        self.started.append(subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
        return self.started[-1].pid

    def end(self) -> None:
        for process in self.started:
            process.kill()
            process.wait()


@pytest.fixture
def programs() -> Iterator[Programs]:
    made = Programs()
    yield made
    made.end()


def test_a_primary_that_dies_has_a_successor(programs: Programs, tmp_path: Path) -> None:
    sentinels = Sentinels(tmp_path / "redis", programs.launch)
    sentinels.start()
    first = sentinels.primary()
    with sentinels.client() as client:
        client.set("a", "1")
        client.wait(1, 10_000)
    programs.started[sentinels.servers.index(first)].kill()
    eventually(lambda: sentinels.primary() not in (0, first), "the copy is the primary", 60)
    assert not sentinels.is_whole()
    sentinels.start_one(first)
    eventually(sentinels.is_whole, "the old primary is the copy", 60)
    with sentinels.client() as client:
        assert client.get("a") == b"1"


_CLOCK = """
import sys, time
for line in sys.stdin:
    print(time.time(), time.monotonic(), flush=True)
"""


@pytest.fixture
def library() -> Path:
    found = find_library()
    if found is None:
        assert os.environ.get("CI") != "true", "libfaketime must be there in CI"
        pytest.skip("libfaketime is not installed")
    return found


def test_the_time_of_day_of_one_process_jumps(library: Path, tmp_path: Path) -> None:
    clocks = Clocks(tmp_path / "clocks", library)
    argv = ["env", *clocks.variables("one"), sys.executable, "-c", _CLOCK]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin and process.stdout
        stdin, stdout = process.stdin, process.stdout

        def ahead() -> tuple[float, float]:
            stdin.write("\n")
            stdin.flush()
            day, steady = map(float, stdout.readline().split())
            return day - time.time(), steady - time.monotonic()

        assert max(map(abs, ahead())) < 5
        clocks.set("one", -1000)
        eventually(lambda: ahead()[0] < -995, "its clock is behind", 60)
        assert abs(ahead()[1]) < 5
        clocks.set("one", 0)
        eventually(lambda: abs(ahead()[0]) < 5, "its clock is right again", 60)
        stdin.close()


def test_a_signature_is_known() -> None:
    body, moment = b"{}", 1_795_310_403
    headers = webhooks.headers(SECRET, "w", moment, body)
    assert is_signed(headers, body)
    assert not is_signed(headers, b"{ }")
    assert not is_signed(headers | {"webhook-id": "x"}, body)


def test_what_was_not_given_back() -> None:
    first = {"api": Held(5, 5, 20)}
    assert leaked(first, {"api": Held(20, 10, 22), "later": Held(1, 1, 90)}) == []
    assert len(leaked(first, {"api": Held(5, 5, 40)})) == 1
    assert len(leaked(first, {"api": Held(90, 90, 20)})) == 2


def test_a_seed_stands_on_the_same_ground_each_time_and_twenty_seeds_on_all() -> None:
    seen = [ground.drawn(str(seed), ()) for seed in range(1, 21)]
    assert seen == [ground.drawn(str(seed), ()) for seed in range(1, 21)]
    assert set(seen) == set(itertools.product(("embedded", "sentinel"), ("sqlite", "postgresql")))
    assert {database for _, database in (ground.drawn(str(s), {"postgresql"}) for s in range(1, 21))} == {
        "sqlite"
    }
