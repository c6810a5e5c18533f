"""One model's ready set in Redis, driven without asyncio: for tests that make thousands of calls."""

from typing import Any

import redis

from inferq.job import new_job_id
from queues.scripts import NAMES, source
from tests.queues.builders import MODEL, PREFIX, settings_for


class ReadySet:
    """Estimates are given in device seconds: the learnt rate is held at one second per unit."""

    def __init__(self, url: str, head_start: dict[str, float], *, policy: str = "fair"):
        self.redis = redis.Redis.from_url(url)
        self.queue = settings_for(url, head_start=head_start, policy=policy).queue
        self._scripts = {name: self.redis.register_script(source(name, self.queue)) for name in NAMES}
        self._calls = 0
        self.clear()

    def clear(self) -> None:
        self.redis.flushall()
        self.redis.hset(f"{PREFIX}order:{MODEL}", "rate", 1)

    def call(self, name: str, *args: Any) -> Any:
        return self._scripts[name](args=args)

    def accept(
        self,
        tenant: str,
        lane: str,
        est: float,
        *,
        weight: float = 1.0,
        size: int = 0,
        attempts: int = 100,
        promised: tuple[int, float] = (0, 0.0),
    ) -> str:
        """`promised`: the replicas that serve the model, and the seconds until there is one."""
        job_id = new_job_id()
        status, *_ = self.call(
            *("accept", self._operation(), "restore", weight, job_id, MODEL, tenant, lane),
            *(repr(est), size, 0, "", *promised, "max", attempts),
        )
        assert status == b"ok"
        return job_id

    def claim(self) -> str | None:
        """The job that is next; its token is its operation's name."""
        flat = self.call("claim", self._operation(), MODEL, "replica", "node", "t" * 16, 1000, "", 0)
        return flat[-1].decode() if flat else None

    def finish(self, job_id: str, outcome: str, seconds: float = 0.0, *, delay: float = 0.0) -> str:
        state, _ = self.call(
            *("finish", self._operation(), job_id, "t" * 16, outcome, repr(seconds), repr(delay), b"", "0"),
            *("", "", "", "", 0, "", 0),
        )
        return state.decode()

    def control(self, **fields: object) -> None:
        """Pause, drain or limit; `__` stands for a colon, `_` in a name for itself, None takes a field away."""
        flat = [word for name, value in fields.items() for word in (name.replace("__", ":"), _written(value))]
        self.call("control", 0, *flat)

    def due(self) -> dict[str, str]:
        """The pauses of all scheduled jobs are over: job and the state it got."""
        for job_id in self.redis.zrange(f"{PREFIX}later", 0, -1):
            self.redis.zadd(f"{PREFIX}later", {job_id: 1})
        flat = self.call("due", 1000)
        return {flat[i].decode(): flat[i + 1].decode() for i in range(0, len(flat), 4)}

    def reorder(self, job_id: str, lane: str) -> str:
        return self.call("reorder", job_id, 0, lane).decode()

    def cancel(self, job_id: str) -> str:
        return self.call("cancel", job_id, 0, "cancelled", "cancelled", 499).decode()

    def lose(self, job_id: str) -> str:
        """The lease of a running job ends."""
        self.redis.zadd(f"{PREFIX}leases", {job_id: 1})
        lost, state, *_ = self.call("reap", 1)
        assert lost.decode() == job_id
        return state.decode()

    def standing(self, job_id: str) -> tuple[int, float]:
        position, ahead, _ = self.call("standing", job_id, 0, 0)
        return position, float(ahead)

    def order(self) -> dict[str, str]:
        found = self.redis.hgetall(f"{PREFIX}order:{MODEL}")
        return {name.decode(): value.decode() for name, value in found.items()}

    def tenants(self) -> dict[str, float]:
        """Tenants with work, and the key each is served by."""
        found = self.redis.zrange(f"{PREFIX}tenants:{MODEL}", 0, -1, withscores=True)
        return {tenant.decode(): key for tenant, key in found}

    def members(self, tenant: str) -> dict[str, float]:
        """Waiting jobs of a tenant, each with its lane's initial before it, and their scores."""
        return {
            lane + job_id.decode(): score
            for lane in "hml"
            for job_id, score in self.redis.zrange(
                f"{PREFIX}ready:{MODEL}:{tenant}:{lane}", 0, -1, withscores=True
            )
        }

    def close(self) -> None:
        self.redis.close()

    def _operation(self) -> str:
        self._calls += 1
        return str(self._calls)


def _written(value: object) -> str:
    return "" if value is None else str(value)
