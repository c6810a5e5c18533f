"""The order of jobs written down a second time, in plain Python: what the scripts are compared with.

Two levels, in device seconds. Inside a tenant a job enters with ``s = max(v_t, F[lane])``, then ``F[lane] = s + est``
and its score is ``s - H(lane)``. Between tenants, ``S`` is a tenant's virtual time and its key is ``S - H(lane of its
first job)``; the smallest key is served. Who has no work, is paused or runs as many jobs as it may is not among them,
and comes back at ``max(v, S)``. Jobs of a closed lane are passed over. No Redis, no clock, no lease: only who is next.
"""

from dataclasses import dataclass, field

LOST = "lost"
FINISHED = "finished"
_LANES = {"high": 0, "medium": 1, "low": 2}


@dataclass
class Waiting:
    id: str
    tenant: str
    lane: str
    est: float
    size: int
    score: float = 0.0

    @property
    def member(self) -> str:
        return self.lane[0] + self.id

    @property
    def place(self) -> tuple[float, int, str]:
        return self.score, _LANES[self.lane], self.id


@dataclass
class Tenant:
    weight: float = 1.0
    virtual: float = 0.0
    """S"""
    reached: float = 0.0
    """v_t"""
    lanes: dict[str, float] = field(default_factory=dict)
    """F"""
    ended: dict[str, float] = field(default_factory=dict)
    """C"""
    queue: list[Waiting] = field(default_factory=list)
    served: bool = False
    """Among the tenants that are served."""

    def first(self, closed: frozenset[str] = frozenset()) -> Waiting | None:
        return min(
            (job for job in self.queue if job.lane not in closed), key=lambda job: job.place, default=None
        )


class Reference:
    """The ready set of one model."""

    def __init__(self, head_start: dict[str, float]):
        self.head_start = head_start
        self.virtual = 0.0
        """v"""
        self.tenants: dict[str, Tenant] = {}
        self.running: dict[str, Waiting] = {}
        self.later: dict[str, Waiting] = {}
        self.stopping: dict[str, Waiting] = {}
        """Cancelled while they ran; what they have used is not known yet."""
        self.paused_tenants: set[str] = set()
        self.paused_lanes: set[str] = set()
        self.paused = False
        self.most: dict[str, int] = {}
        """The most that may run: of "model", of a lane, of each of the "tenants"."""

    def accept(self, job: Waiting, weight: float) -> None:
        tenant = self.tenants.setdefault(job.tenant, Tenant())
        tenant.weight = weight
        start = max(tenant.reached, tenant.lanes.get(job.lane, 0.0))
        tenant.lanes[job.lane] = start + job.est
        job.score = start - self.head_start[job.lane]
        self._enter(job)

    def claim(self) -> Waiting | None:
        if self.paused or len(self.running) >= self.most.get("model", 10**9):
            return None
        closed = frozenset(lane for lane in _LANES if lane in self.paused_lanes or self._full(lane))
        able = [
            (tenant.virtual - self.head_start[job.lane], name, job)
            for name, tenant in self.tenants.items()
            if tenant.served and (job := tenant.first(closed))
        ]
        if not able:
            return None
        # Equal keys: those of the whole set decide, then the name.
        key, name, job = min(able, key=lambda each: (each[0], self.key(self.tenants[each[1]]), each[1]))
        tenant = self.tenants[name]
        self.virtual = max(self.virtual, key)
        tenant.reached = max(tenant.reached, job.score)
        tenant.queue.remove(job)
        tenant.ended[job.lane] = self._end(job)
        tenant.virtual += job.est / tenant.weight
        self.running[job.id] = job
        self._place(name)
        return job

    def finish(self, job_id: str, seconds: float) -> None:
        """The attempt ended and took `seconds`: the estimate is corrected."""
        self._charge(self.running[job_id], seconds)
        self._stop(job_id)

    def put_back(self, job_id: str, seconds: float = 0.0, *, later: bool = False) -> None:
        """Handed back, lost or to be tried again: the old place, and what was not used is refunded."""
        self._charge(self.running[job_id], seconds)
        job = self._stop(job_id)
        if later:
            self.later[job_id] = job
        else:
            self._enter(job)

    def due(self) -> None:
        """The pauses of all jobs are over."""
        for job in self.later.values():
            self._enter(job)
        self.later.clear()

    def cancel(self, job_id: str) -> None:
        """A waiting job leaves, and its lane ends where its last one does; a running one is charged its estimate until
        it has stopped.
        """
        if job_id in self.running:
            self.stopping[job_id] = self._stop(job_id)
        self.later.pop(job_id, None)
        for job in [job for job in self.waiting() if job.id == job_id]:
            tenant = self.tenants[job.tenant]
            tenant.queue.remove(job)
            others = [other for other in tenant.queue if other.lane == job.lane]
            last = [self._end(max(others, key=lambda other: other.place))] if others else []
            ends = max(tenant.ended.get(job.lane, 0.0), *last, 0.0)
            tenant.lanes[job.lane] = min(tenant.lanes.get(job.lane, 0.0), ends)
            self._place(job.tenant)

    def stopped(self, job_id: str, seconds: float) -> None:
        """A cancelled run has stopped and took `seconds`."""
        self._charge(self.stopping.pop(job_id), seconds)

    def reorder(self, job: Waiting, lane: str) -> None:
        """The same time of arrival, another head start."""
        job.score += self.head_start[job.lane] - self.head_start[lane]
        job.lane = lane
        self._place(job.tenant)

    def placed(self) -> None:
        """Something was paused, limited or set free."""
        for name in self.tenants:
            self._place(name)

    def _end(self, job: Waiting) -> float:
        """Where a job ends in the time of its lane."""
        return job.score + self.head_start[job.lane] + job.est

    def key(self, tenant: Tenant) -> float:
        first = tenant.first()
        assert first
        return tenant.virtual - self.head_start[first.lane]

    def waiting(self) -> list[Waiting]:
        return [job for tenant in self.tenants.values() for job in tenant.queue]

    def _enter(self, job: Waiting) -> None:
        self.tenants[job.tenant].queue.append(job)
        self._place(job.tenant)

    def _charge(self, job: Waiting, seconds: float) -> None:
        """Before the tenant comes back that ran all it may: it does so with what it has really used."""
        tenant = self.tenants[job.tenant]
        tenant.virtual += (seconds - job.est) / tenant.weight

    def _stop(self, job_id: str) -> Waiting:
        job = self.running.pop(job_id)
        self._place(job.tenant)
        return job

    def _place(self, name: str) -> None:
        tenant = self.tenants[name]
        running = sum(job.tenant == name for job in self.running.values())
        barred = name in self.paused_tenants or running >= self.most.get("tenants", 10**9)
        served = bool(tenant.queue) and not barred
        if served and not tenant.served:
            tenant.virtual = max(self.virtual, tenant.virtual)
        tenant.served = served

    def _full(self, lane: str) -> bool:
        return sum(job.lane == lane for job in self.running.values()) >= self.most.get(lane, 10**9)
