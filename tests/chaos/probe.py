"""After the storm: what can only be judged when nothing else moves. A slot is blocked, others wait, all is measured.

1. The metrics of each api process tell how many jobs wait, lane by lane, as the ready sets do.
2. A cancel of the job that hangs frees its slot.
3. Nobody's many jobs stand in front of somebody else's one.
"""

import re

from tests.chaos import truth
from tests.chaos.history import Journal, Operations, read
from tests.chaos.invariants import Violation
from tests.chaos.load import LANES
from tests.chaos.site import APIS, NARROW, Site
from tests.e2e.waiting import until

FLOOD = 40
AHEAD = 15
"""So many of a flooder's jobs may be begun before another tenant's one, who may still owe for the longest of jobs: by
the bound of the order, 2 (0.5 + 0.2) device seconds, and what was begun before it came."""
_WAITING = re.compile(r"^inferq_queue_jobs\{([^}]*)\} ([\d.e+]+)$", re.MULTILINE)


class Probe:
    """Uses the narrow model, which runs one job at a time."""

    def __init__(self, site: Site, patience: float) -> None:
        self.site = site
        self.patience = patience
        self.journal = Journal(site.journals, "probe")
        self.operations = Operations(self.journal)
        self.found: list[Violation] = []

    def run(self) -> list[Violation]:
        """What was wrong."""
        try:
            self._measure()
        except AssertionError as error:
            self.found.append(Violation("the_probe_ends", str(error)))
        self.journal.close()
        return self.found

    def _measure(self) -> None:
        blocker = self._submit("carol", "blocker", "!hang", "high")
        until(lambda: self._begun("blocker"), "the job that hangs has begun", self.patience)
        for number in range(FLOOD):
            self._submit("alice", f"flood-{number}", "!delay=0.2", LANES[1 + number % 2])
        self._submit("bob", "single", "!delay=0.2", "medium")
        until(self._all_wait, "all wait", self.patience)
        self._compare_metrics()
        op = self.operations.invoke("cancel", job=blocker, tenant="carol")
        with self.site.call(APIS[0], "carol") as http:
            job = http.post(f"/v1/jobs/{blocker}/cancel").json()
        told = {name: job[name] for name in ("state", "generation", "attempt")}
        self.operations.answer(op, "ok", **told)
        until(lambda: self._begun("single"), "the single job has begun", self.patience)
        ahead = sum(marker.startswith("flood") for marker in self._order().partition(" single")[0].split())
        if ahead > AHEAD:
            text = f"{ahead} of {FLOOD} jobs of one tenant were begun before the only one of another"
            self.found.append(Violation("nobody_stands_in_front", text))

    def _submit(self, tenant: str, marker: str, hooks: str, lane: str) -> str:
        op = self.operations.invoke("job", marker=marker, hooks=hooks, model=NARROW, tenant=tenant)
        body = {"messages": [{"role": "user", "content": f"#{marker} {hooks}"}]}
        envelope = {"model": NARROW, "body": body, "priority": lane, "metadata": {"marker": marker}}
        with self.site.call(APIS[0], tenant) as http:
            answer = http.post("/v1/jobs", json=envelope)
        assert answer.status_code == 202, answer.text
        job = str(answer.json()["id"])
        self.operations.answer(op, "ok", job=job)
        return job

    def _order(self) -> str:
        """Markers in the order in which their runs began."""
        events = read(self.site.journals)
        return " " + " ".join(str(event["marker"]) for event in events if event["event"] == "begin")

    def _begun(self, marker: str) -> bool:
        return f" {marker}" in self._order()

    def _waiting(self) -> dict[str, int]:
        with self.site.redis() as client:
            return truth.look(client).waiting.get(NARROW, {})

    def _all_wait(self) -> bool:
        return sum(self._waiting().values()) == FLOOD + 1

    def _compare_metrics(self) -> None:
        for api in APIS:
            # They are left out where Redis does not answer in time; what is told has to be right.
            told = until(lambda api=api: self._told(api), f"{api} tells how many wait", self.patience)
            true = self._waiting()
            if told != true:
                text = f"{api} says that {told} wait, and {true} do"
                self.found.append(Violation("metrics_tell_the_truth", text))

    def _told(self, api: str) -> dict[str, int]:
        headers = {"Authorization": f"Bearer {self.site.key}"}
        with self.site.call(api, "alice") as http:
            page = http.get("/metrics", headers=headers).text
        found = {}
        for labels, value in _WAITING.findall(page):
            named = dict(pair.split("=") for pair in labels.replace('"', "").split(","))
            if named["model"] == NARROW:
                found[named["lane"]] = int(float(value))
        return found
