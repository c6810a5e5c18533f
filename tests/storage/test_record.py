"""Recording the finish stream: rows and position in one transaction, rows only forward."""

from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from inferq import errors
from inferq.job import RANK, TERMINAL, Job, JobSpec, JobState, new_job_id
from storage.ledger import Ledger
from tests.storage.builders import event, spec


async def test_record_files_a_job_that_sql_did_not_know(ledger: Ledger):
    asked = spec(durable=False, kept=False, metadata={"a": [1]})
    recorded = event(asked, progress=1.0, artifact="b" * 64, result_type="audio/wav")
    assert await ledger.record([recorded], stream="s", old="0-0", new="1-0")
    assert await ledger.get(asked.id) == recorded.job


async def test_record_of_an_accepted_job_keeps_what_was_asked(ledger: Ledger):
    asked = spec()
    await ledger.accept(asked)
    await ledger.record([event(replace(asked, body=b"", model="x"))], stream="s", old="0-0", new="1-0")
    job = await ledger.get(asked.id)
    assert (job.spec, job.state) == (asked, JobState.SUCCEEDED)


async def test_position_starts_at_zero_and_moves_with_the_events(ledger: Ledger):
    assert await ledger.offset("s") == "0-0"
    assert await ledger.record([], stream="s", old="0-0", new="5-0")
    assert await ledger.offset("s") == "5-0"
    assert await ledger.offset("other") == "0-0"


@pytest.mark.parametrize("old", ["0-0", "4-0", "6-0"])
async def test_wrong_position_writes_nothing(ledger: Ledger, old: str):
    await ledger.record([], stream="s", old="0-0", new="5-0")
    asked = spec()
    assert not await ledger.record([event(asked)], stream="s", old=old, new="7-0")
    assert await ledger.get(asked.id) is None
    assert await ledger.offset("s") == "5-0"


async def test_missing_position_counts_as_zero_only(ledger: Ledger):
    assert not await ledger.record([], stream="s", old="1-0", new="2-0")
    assert await ledger.offset("s") == "0-0"


async def test_reset_begins_a_stream_again(ledger: Ledger):
    await ledger.reset_offset("s", "9-0")
    assert await ledger.offset("s") == "9-0"
    await ledger.reset_offset("s", "0-0")
    assert await ledger.record([], stream="s", old="0-0", new="1-0")


async def test_a_refused_row_leaves_position_and_rows_as_they_were(ledger: Ledger):
    good, bad = spec(), spec()
    broken = event(bad)
    object.__setattr__(broken.job.spec, "units", None)
    with pytest.raises(errors.StoreUnavailable):
        await ledger.record([event(good), broken], stream="s", old="0-0", new="1-0")
    assert await ledger.offset("s") == "0-0"
    assert await ledger.get(good.id) is None


async def test_an_older_generation_never_changes_a_newer_row(ledger: Ledger):
    asked = spec()
    await ledger.accept(asked)
    await ledger.cancel(asked.id)
    requeued = await ledger.requeue(asked.id)
    late = [event(asked, state, attempt=9) for state in JobState]
    await ledger.record(late, stream="s", old="0-0", new="1-0")
    assert await ledger.get(asked.id) == requeued


@pytest.mark.parametrize("state", sorted(TERMINAL))
async def test_a_final_state_stays(ledger: Ledger, state: JobState):
    asked = spec()
    await ledger.record([event(asked, state)], stream="s", old="0-0", new="1-0")
    before = await ledger.get(asked.id)
    late = [event(asked, other, attempt=attempt) for other in JobState for attempt in (1, 2)]
    await ledger.record(late, stream="s", old="1-0", new="2-0")
    assert await ledger.get(asked.id) == before


async def test_a_job_handed_back_ends_with_a_lower_attempt(ledger: Ledger):
    asked = spec()
    running, ended = event(asked, JobState.RUNNING, attempt=1), event(asked, JobState.CANCELLED, attempt=0)
    await ledger.record([running, ended], stream="s", old="0-0", new="1-0")
    assert await ledger.get(asked.id) == ended.job


async def test_a_row_never_goes_back_within_an_attempt(ledger: Ledger):
    asked = spec()
    running, before = event(asked, JobState.RUNNING), event(asked, JobState.QUEUED)
    await ledger.record([running, before], stream="s", old="0-0", new="1-0")
    assert await ledger.get(asked.id) == running.job


def test_the_indexes_know_final_states_by_their_rank():
    assert {RANK[state] for state in TERMINAL} == {3}
    assert all(rank < 3 for state, rank in RANK.items() if state not in TERMINAL)


_STEPS = st.lists(
    st.tuples(st.integers(0, 1), st.integers(0, 2), st.sampled_from(list(JobState))), min_size=1, max_size=12
)


def _one_end_per_generation(steps: list[tuple[int, int, JobState]]) -> list[tuple[int, int, JobState]]:
    """Redis ends a generation once; what comes twice is the same event twice."""
    ends: dict[int, tuple[int, int, JobState]] = {}
    return [ends.setdefault(step[0], step) if step[2] in TERMINAL else step for step in steps]


def _furthest(steps: list[tuple[int, int, JobState]]) -> tuple[int, int, JobState]:
    return max(steps, key=lambda step: (step[0], step[2] in TERMINAL, step[1], RANK[step[2]]))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=_STEPS.map(_one_end_per_generation), data=st.data())
async def test_any_order_and_repetition_ends_in_the_same_row(
    ledger: Ledger, steps: list, data: st.DataObject
):
    asked = spec(id=new_job_id(), created_at=1.0)
    if data.draw(st.booleans(), label="accepted first"):
        await ledger.accept(asked)
        steps = [*steps, (0, 0, JobState.QUEUED)]
    repeated = steps + data.draw(st.lists(st.sampled_from(steps), max_size=4), label="repeated")
    events = [
        event(asked, state, generation=generation, attempt=attempt)
        for generation, attempt, state in data.draw(st.permutations(repeated), label="order")
    ]
    cut = data.draw(st.integers(0, len(events)), label="cut")
    for batch in (events[:cut], events[cut:]):
        position = await ledger.offset("s")
        assert await ledger.record(
            batch, stream="s", old=position, new=f"{int(position.split('-')[0]) + 1}-0"
        )
    generation, attempt, state = _furthest(steps)
    assert await ledger.get(asked.id) in _allowed(asked, generation, attempt, state)


def _allowed(asked: JobSpec, generation: int, attempt: int, state: JobState) -> list[Job]:
    """The event itself; a row that accept made stands for the event of the same rank, which says no more."""
    jobs = [event(asked, state, generation=generation, attempt=attempt).job]
    if (generation, attempt) == (0, 0) and RANK[state] == RANK[JobState.QUEUED]:
        jobs.append(Job(spec=asked, state=state, queued_at=asked.created_at))
    return jobs
