"""Several processes on one database, as api, watcher and scheduler are."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from inferq.job import JobState
from storage import revision
from storage.keys import KeyStore, Role
from storage.ledger import Ledger
from tests.storage import peer


def together(work: str, url: str, home: Path, count: int = 2) -> list[dict]:
    """Run `peer.work` in processes that begin at the same moment; what each of them answers."""
    command = [sys.executable, "-W", "error", "-m", "tests.storage.peer", work, url, str(home)]
    pipe = subprocess.PIPE
    peers = [subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) for _ in range(count)]
    try:
        for each in peers:
            assert each.stdout.readline() == "ready\n"
        for each in peers:
            each.stdin.write("\n")
            each.stdin.flush()
        answers = [each.communicate()[0] for each in peers]
        assert [each.returncode for each in peers] == [0] * count
        return [json.loads(answer) for answer in answers]
    finally:
        for each in peers:
            each.kill()
            each.communicate()


async def test_bursts_from_three_processes_all_commit(ledger: Ledger, url: str, home: Path):
    answers = together("burst", url, home, 3)
    assert await ledger.counts() == {
        ("demo", JobState.QUEUED): 3 * 4 * peer.ROUNDS,
        ("demo", JobState.SUCCEEDED): 3 * peer.ROUNDS,
    }
    assert max(answer["slowest"] for answer in answers) < 5.0


async def test_two_recorders_never_record_one_position_twice(ledger: Ledger, url: str, home: Path):
    answers = together("compete", url, home)
    assert sum(answer["won"] for answer in answers) == peer.ROUNDS
    assert await ledger.counts() == {("demo", JobState.SUCCEEDED): peer.ROUNDS}


async def test_the_bound_holds_for_two_processes_together(url: str, home: Path):
    answers = together("bounded", url, home)
    assert sum(answer["accepted"] for answer in answers) == 20


async def test_two_processes_make_one_admin_key(keys: KeyStore, url: str, home: Path):
    answers = together("admin", url, home)
    (made,) = [answer["made"] for answer in answers if answer["made"]]
    assert (home / "admin.key").read_text().strip() == made
    assert [key.role for key in await keys.list()] == [Role.ADMIN]


async def test_two_processes_upgrade_one_database(empty_url: str, home: Path):
    together("upgrade", empty_url, home)
    await revision.check(empty_url, home)


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
async def test_a_writer_killed_in_the_middle_leaves_the_database_usable(ledger: Ledger, url: str, home: Path):
    command = [sys.executable, "-m", "tests.storage.peer", "burst", url, str(home)]
    with subprocess.Popen(  # noqa: ASYNC220 - nothing else runs on this loop
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as writer:
        writer.stdin.write("\n")
        writer.stdin.flush()
        while not await ledger.counts():
            assert writer.poll() is None
        writer.kill()
    assert await ledger.record([], stream="s", old="0-0", new="1-0")
