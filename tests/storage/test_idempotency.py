"""Keys that stand for jobs, on both databases."""

import asyncio

import pytest

from inferq import errors
from storage.idempotency import Claim, Claims
from storage.ledger import Ledger
from tests.storage.builders import event, spec


def claim(**changes) -> Claim:
    return Claim(**{"tenant": "t", "key": "k", "digest": "d", "ttl": 60.0, **changes})


@pytest.fixture
def claims(ledger: Ledger) -> Claims:
    return Claims(ledger.database)


async def test_the_first_one_has_the_key(claims: Claims) -> None:
    first, second = claim(), claim()
    assert await claims.take(first) == first.job_id
    assert await claims.take(second) == first.job_id
    assert (await claims.find(second)).job_id == first.job_id
    assert await claims.find(claim(key="other")) is None
    assert await claims.find(claim(tenant="other")) is None


async def test_another_request_is_refused(claims: Claims) -> None:
    await claims.take(claim())
    with pytest.raises(errors.IdempotencyMismatch):
        await claims.take(claim(digest="e"))


async def test_what_became_no_job_gives_way(claims: Claims) -> None:
    first = claim()
    await claims.take(first)
    other = claim(digest="e", instead_of=first.job_id)
    assert await claims.take(other) == other.job_id
    with pytest.raises(errors.IdempotencyMismatch):
        await claims.take(claim(instead_of=first.job_id))


async def test_an_old_key_is_free(claims: Claims) -> None:
    await claims.take(claim())
    late = claim(digest="e", ttl=-1.0)
    assert await claims.take(late) == late.job_id
    await claims.sweep(60.0)
    assert await claims.find(claim()) is not None
    await claims.sweep(-1.0)
    assert await claims.find(claim()) is None


async def test_key_and_job_come_together(ledger: Ledger, claims: Claims) -> None:
    """Of calls at the same time one makes its job, and the key stands for that one."""
    asked = [spec() for _ in range(8)]
    made = await asyncio.gather(*(ledger.accept(each, claim=claim(job_id=each.id)) for each in asked))
    assert made.count(True) == 1
    only = asked[made.index(True)].id
    assert (await claims.find(claim())).job_id == only
    assert [job.id for job in (await ledger.list_jobs()).jobs] == [only]


async def test_a_refused_job_leaves_the_key(ledger: Ledger, claims: Claims) -> None:
    await ledger.accept(spec(), bound=1)
    refused = spec()
    with pytest.raises(errors.QueueFull):
        await ledger.accept(refused, bound=1, claim=claim(job_id=refused.id))
    assert await claims.find(claim()) is None


async def test_a_job_is_requeued_once_for_a_key(ledger: Ledger, claims: Claims) -> None:
    asked = spec()
    await ledger.accept(asked)
    mine = claim(job_id=asked.id)
    with pytest.raises(errors.Conflict):
        await ledger.requeue(asked.id, claim=mine)
    assert await claims.find(mine) is None
    await ledger.record([event(asked)], stream="s", old="0-0", new="1-0")
    assert (await ledger.requeue(asked.id, claim=mine)).generation == 1
    await ledger.record([event(asked, generation=1)], stream="s", old="1-0", new="2-0")
    assert (await ledger.requeue(asked.id, claim=mine)).generation == 1
    assert (await ledger.requeue(asked.id, claim=claim(key="new", job_id=asked.id))).generation == 2
