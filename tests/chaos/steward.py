"""Who runs the place: makes recurring schedules, and pauses and resumes models, tenants and lanes while others work.

It writes down what it asked and was told, and judges nothing. At its end nothing is paused and nothing recurs.
"""

import random
import threading
from typing import Any

import httpx2

from tests.chaos.history import Journal, Operations
from tests.chaos.site import APIS, MODELS, TENANTS, WIDE, Site

EVERY = 4
"""Seconds between the runs of a schedule."""
NAME = "chaos"
PAUSES = (*(("model", name) for name in MODELS), *(("tenant", name) for name in TENANTS), ("lane", "low"))
AGAIN = 0.5
"""Seconds until a request is made again that failed."""


class Steward(threading.Thread):
    """One at a time: a pause ends before the next begins."""

    def __init__(self, site: Site, seed: str, stopping: threading.Event, patience: float) -> None:
        super().__init__(name="steward", daemon=True)
        self.site = site
        self.rng = random.Random(f"{seed}/steward")
        self.journal = Journal(site.journals, "steward")
        self.operations = Operations(self.journal)
        self.stopping = stopping
        self.tries = int(patience / AGAIN)
        self.defect: BaseException | None = None

    def run(self) -> None:
        try:
            for tenant in TENANTS:
                self._insist("schedule", "POST", "/v1/schedules", self._schedule(tenant), tenant=tenant)
            while not self.stopping.wait(self.rng.uniform(1.0, 5.0)):
                self._pause(*self.rng.choice(PAUSES))
            for tenant in TENANTS:
                path = f"/v1/schedules/{NAME}"
                self._insist("unschedule", "PATCH", path, {"enabled": False}, tenant=tenant)
        except BaseException as error:  # noqa: BLE001 - shown by whoever joins
            self.defect = error
        finally:
            self.journal.close()

    def _schedule(self, tenant: str) -> dict[str, Any]:
        marker = f"{NAME}-{tenant}"
        job = {
            "model": WIDE,
            "body": {"messages": [{"role": "user", "content": f"#{marker} !delay=0.1"}]},
            "metadata": {"marker": marker},
            "webhook": self.site.mailbox.url,
        }
        return {"name": NAME, "cron": f"*/{EVERY} * * * * *", "job": job}

    def _pause(self, what: str, name: str) -> None:
        body = {"kind": what, "name": name}
        self._ask("pause", "POST", "/v1/queues/pauses", body, what=what, name=name)
        self.stopping.wait(self.rng.uniform(0.5, 2.5))
        self._insist("resume", "DELETE", f"/v1/queues/pauses/{what}/{name}", None, what=what, name=name)

    def _insist(self, kind: str, method: str, path: str, body: Any, **facts: str) -> None:
        """Until it is done, or was done by a try without an answer."""
        for _ in range(self.tries):
            if self._ask(kind, method, path, body, **facts) in (200, 409):
                return
            threading.Event().wait(AGAIN)
        raise AssertionError(f"{kind} {facts}: not done after {self.tries} tries")

    def _ask(self, kind: str, method: str, path: str, body: Any, **facts: str) -> int:
        """The status of the answer, 0 without one."""
        op = self.operations.invoke(kind, **facts)
        headers = {} if "tenant" in facts else {"Authorization": f"Bearer {self.site.key}"}
        try:
            with self.site.call(self.rng.choice(APIS), facts.get("tenant", TENANTS[0])) as http:
                answer = http.request(method, path, json=body, headers=headers)
        except httpx2.TransportError as error:
            self.operations.answer(op, "unknown", why=f"{type(error).__name__}: {error}")
            return 0
        told = answer.json()
        if answer.status_code == 200:
            self.operations.answer(op, "ok", in_force=told.get("in_force"))
        else:
            error = told.get("error", {})
            self.operations.answer(
                op, "refused", status=answer.status_code, code=error.get("code"), message=error.get("message")
            )
        return answer.status_code
