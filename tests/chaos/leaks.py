"""What processes hold on to: files, sockets, connections to Redis and SQL, children that nobody asked about.

Counted at rest before the load and at rest after the storm. Pools may have grown up to their bounds; all else has to be
as it was.
"""

import contextlib
from collections import Counter
from dataclasses import dataclass

import psutil

from tests.chaos.site import OWN_NAME, SCHEDULERS, SERVICES, Site
from tests.e2e.stack import arguments_of
from tests.e2e.waiting import until

MORE = 6
"""Files and sockets that a process may hold more of than at its start, beside its pools."""
MESSAGES = 16
"""Connections of a scheduler to receivers of webhooks, which are kept for a while."""
REDIS_POOL = 80
"""Connections to Redis of one process: the largest pool has 64, and there are those of Celery and of what blocks."""
SQL_FILES = 24
"""The largest pool has 15 connections; of SQLite's, each has up to three files, and few are open."""
SENTINEL_POOL = 40
"""Connections that were made at once ask at once, each of three sentinels."""


@dataclass(frozen=True, slots=True)
class Held:
    """Of one process, in numbers of open files."""

    redis: int
    sql: int
    rest: int
    sentinels: int = 0


def look(site: Site) -> dict[str, Held]:
    """By name of the service, or by model and number of the replica and its engine."""
    found = {}
    for name, process in _processes(site).items():
        with contextlib.suppress(psutil.Error):
            found[name] = _held(process, site)
    return found


def leaked(before: dict[str, Held], after: dict[str, Held]) -> list[str]:
    """What is held in the end and should not be."""
    found = []
    for name, held in after.items():
        first = before.get(name, held)
        if held.rest > first.rest + MORE + (MESSAGES if name in SCHEDULERS else 0):
            found.append(f"{name} holds {held.rest} files and sockets, {first.rest} at its start")
        if held.redis > REDIS_POOL:
            found.append(f"{name} holds {held.redis} connections to Redis")
        if held.sql > SQL_FILES:
            found.append(f"{name} holds {held.sql} files of the database, or connections to it")
        if held.sentinels > SENTINEL_POOL:
            found.append(f"{name} holds {held.sentinels} connections to sentinels")
    return found


def zombies(site: Site) -> list[str]:
    """Children that have ended and were not asked about by their parents."""
    found = []
    for name, process in _processes(site).items():
        with contextlib.suppress(psutil.Error):
            found += [
                f"{each.pid} of {name}"
                for each in process.children()
                if each.status() == psutil.STATUS_ZOMBIE
            ]
    return found


def orphaned(site: Site) -> list[str]:
    """Connections that Redis holds and no process does, once both had time to agree."""
    seen = [0, 0]

    def agree() -> bool:
        seen[:] = [len(_clients(site)), sum(held.redis for held in look(site).values())]
        return seen[0] <= seen[1]

    try:
        until(agree, "Redis has no more clients than there are connections", 20.0)
    except AssertionError:
        names = Counter(str(client["name"]) or "without a name" for client in _clients(site))
        return [f"Redis has {seen[0]} clients, processes have {seen[1]} connections: {dict(names)}"]
    return []


def _clients(site: Site) -> list[dict[str, object]]:
    with site.redis_client(socket_timeout=10) as client:
        found = client.client_list()
    own = (OWN_NAME, "sentinel-")
    return [each for each in found if not each["name"].startswith(own) and "S" not in each["flags"]]


def _processes(site: Site) -> dict[str, psutil.Process]:
    found = {}
    for name in SERVICES:
        with contextlib.suppress(psutil.Error):
            found[name] = psutil.Process(site.pids[name])
    for replica in site.replicas_running():
        argv = arguments_of(replica)
        name = "replica " + argv[argv.index("--replica") + 1] if "--replica" in argv else "replica"
        found[name] = replica
    return found


def _held(process: psutil.Process, site: Site) -> Held:
    ports = site.redis_ports
    connected = [each.raddr.port for each in process.net_connections("tcp") if each.raddr]
    to_redis = sum(port in ports for port in connected)
    asked = sum(port in site.sentinels.sentinels for port in connected) if site.sentinels else 0
    if site.postgres:
        sql = connected.count(site.postgres.port)
    else:
        sql = sum(site.database_file.name in file.path for file in process.open_files())
    return Held(to_redis, sql, process.num_fds() - to_redis - sql - asked, asked)
