"""Cancel requests on their way from a replica to the leading scheduler."""

from collections.abc import Iterator

import pytest
from celery.worker.control import Panel

from queues import remote
from tests.queues.builders import PREFIX, bench, settings_for, spec


@pytest.fixture(autouse=True)
def celery_commands_again() -> Iterator[None]:
    """The commands are global to a process; the next test finds Celery's own."""
    data, meta = dict(Panel.data), dict(Panel.meta)
    yield
    Panel.data.update(data)
    Panel.meta.update(meta)


async def test_each_id_becomes_a_request_with_its_generation(redis_url: str):
    async with bench(redis_url) as b:
        asked, unknown = spec(), spec()
        await b.queue.accept(asked, "restore", generation=2)
        remote.take_over_revoke(settings_for(redis_url))
        assert "ok" in Panel.data["revoke"](None, [asked.id, unknown.id], terminate=True, signal="SIGTERM")
        assert "ok" in Panel.data["terminate"](None, "SIGKILL", asked.id)
        found = await remote.requests(b.redis, PREFIX)
        assert [(r.kind, r.job_id, r.generation) for r in found] == [
            ("cancel", asked.id, 2),
            ("cancel", unknown.id, None),
            ("cancel", asked.id, 2),
        ]


async def test_what_is_no_job_id_is_not_requested(redis_url: str):
    async with bench(redis_url) as b:
        remote.take_over_revoke(settings_for(redis_url))
        assert "no job ids" in Panel.data["revoke"](None, "celery-task")["ok"]
        assert "ok" in Panel.data["revoke"](None, None)
        assert await remote.requests(b.redis, PREFIX) == []


async def test_requests_are_read_in_parts_and_let_go(redis_url: str):
    async with bench(redis_url) as b:
        remote.take_over_revoke(settings_for(redis_url))
        ids = [spec().id for _ in range(5)]
        Panel.data["revoke"](None, ids)
        first = await remote.requests(b.redis, PREFIX, limit=2)
        rest = await remote.requests(b.redis, PREFIX, first[-1].position)
        assert [r.job_id for r in [*first, *rest]] == ids
        await remote.forget(b.redis, PREFIX, first[-1].position)
        assert await remote.requests(b.redis, PREFIX) == rest


def test_redis_away_is_an_answer_not_a_crash():
    remote.take_over_revoke(settings_for("unix:///nowhere/redis.sock"))
    assert "not cancelled" in Panel.data["revoke"](None, spec().id)["error"]
