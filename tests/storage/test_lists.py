"""Lists, pages and counts."""

import pytest

from inferq import errors
from inferq.job import JobState, new_job_id
from inferq.lanes import Lane
from storage.ledger import Ledger
from tests.storage.builders import event, spec


async def test_pages_hold_every_job_once_newest_first(ledger: Ledger):
    asked = [spec() for _ in range(7)]
    for each in asked:
        await ledger.accept(each)
    seen, cursor = [], None
    while True:
        page = await ledger.list_jobs(cursor=cursor, limit=3)
        assert len(page.jobs) <= 3
        seen += [job.id for job in page.jobs]
        cursor = page.next_cursor
        if cursor is None:
            break
    assert seen == sorted((each.id for each in asked), reverse=True)


async def test_a_full_last_page_has_no_cursor(ledger: Ledger):
    for _ in range(2):
        await ledger.accept(spec())
    assert (await ledger.list_jobs(limit=2)).next_cursor is None


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("model", "other"),
        ("lane", Lane.LOW),
        ("tenant", "other"),
        ("source", "watch:/in/x"),
        ("endpoint", "embeddings"),
        ("durable", False),
    ],
)
async def test_each_filter_selects(ledger: Ledger, name: str, value: object):
    wanted = spec(**{name: value})
    for each in (spec(), wanted, spec()):
        await ledger.accept(each)
    page = await ledger.list_jobs(**{name: value})
    assert [job.id for job in page.jobs] == [wanted.id]


async def test_filter_by_state(ledger: Ledger):
    first, second = spec(), spec()
    for each in (first, second):
        await ledger.accept(each)
    await ledger.cancel(first.id)
    assert [job.id for job in (await ledger.list_jobs(state=JobState.CANCELLED)).jobs] == [first.id]


async def test_lists_leave_bodies_and_results_out(ledger: Ledger):
    asked = spec()
    await ledger.record([event(asked)], stream="s", old="0-0", new="1-0")
    (job,) = (await ledger.list_jobs()).jobs
    assert (job.spec.body, job.result, job.state) == (b"", None, JobState.SUCCEEDED)


@pytest.mark.parametrize("cursor", ["ä", "x", "////", "gICA", "eHh4", "JzsgLS0"])
async def test_a_foreign_cursor_is_refused(ledger: Ledger, cursor: str):
    with pytest.raises(errors.InvalidRequest) as caught:
        await ledger.list_jobs(cursor=cursor)
    assert caught.value.param == "cursor"


async def test_counts_by_model_and_state(ledger: Ledger):
    cancelled = spec(model="b")
    for each in (spec(model="a"), spec(model="a"), spec(model="b"), cancelled):
        await ledger.accept(each)
    await ledger.cancel(cancelled.id)
    assert await ledger.counts() == {
        ("a", JobState.QUEUED): 2,
        ("b", JobState.QUEUED): 1,
        ("b", JobState.CANCELLED): 1,
    }


async def test_counts_see_only_the_newest(ledger: Ledger, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("storage.ledger.COUNTED", 1)
    for model in ("old", "new"):
        await ledger.accept(spec(model=model))
    assert await ledger.counts() == {("new", JobState.QUEUED): 1}


async def test_spans_of_what_has_ended_since(ledger: Ledger):
    """Jobs that wait have no end, and those that ended before are left out."""
    late, early, waits = spec(model="late"), spec(model="early"), spec()
    await ledger.accept(waits)
    events = [event(late, finished_at=50.0), event(early, JobState.FAILED, finished_at=49.0)]
    await ledger.record(events, stream="s", old="0-0", new="1-0")
    (span,) = await ledger.spans(50.0)
    assert (span.model, span.state, span.finished_at) == ("late", JobState.SUCCEEDED, 50.0)
    assert (span.queued_at, span.started_at) == (0.0, 0.125)
    assert {each.model for each in await ledger.spans(0.0)} == {"late", "early"}


async def test_spans_are_those_of_the_newest(ledger: Ledger, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("storage.ledger.COUNTED", 1)
    ids = sorted(new_job_id() for _ in range(2))
    events = [event(spec(id=job_id, model=model)) for job_id, model in zip(ids, ("old", "new"), strict=True)]
    await ledger.record(events, stream="s", old="0-0", new="1-0")
    assert [span.model for span in await ledger.spans(0.0)] == ["new"]
