"""The one Celery configuration, shared by replicas, gateways and Flower.

Celery delivers doorbells and shows jobs in Flower. Its result backend, ETA, canvas, revoke and late ack are not used:
leases decide who owns a job. The visibility time-out must be the same in every process on one Redis, so nobody else
makes an app.
"""

from typing import Any

from celery import Celery
from kombu.entity import Queue as CeleryQueue

from inferq.config import Settings
from inferq.config.redis_url import sentinel_of

BELL_TASK = "inferq.bell"
VISIBILITY_TIMEOUT = 24 * 3600


def broker_url(settings: Settings) -> str:
    """The Redis address as Celery writes it."""
    url = settings.redis_url
    address = sentinel_of(url)
    if address:
        return address.celery_url
    return "redis+socket://" + url.removeprefix("unix://") if url.startswith("unix://") else url


def bell_queue(model: str) -> str:
    """Name of a model's queue of doorbells; in Redis it is the list PREFIX + this name."""
    return f"bell.{model}"


def _sentinel_options(settings: Settings) -> dict[str, Any]:
    address = sentinel_of(settings.redis_url)
    return {"master_name": address.master, "sentinel_kwargs": address.sentinel_login} if address else {}


def make_app(settings: Settings) -> Celery:
    """A configured app that consumes the doorbells of every model; a replica selects its own with ``-Q``."""
    app = Celery("inferq", set_as_current=False)
    app.conf.update(
        broker_url=broker_url(settings),
        broker_transport_options={
            "global_keyprefix": settings.queue.prefix,
            "visibility_timeout": VISIBILITY_TIMEOUT,
            "socket_timeout": 10,
            "socket_connect_timeout": 3,
            "socket_keepalive": not settings.redis_url.startswith("unix://"),
            "health_check_interval": 25,
            "queue_order_strategy": "priority",
            **_sentinel_options(settings),
        },
        broker_channel_error_retry=True,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        task_serializer="json",
        accept_content=["json"],
        task_ignore_result=True,
        task_store_errors_even_if_ignored=False,
        task_default_priority=0,
        task_default_queue="bell",
        task_create_missing_queues=True,
        task_queues=[CeleryQueue(bell_queue(model)) for model in settings.served] or None,  # type: ignore[no-untyped-call]
        task_send_sent_event=False,
        task_acks_late=False,
        worker_prefetch_multiplier=1,
        worker_disable_prefetch=False,
        worker_send_task_events=True,
        worker_hijack_root_logger=False,
        worker_enable_remote_control=True,
        worker_disable_rate_limits=True,
        worker_cancel_long_running_tasks_on_connection_loss=False,
        event_queue_prefix="celeryev",
        enable_utc=True,
    )
    return app
