"""Looks into Redis all the time, past the broken network, and writes down what does not fit together there."""

import threading

import redis

from tests.chaos import truth
from tests.chaos.history import Journal
from tests.chaos.site import Site

EVERY = 0.5


class Auditor(threading.Thread):
    """One look per half second; a Redis that is away or frozen is looked at again later."""

    def __init__(self, site: Site, stopping: threading.Event) -> None:
        super().__init__(name="auditor", daemon=True)
        self.journal = Journal(site.journals, "auditor")
        self.client = site.redis_client(socket_timeout=5)
        self.stopping = stopping
        self.looks = 0
        self.most_waiting = 0

    def run(self) -> None:
        while not self.stopping.wait(EVERY):
            try:
                found = truth.look(self.client)
            except (redis.RedisError, OSError):
                continue
            self.looks += 1
            self.most_waiting = max(
                self.most_waiting, sum(sum(lanes.values()) for lanes in found.waiting.values())
            )
            for what in found.wrong:
                self.journal.note("wrong", what=what)
        self.client.close()
        self.journal.close()
