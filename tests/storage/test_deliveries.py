"""Webhook messages: made with the end they tell of, due in turn, tried by one at a time. On both databases."""

import asyncio
import json

import pytest

from inferq import errors
from inferq.job import Failure, JobState
from storage.deliveries import Deliveries, DeliveryState
from storage.ledger import Ledger
from tests.storage.builders import event, spec

URL = "https://hooks.example/inferq"


@pytest.fixture
def store(ledger: Ledger) -> Deliveries:
    return Deliveries(ledger.database)


async def due(store: Deliveries, limit: int = 99, **left_out):
    return await store.due(limit, **left_out)


async def test_an_end_makes_one_message(ledger: Ledger, store: Deliveries) -> None:
    asked, silent = spec(webhook=URL, metadata={"a": "b"}), spec()
    for each in (asked, silent):
        await ledger.accept(each)
    assert await due(store) == []
    ends = [event(asked, result=b'{"text": "Hello!"}'), event(silent)]
    await ledger.record(ends, stream="s", old="0-0", new="1-0")
    await ledger.record(ends, stream="s", old="1-0", new="2-0")
    (found,) = await due(store)
    assert (found.url, found.event, found.subject, found.host) == (
        URL,
        "job.succeeded",
        asked.id,
        "hooks.example",
    )
    begun = await store.begin(found, 60)
    message = json.loads(begun.payload)
    assert message["type"] == "job.succeeded"
    assert message["timestamp"].startswith("1970-01-01T00:01:40")
    assert message["data"]["id"] == asked.id
    assert message["data"]["result"] == {"text": "Hello!"}
    assert message["data"]["metadata"] == {"a": "b"}


async def test_every_kind_of_end_is_told(ledger: Ledger, store: Deliveries) -> None:
    failure = Failure(code="engine_error", message="no", status=500)
    for state in (JobState.FAILED, JobState.EXPIRED):
        asked = spec(webhook=URL)
        await ledger.accept(asked)
        old = await ledger.offset("s")
        await ledger.record([event(asked, state, error=failure)], stream="s", old=old, new=f"{state}-0")
    cancelled = spec(webhook=URL)
    await ledger.accept(cancelled)
    await ledger.cancel(cancelled.id)
    await ledger.cancel(cancelled.id)
    assert sorted(each.event for each in await due(store)) == ["job.cancelled", "job.expired", "job.failed"]


async def test_a_result_too_large_is_left_out(ledger: Ledger, store: Deliveries) -> None:
    asked = spec(webhook=URL)
    await ledger.accept(asked)
    large = json.dumps({"text": "x" * 70_000}).encode()
    await ledger.record([event(asked, result=large)], stream="s", old="0-0", new="1-0")
    (found,) = await due(store)
    assert json.loads((await store.begin(found, 60)).payload)["data"]["result"] is None


async def test_what_cannot_be_told_does_not_keep_a_job_from_ending(ledger: Ledger, store: Deliveries) -> None:
    asked = spec(webhook="no url at all", metadata={"n": 2**70})
    await ledger.accept(asked)
    await ledger.record([event(asked)], stream="s", old="0-0", new="1-0")
    assert (await ledger.get(asked.id)).state is JobState.SUCCEEDED
    assert [each.subject for each in await due(store)] == [asked.id]


async def test_hosts_and_tenants_that_have_their_share_are_left_out(store: Deliveries) -> None:
    for number in range(5):
        await store.add(f"https://busy.example/{number}", "webhook.test", "test", "t", b"{}")
    await store.add("https://calm.example/", "webhook.test", "test", "t", b"{}")
    await store.add("https://other.example/", "webhook.test", "test", "u", b"{}")
    assert [each.host for each in await due(store, 2)] == ["busy.example"] * 2
    left = await due(store, hosts=["busy.example"])
    assert [each.host for each in left] == ["calm.example", "other.example"]
    assert [each.tenant for each in await due(store, tenants=["t"])] == ["u"]


async def test_what_waits_can_be_bounded(store: Deliveries) -> None:
    async def add(tenant: str):
        return await store.add(URL, "webhook.test", "test", tenant, b"{}", at_most=2)

    made = await asyncio.gather(*(add("t") for _ in range(6)), return_exceptions=True)
    assert sum(isinstance(each, errors.AtCapacity) for each in made) == 4
    await add("u")
    assert len(await due(store)) == 3


async def test_a_try_is_begun_once(store: Deliveries) -> None:
    made = await store.add(URL, "webhook.test", "test", "t", b"{}")
    begun = await asyncio.gather(*(store.begin(made, 60) for _ in range(6)))
    (mine,) = [each for each in begun if each is not None]
    assert mine.attempts == 1
    assert await due(store) == []
    await store.failed(mine, "it rained", next_at=1.0)
    (again,) = await due(store)
    assert (again.attempts, again.last_error) == (1, "it rained")


async def test_states_and_retry(store: Deliveries) -> None:
    made = [await store.add(URL, "webhook.test", str(number), "t", b"{}") for number in range(3)]
    begun = [await store.begin(each, 60) for each in made]
    await store.arrived(begun[0])
    await store.failed(begun[1], "gone", next_at=None)
    for state, subject in zip(
        (DeliveryState.DELIVERED, DeliveryState.GIVEN_UP, DeliveryState.WAITING), "012", strict=True
    ):
        (found,) = (await store.page(state=state)).deliveries
        assert (found.subject, found.state) == (subject, state)
    again = await store.retry(begun[1].id)
    assert (again.state, again.attempts, again.id) == (DeliveryState.WAITING, 0, begun[1].id)
    await store.failed(begun[1], "the try before says no more", next_at=None)
    assert (await store.get(again.id)).state is DeliveryState.WAITING
    await store.sweep(-1)
    assert [each.subject for each in (await store.page()).deliveries] == ["2", "1"]
    first = await store.page(limit=1)
    rest = await store.page(cursor=first.next_cursor)
    assert [each.subject for each in [*first.deliveries, *rest.deliveries]] == ["2", "1"]
