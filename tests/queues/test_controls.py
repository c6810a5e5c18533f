"""Pauses, drains and limits: claims obey them at once, SQL keeps them, and a Redis that forgot them gets them back."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from inferq import errors
from inferq.lanes import Lane
from queues import layout
from queues.controls import Controls, Kind, running_limits
from queues.desired import Placement
from queues.presence import NodeInfo, Presence
from storage import migrate
from storage.database import Database
from storage.pauses import Pause, PauseStore
from tests.queues.builders import DONE, PREFIX, Bench, bench, settings_for

URL = "sqlite:///inferq.db"


@asynccontextmanager
async def controls(url: str, home: Path, **queue: object) -> AsyncIterator[tuple[Bench, Controls]]:
    await migrate.upgrade(URL, home)
    database = await Database.open(URL, home)
    async with bench(url, **queue) as b:
        yield b, Controls(b.redis, b.settings, PauseStore(database))
    await database.close()


async def test_a_paused_model_is_not_claimed_and_goes_on(redis_url: str, tmp_path: Path):
    async with controls(redis_url, tmp_path) as (b, c):
        asked = await b.accepted()
        await c.pause(Kind.MODEL, "demo", "new weights")
        assert await b.replica().claim() is None
        (pause,) = await c.stopped()
        assert (pause.kind, pause.name, pause.reason) == ("model", "demo", "new weights")
        await c.resume(Kind.MODEL, "demo")
        assert (await b.replica().claim()).id == asked.id
        assert await c.stopped() == []


async def test_a_paused_lane_lets_the_others_by(redis_url: str, tmp_path: Path):
    async with controls(redis_url, tmp_path) as (b, c):
        high = await b.accepted(lane=Lane.HIGH)
        low = await b.accepted(lane=Lane.LOW)
        await c.pause(Kind.LANE, "high")
        assert (await b.replica().claim()).id == low.id
        assert await b.replica().claim() is None
        await c.resume(Kind.LANE, "high")
        assert (await b.replica().claim()).id == high.id


async def test_a_paused_tenant_lets_the_others_by_and_gets_no_credit(redis_url: str, tmp_path: Path):
    none = {"high": 0.0, "medium": 0.0, "low": 0.0}
    async with controls(redis_url, tmp_path, head_start=none) as (b, c):
        await b.redis.hset(f"{PREFIX}order:demo", "rate", 1)
        held = {(await b.accepted(tenant="a")).id for _ in range(6)}
        others = [await b.accepted(tenant="b") for _ in range(10)]
        await c.pause(Kind.TENANT, "a")
        replica = b.replica()
        for other in others[:4]:
            attempt = await replica.claim()
            assert attempt.id == other.id
            await replica.finish(attempt, DONE, claim_next=False)
        await c.resume(Kind.TENANT, "a")
        order = [(await replica.claim()).id for _ in range(6)]
        # Equal shares from now on (one job more or less), not four first for what it missed.
        assert 3 <= len(held.intersection(order)) <= 4


async def test_a_drained_replica_claims_nothing_and_others_do(redis_url: str, tmp_path: Path):
    async with controls(redis_url, tmp_path) as (b, c):
        asked = await b.accepted()
        await c.pause(Kind.REPLICA, "one")
        assert await b.replica("one").claim() is None
        assert (await b.replica("two").claim()).id == asked.id


async def test_a_drained_node_claims_nothing(redis_url: str, tmp_path: Path):
    async with controls(redis_url, tmp_path) as (b, c):
        asked = await b.accepted()
        await c.pause(Kind.NODE, "here")
        assert await b.replica("r", node="here").claim() is None
        assert (await b.replica("r", node="there").claim()).id == asked.id


async def test_a_drained_node_gets_no_new_replicas(redis_url: str, tmp_path: Path):
    models = {"demo": {"engine": "noop", "source": "none", "warm": True}}
    async with controls(redis_url, tmp_path, models=models) as (b, c):
        for name in ("here", "there"):
            node = NodeInfo(name=name, pid=1, seen_at=1.0, devices=[{"name": "cpu:0", "kind": "cpu"}])
            await Presence(b.redis, PREFIX).show_node(node)
        placement = Placement(b.redis, b.queue, b.settings)
        assert await placed(placement) == {"demo@cpu:0.here"}
        await c.pause(Kind.NODE, "here")
        assert await placed(placement) == {"demo@cpu:0.there"}
        await c.pause(Kind.REPLICA, "demo@cpu:0.there")
        assert await placed(placement) == set()
        await c.resume(Kind.NODE, "here")
        assert await placed(placement) == {"demo@cpu:0.here"}


async def placed(placement: Placement) -> set[str]:
    wanted = await placement.run_once()
    return {place.name for places in wanted.values() for place in places if place.model == "demo"}


async def test_what_finishes_on_a_paused_model_takes_no_next_job(redis_url: str, tmp_path: Path):
    async with controls(redis_url, tmp_path) as (b, c):
        attempt = await b.running()
        await b.accepted()
        await c.pause(Kind.MODEL, "demo")
        assert await b.replica().finish(attempt, DONE, claim_next=True) == ("succeeded", None)


async def test_a_forgetful_redis_gets_pauses_and_limits_back(redis_url: str, tmp_path: Path):
    async with controls(redis_url, tmp_path, tenants={"*": {"max_running": 1}}) as (b, c):
        await c.pause(Kind.LANE, "low")
        await b.redis.flushall()
        await b.redis.hset(f"{PREFIX}control", "pause:model:old", "was resumed while Redis was away")
        changed = await c.copy()
        assert sorted(changed) == ["pause:lane:low", "pause:model:old", "running:tenants"]
        assert await c.copy() == []
        assert await b.redis.hgetall(f"{PREFIX}control") == {
            b"pause:lane:low": b"pause",
            b"running:tenants": b"1",
        }


@pytest.mark.parametrize("change", ["pause", "resume"])
async def test_what_changes_while_it_is_copied_is_not_undone(
    redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str
):
    async with controls(redis_url, tmp_path) as (b, c):
        await c.pause(Kind.LANE, "low")
        if change == "resume":
            await c.pause(Kind.MODEL, "demo")
        look = c._store.list

        async def then_it_changes() -> list[Pause]:
            seen = await look()
            monkeypatch.setattr(c._store, "list", look)
            await getattr(c, change)(Kind.MODEL, "demo")
            return seen

        monkeypatch.setattr(c._store, "list", then_it_changes)
        await c.copy()
        fields = {b"pause:lane:low", b"pause:model:demo"} if change == "pause" else {b"pause:lane:low"}
        assert set(await b.redis.hkeys(f"{PREFIX}control")) == fields


async def test_a_tenant_runs_no_more_than_it_may(redis_url: str, tmp_path: Path):
    async with controls(redis_url, tmp_path, tenants={"*": {"max_running": 1}}) as (b, c):
        await c.copy()
        first, second = await b.accepted(tenant="a"), await b.accepted(tenant="a")
        other = await b.accepted(tenant="b")
        replica = b.replica()
        attempt = await replica.claim()
        assert attempt.id == first.id
        assert (await replica.claim()).id == other.id
        assert await replica.claim() is None
        state, following = await replica.finish(attempt, DONE, claim_next=True)
        assert (state, following.id) == ("succeeded", second.id)


async def test_a_lost_job_gives_its_room_back(redis_url: str, tmp_path: Path):
    async with controls(redis_url, tmp_path, tenants={"*": {"max_running": 1}}) as (b, c):
        await c.copy()
        await b.accepted()
        await b.accepted()
        assert await b.replica().claim()
        assert await b.replica().claim() is None
        await b.expire_leases()
        await b.reap()
        assert await b.replica().claim()
        assert await b.replica().claim() is None


async def test_a_pause_is_kept_while_redis_is_away(tmp_path: Path):
    url = f"unix://{tmp_path}/nobody.sock"
    async with controls(url, tmp_path) as (_, c):
        assert not (await c.pause(Kind.MODEL, "demo")).queued
        assert [pause.name for pause in await c.stopped()] == ["demo"]


async def test_a_lane_that_is_none_is_refused(redis_url: str, tmp_path: Path):
    async with controls(redis_url, tmp_path) as (_, c):
        with pytest.raises(errors.InvalidRequest, match="no lane 'urgent'"):
            await c.pause(Kind.LANE, "urgent")


def test_limits_come_from_the_configuration():
    settings = settings_for("redis://nowhere")
    model = {"engine": "noop", "source": "none", "max_running": 3, "max_lane_running": {"low": 1}}
    tree = settings.model_dump(exclude_unset=True) | {
        "models": {"m": model},
        "tenants": {"*": {"max_running": 4}, "a": {"max_running": 2}, "b": {}},
    }
    assert running_limits(type(settings).model_validate(tree)) == {
        "running:tenants": 4,
        "running:tenant:a": 2,
        "running:model:m": 3,
        "running:lane:m low": 1,
    }


async def test_keys_of_another_release_are_not_touched(redis_url: str):
    async with bench(redis_url) as b:
        await b.accepted()
        assert await layout.claim(b.redis, b.settings.queue)
        assert not await layout.claim(b.redis, b.settings.queue)
        await b.redis.set(layout.key_of(PREFIX), "99")
        before = await b.snapshot()
        with pytest.raises(errors.ConfigError, match="'99'"):
            await layout.check(b.redis, b.settings.queue)
        with pytest.raises(errors.QueueUnavailable, match="LAYOUT 99"):
            await b.accepted()
        with pytest.raises(errors.QueueUnavailable, match="LAYOUT 99"):
            await b.replica().claim()
        assert await b.snapshot() == before
