"""Dead letters: listed, grouped by cause, requeued and purged."""

import pytest

from inferq import errors
from inferq.job import Failure, Job, JobSpec, JobState, new_job_id
from inferq.lanes import Lane
from storage.dead import Criteria, DeadLetters, Mark, Revival, mark_of
from storage.ledger import Ledger
from tests.storage.builders import event, spec

ALL = Criteria()


@pytest.fixture
def dead(ledger: Ledger) -> DeadLetters:
    return DeadLetters(ledger.database)


class Bury:
    """Records failed jobs, one second after another."""

    def __init__(self, ledger: Ledger):
        self.ledger = ledger
        self.count = 0

    async def __call__(
        self,
        *,
        code: str = "engine_crashed",
        message: str = "it broke",
        at: float | None = None,
        state: JobState = JobState.FAILED,
        generation: int = 0,
        asked: JobSpec | None = None,
        **changes: object,
    ) -> str:
        self.count += 1
        asked = asked or spec(**changes)
        failure = Failure(code=code, message=message)
        when = 1000.0 + self.count if at is None else at
        ended = event(asked, state, error=failure, finished_at=when, attempt=3, generation=generation)
        old = await self.ledger.offset("s")
        await self.ledger.record([ended], stream="s", old=old, new=f"{self.count}-0")
        return asked.id


@pytest.fixture
def bury(ledger: Ledger) -> Bury:
    return Bury(ledger)


def ids(jobs: list[Job]) -> list[str]:
    return [job.id for job in jobs]


async def test_only_failed_jobs_are_dead_letters(ledger: Ledger, dead: DeadLetters, bury: Bury):
    failed = await bury()
    for state in JobState:
        if state is not JobState.FAILED:
            await bury(state=state)
    assert ids(await dead.newest(ALL)) == [failed]
    assert ids(await dead.oldest(ALL, limit=9)) == [failed]


async def test_pages_hold_each_once_the_newest_failure_first(dead: DeadLetters, bury: Bury):
    # Created in one order, failed in another, two at the same moment.
    buried = [await bury(at=at) for at in (5.0, 9.0, 7.0, 7.0, 3.0)]
    wanted = [buried[1], *sorted(buried[2:4], reverse=True), buried[0], buried[4]]
    seen: list[str] = []
    after = None
    while page := await dead.newest(ALL, after, limit=2):
        seen += ids(page)
        after = Mark.read(mark_of(page[-1]).written())
    assert seen == wanted
    assert ids(await dead.oldest(ALL, limit=9)) == wanted[::-1]
    first = (await dead.oldest(ALL, limit=1))[0]
    assert ids(await dead.oldest(ALL, mark_of(first), limit=9)) == wanted[-2::-1]


async def test_lists_leave_bodies_out_and_batches_have_them(dead: DeadLetters, bury: Bury):
    await bury()
    (listed,), (whole,) = await dead.newest(ALL), await dead.oldest(ALL, limit=1)
    assert (listed.spec.body, whole.spec.body) == (b"", b'{"messages": []}')


@pytest.mark.parametrize(
    ("name", "value"),
    [("model", "other"), ("lane", Lane.LOW), ("tenant", "other"), ("source", "file:/in/x"), ("code", "oops")],
)
async def test_each_criterion_selects(dead: DeadLetters, bury: Bury, name: str, value: str):
    await bury()
    wanted = await bury(**{name: value})
    await bury()
    assert ids(await dead.newest(Criteria(**{name: value}))) == [wanted]


async def test_times_and_ids_select(dead: DeadLetters, bury: Bury):
    buried = [await bury(at=float(at)) for at in range(5)]
    assert ids(await dead.oldest(Criteria(since=1.0, until=3.0), limit=9)) == buried[1:3]
    assert ids(await dead.oldest(Criteria(ids=(buried[4], new_job_id())), limit=9)) == buried[4:]
    assert await dead.oldest(Criteria(ids=()), limit=9) == []


async def test_causes_fold_what_differs_from_job_to_job(dead: DeadLetters, bury: Bury):
    for number in range(3):
        last = await bury(message=f"cannot read /data/{number}/a.wav after {number}.5 s", at=10.0 + number)
    other = await bury(message="no room", code="out_of_memory", at=99.0)
    await bury(message="no room", code="out_of_memory", model="b", at=5.0)
    found = await dead.causes(ALL)
    assert (found.looked_at, found.complete) == (5, True)
    first, second, third = found.causes
    assert (first.pattern, first.count, first.code) == ("cannot read <path> after <n> s", 3, "engine_crashed")
    assert (first.first_at, first.last_at, first.example) == (10.0, 12.0, last)
    assert (second.model, second.example, third.model) == ("demo", other, "b")
    assert len((await dead.causes(ALL, limit=1)).causes) == 1
    assert [cause.model for cause in (await dead.causes(Criteria(model="b"))).causes] == ["b"]


async def test_more_than_is_looked_at_is_told(dead: DeadLetters, bury: Bury, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("storage.dead.LOOKED_AT", 2)
    for number in range(3):
        await bury(message="abc"[number])
    found = await dead.causes(ALL)
    assert (found.looked_at, found.complete) == (2, False)


async def test_requeue_begins_a_clean_generation_with_the_changes(
    ledger: Ledger, dead: DeadLetters, bury: Bury
):
    plain = await bury(durable=False, kept=False, due_at=5.0, expires_at=6.0)
    edited = await bury()
    first, second = await dead.oldest(ALL, limit=9)
    changes = {"body": b"new", "lane": Lane.LOW, "model": "other", "units": 7.5}
    done = await dead.requeue([Revival(second, changes), Revival(first)])
    assert sorted(ids(done)) == sorted([plain, edited])
    row = await ledger.get(plain)
    assert (row.state, row.generation, row.attempt, row.error) == (JobState.QUEUED, 1, 0, None)
    assert (row.spec.durable, row.spec.kept, row.spec.due_at, row.spec.expires_at) == (True, True, None, None)
    assert (row.spec.body, row.spec.lane) == (first.spec.body, first.spec.lane)
    changed = await ledger.get(edited)
    assert {name: getattr(changed.spec, name) for name in changes} == changes
    assert await dead.newest(ALL) == []
    assert {job.id for job in await ledger.unfinished()} == {plain, edited}


async def test_what_moved_on_since_it_was_looked_at_is_left_alone(
    ledger: Ledger, dead: DeadLetters, bury: Bury
):
    queued, again, cancelled = spec(), spec(), spec()
    for asked in (queued, again, cancelled):
        await bury(asked=asked)
    looked_at = [Revival(job) for job in await dead.oldest(ALL, limit=9)]
    for asked in (queued, again, cancelled):
        await ledger.requeue(asked.id)
    await bury(asked=again, generation=1)
    await ledger.cancel(cancelled.id)
    assert await dead.requeue(looked_at) == []
    found = [await ledger.get(asked.id) for asked in (queued, again, cancelled)]
    assert [job.state for job in found] == ["queued", "failed", "cancelled"]
    assert [job.generation for job in found] == [1, 1, 1]


async def test_twice_in_one_call_is_once(dead: DeadLetters, bury: Bury):
    await bury()
    (job,) = await dead.oldest(ALL, limit=1)
    assert len(await dead.requeue([Revival(job), Revival(job)])) == 1


async def test_purge_deletes_dead_letters_only_the_oldest_first(
    ledger: Ledger, dead: DeadLetters, bury: Bury
):
    buried = [await bury() for _ in range(3)]
    kept = await bury(state=JobState.SUCCEEDED)
    waiting = spec()
    await ledger.accept(waiting)
    assert await dead.count(ALL, at_most=9) == 3
    assert await dead.count(ALL, at_most=2) == 2
    assert set(await dead.purge(ALL, limit=2)) == set(buried[:2])
    assert await dead.purge(ALL, limit=2) == buried[2:]
    assert await dead.purge(ALL, limit=2) == []
    assert await ledger.get(buried[0]) is None
    assert {job.id for job in (await ledger.list_jobs()).jobs} == {kept, waiting.id}


async def test_purge_takes_only_what_the_criteria_say(dead: DeadLetters, bury: Bury):
    old, new = await bury(at=1.0), await bury(at=100.0)
    assert await dead.purge(Criteria(until=50.0), limit=9) == [old]
    assert await dead.purge(Criteria(model="none"), limit=9) == []
    assert ids(await dead.newest(ALL)) == [new]


async def test_an_error_file_that_is_not_written_yet_keeps_its_job(
    ledger: Ledger, dead: DeadLetters, bury: Bury
):
    job_id = await bury(source="file:/in/a.json")
    assert await dead.count(ALL, at_most=9) == 0
    assert await dead.purge(ALL, limit=9) == []
    await ledger.mark_delivered(job_id)
    assert await dead.purge(ALL, limit=9) == [job_id]


@pytest.mark.parametrize("cursor", ["ä", "x", "////", "bmFuIHggaW5m", "MS4wIHggaW5m"])
def test_a_foreign_cursor_is_refused(cursor: str):
    with pytest.raises(errors.InvalidRequest) as caught:
        Mark.read(cursor)
    assert caught.value.param == "cursor"


def test_a_cursor_keeps_its_place_exactly():
    mark = Mark(1_795_000_000.123456, new_job_id(), 1_795_000_001.1)
    assert Mark.read(mark.written()) == mark
