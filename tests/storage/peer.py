"""A second process for the tests: says `ready`, waits for a line, does one thing, prints JSON."""

import asyncio
import json
import sys
import time
from pathlib import Path
from typing import Any

from inferq import errors
from storage import migrate
from storage.artifacts import ArtifactStore
from storage.keys import KeyStore
from storage.ledger import Ledger
from tests.storage.builders import event, spec

ROUNDS = 40


async def burst(url: str, home: Path) -> dict[str, Any]:
    """Write as api, watcher and scheduler do, all at once."""
    ledger = await Ledger.open(url, home)
    begin()
    slowest, name = 0.0, spec().id
    for position in range(ROUNDS):
        started = time.monotonic()
        asked = [spec() for _ in range(4)]
        accepting = [ledger.accept(each, bound=100_000) for each in asked]
        recording = ledger.record([event(spec())], stream=name, old=f"{position}-0", new=f"{position + 1}-0")
        done = await asyncio.gather(*accepting, recording, ledger.list_jobs())
        assert all(done)
        await ledger.mark_queued(each.id for each in asked)
        slowest = max(slowest, time.monotonic() - started)
    await ledger.close()
    return {"slowest": slowest}


async def compete(url: str, home: Path) -> dict[str, Any]:
    """Record one stream against another recorder; only one of them may move it past each position."""
    ledger = await Ledger.open(url, home)
    begin()
    won = 0
    while (position := int((await ledger.offset("s")).split("-")[0])) < ROUNDS:
        won += await ledger.record([event(spec())], stream="s", old=f"{position}-0", new=f"{position + 1}-0")
    await ledger.close()
    return {"won": won}


async def bounded(url: str, home: Path) -> dict[str, Any]:
    """Accept up to a bound that another process fills too."""
    ledger = await Ledger.open(url, home)
    begin()
    results = await asyncio.gather(
        *(ledger.accept(spec(), bound=20) for _ in range(20)), return_exceptions=True
    )
    await ledger.close()
    assert all(result is True or isinstance(result, errors.QueueFull) for result in results), results
    return {"accepted": results.count(True)}


async def admin(url: str, home: Path) -> dict[str, Any]:
    ledger = await Ledger.open(url, home)
    begin()
    made = await KeyStore(ledger.database).ensure_admin(home / "admin.key")
    await ledger.close()
    return {"made": made}


async def upgrade(url: str, home: Path) -> dict[str, Any]:
    begin()
    await migrate.upgrade(url, home)
    return {}


async def endless(url: str, home: Path) -> dict[str, Any]:
    """Write an artifact that never ends; whoever started this kills it."""
    store = await ArtifactStore.open("artifacts", home)

    async def chunks():
        begin()
        while True:
            yield b"x" * 4096
            print("chunk", flush=True)

    await store.put(chunks(), "text/plain")
    return {}


def begin() -> None:
    print("ready", flush=True)
    sys.stdin.readline()


if __name__ == "__main__":
    work, address, folder = sys.argv[1:]
    print(json.dumps(asyncio.run(globals()[work](address, Path(folder)))), flush=True)
