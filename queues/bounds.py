"""What a tenant and a model may have waiting, per minute and per month: as the scripts take it, and as callers hear it.

The scripts decide (`lua/bounds.lua`); this knows the configuration, and which error a reached bound is.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, NoReturn

from inferq import errors
from inferq.config import Settings
from inferq.config.tenants import Tenant
from inferq.endpoints import ENDPOINTS
from inferq.job import JobSpec
from inferq.lanes import Lane
from queues.tenancy import Tenancy

DAY = 86400
_NO_BOUND = 2**53


@dataclass(frozen=True, slots=True)
class Rate:
    """One bucket after a request: its size per minute, what is left, and the seconds until it is full again."""

    limit: int
    remaining: int
    reset: float


@dataclass(frozen=True, slots=True)
class Rates:
    """The buckets of a tenant; None where it has no such bound."""

    requests: Rate | None = None
    tokens: Rate | None = None


NO_RATES = Rates()


class Bounds:
    def __init__(self, settings: Settings, tenancy: Tenancy):
        self._settings = settings
        self._tenancy = tenancy

    def of_queue(self, tenant: str, lane: Lane) -> tuple[int, int, int, int, int]:
        """What may wait of a model: jobs, bytes, jobs of the lane, jobs of the tenant, bytes of the tenant.

        A tenant without bounds of its own leaves half of the queue to the others, where there are others.
        """
        queue, mine = self._settings.queue, self._settings.tenant(tenant)
        parts = 2 if self._tenancy.shared(tenant) else 1
        return (
            queue.max_queue_size,
            queue.max_queue_bytes,
            queue.max_lane_jobs.get(lane.value, queue.max_queue_size),
            mine.max_jobs or queue.max_tenant_jobs or -(-queue.max_queue_size // parts),
            mine.max_bytes or -(-queue.max_queue_bytes // parts),
        )

    def of_job(self, spec: JobSpec) -> list[Any]:
        """All bounds of a new job, in the order of `lua/bounds.lua`."""
        mine = self._settings.tenant(spec.tenant)
        return [
            *self.of_queue(spec.tenant, spec.lane),
            *(mine.requests_per_minute or 0, mine.tokens_per_minute or 0, _tokens_of(spec)),
            *(mine.device_seconds_per_day or 0, mine.device_seconds_per_month or 0, _first_of_month()),
        ]

    def of_scheduled(self, specs: Sequence[JobSpec]) -> list[Any]:
        """The same of jobs that are scheduled together: what is in the queue now does not bound them."""
        bounds = self.of_job(specs[0])
        bounds[:5] = [_NO_BOUND] * 5
        bounds[7] = sum(_tokens_of(spec) for spec in specs)
        return bounds

    def rates(self, tenant: str, told: list[bytes]) -> Rates:
        """The buckets after an accepted job."""
        if len(told) < 5:
            return Rates()
        mine = self._settings.tenant(tenant)
        left_requests, full_requests, left_tokens, full_tokens = (float(value) for value in told[1:5])
        return Rates(
            _rate(mine.requests_per_minute, left_requests, full_requests),
            _rate(mine.tokens_per_minute, left_tokens, full_tokens),
        )

    def refuse(
        self, model: str, tenant: str, lane: Lane, status: str, ahead: float, told: list[bytes]
    ) -> None:
        """Raises QueueFull, RateLimited or BudgetSpent, unless the status is ok."""
        if status == "ok":
            return
        mine = self._settings.tenant(tenant)
        if status in ("requests", "tokens"):
            _refuse_rate(mine, status, float(told[1]))
        if status in ("day", "month"):
            _refuse_budget(mine, status)
        self._refuse_full(model, tenant, lane, status, ahead)

    def _refuse_full(self, model: str, tenant: str, lane: Lane, status: str, ahead: float) -> NoReturn:
        most = dict(
            zip(("jobs", "bytes", "lane", "tenant", "tenant_bytes"), self.of_queue(tenant, lane), strict=True)
        )
        what, name = {
            "jobs": ("jobs wait", "max_queue_size"),
            "bytes": ("bytes wait", "max_queue_bytes"),
            "lane": (f"jobs of the lane {lane} wait", "max_lane_jobs"),
            "tenant": (
                "jobs of this key's tenant wait",
                "its max_jobs" if self._settings.tenant(tenant).max_jobs else "max_tenant_jobs",
            ),
            "tenant_bytes": ("bytes of this key's tenant wait", "its max_bytes"),
        }[status]
        raise errors.QueueFull(
            f"{most[status]} {what} for {model}; that is the bound ({name})",
            retry_after=min(max(ahead / 10, 1.0), 60.0),
            model=model,
        )


def _refuse_rate(mine: Tenant, status: str, wait: float) -> NoReturn:
    most = (mine.requests_per_minute if status == "requests" else mine.tokens_per_minute) or 0
    raise errors.RateLimited(
        f"this key's bound of {most} {status} per minute is reached; come back in {wait:.1f} s",
        retry_after=max(wait, 0.1),
        rates=Rates(**{status: Rate(most, 0, wait)}),
    )


def _refuse_budget(mine: Tenant, status: str) -> NoReturn:
    today = datetime.now(UTC).date()
    if status == "day":
        most, again = mine.device_seconds_per_day, today.toordinal() + 1
    else:
        first = today.replace(day=1)
        most, again = (
            mine.device_seconds_per_month,
            first.replace(year=first.year + first.month // 12, month=first.month % 12 + 1).toordinal(),
        )
    when = datetime.fromordinal(again).replace(tzinfo=UTC)
    raise errors.BudgetSpent(
        f"this key has used its {most:g} device seconds of the {status}; from {when:%Y-%m-%d %H:%M} UTC it has more",
        retry_after=(when - datetime.now(UTC)).total_seconds(),
    )


def _rate(limit: int | None, left: float, full: float) -> Rate | None:
    return None if limit is None else Rate(limit, max(math.floor(left), 0), full)


def _tokens_of(spec: JobSpec) -> float:
    endpoint = ENDPOINTS.get(spec.endpoint)
    return spec.units if endpoint and endpoint.counts_tokens else 0.0


def _first_of_month() -> int:
    """The first day of this month of UTC, in days since 1970."""
    first = datetime.now(UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    return int(first.timestamp()) // DAY
