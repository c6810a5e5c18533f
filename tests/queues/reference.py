"""The order of jobs written down a second time, in plain Python: what the scripts are compared with.

Two levels, in device seconds. Inside a tenant a job enters with ``s = max(v_t, F[lane])``, then ``F[lane] = s + est``
and its score is ``s - H(lane)``. Between tenants, ``S`` is a tenant's virtual time and its key is ``S - H(lane of its
first job)``; the smallest key is served. No Redis, no clock, no lease: only who comes next.
"""

from dataclasses import dataclass, field

LOST = "lost"
FINISHED = "finished"


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


@dataclass
class Tenant:
    weight: float = 1.0
    virtual: float = 0.0
    """S"""
    reached: float = 0.0
    """v_t"""
    lanes: dict[str, float] = field(default_factory=dict)
    """F"""
    queue: list[Waiting] = field(default_factory=list)

    def first(self) -> Waiting:
        return min(self.queue, key=lambda job: (job.score, job.member))


class Reference:
    """The ready set of one model."""

    def __init__(self, head_start: dict[str, float]):
        self.head_start = head_start
        self.virtual = 0.0
        """v"""
        self.tenants: dict[str, Tenant] = {}
        self.running: dict[str, Waiting] = {}

    def accept(self, job: Waiting, weight: float) -> None:
        tenant = self.tenants.setdefault(job.tenant, Tenant())
        tenant.weight = weight
        start = max(tenant.reached, tenant.lanes.get(job.lane, 0.0))
        tenant.lanes[job.lane] = start + job.est
        job.score = start - self.head_start[job.lane]
        self._enter(tenant, job)

    def claim(self) -> Waiting | None:
        name = self._next_tenant()
        if name is None:
            return None
        tenant = self.tenants[name]
        job = tenant.first()
        self.virtual = max(self.virtual, self.key(tenant))
        tenant.reached = max(tenant.reached, job.score)
        tenant.queue.remove(job)
        tenant.virtual += job.est / tenant.weight
        self.running[job.id] = job
        return job

    def finish(self, job_id: str, seconds: float) -> None:
        """The attempt ended and took `seconds`: the estimate is corrected."""
        job = self.running.pop(job_id)
        tenant = self.tenants[job.tenant]
        tenant.virtual += (seconds - job.est) / tenant.weight

    def put_back(self, job_id: str) -> None:
        """Handed back, lost or to be tried again: the old place, and the charge is refunded."""
        job = self.running.pop(job_id)
        tenant = self.tenants[job.tenant]
        tenant.virtual -= job.est / tenant.weight
        self._enter(tenant, job)

    def cancel(self, job_id: str) -> None:
        """A waiting job leaves; a running one keeps its estimate as its charge."""
        if self.running.pop(job_id, None) is None:
            for tenant in self.tenants.values():
                tenant.queue = [job for job in tenant.queue if job.id != job_id]

    def key(self, tenant: Tenant) -> float:
        return tenant.virtual - self.head_start[tenant.first().lane]

    def waiting(self) -> list[Waiting]:
        return [job for tenant in self.tenants.values() for job in tenant.queue]

    def _enter(self, tenant: Tenant, job: Waiting) -> None:
        if not tenant.queue:
            tenant.virtual = max(self.virtual, tenant.virtual)
        tenant.queue.append(job)

    def _next_tenant(self) -> str | None:
        busy = [(self.key(tenant), name) for name, tenant in self.tenants.items() if tenant.queue]
        return min(busy)[1] if busy else None
