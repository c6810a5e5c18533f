"""Device seconds are counted once for each run that ends, by tenant, day and model."""

from dataclasses import replace
from datetime import UTC, date, datetime

from inferq.job import Job, JobState
from storage.ledger import START, Ledger, Recorded
from storage.usage import UsageStore
from tests.storage.builders import spec

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC).timestamp()


def ended(seconds: float, **changes: object) -> Recorded:
    asked = spec(**{"tenant": "a", **changes})
    return Recorded(
        Job(spec=asked, state=JobState.SUCCEEDED, attempt=1, finished_at=NOON, device_seconds=seconds)
    )


async def test_runs_are_summed_by_tenant_and_day(ledger: Ledger):
    events = [ended(1.5), ended(2.0, model="other"), ended(4.0, tenant="b")]
    assert await ledger.record(events, stream="s", old=START, new="1-0")
    store = UsageStore(ledger.database)
    day = date(2026, 11, 22)
    assert await store.seconds_since(day) == {("a", day): 3.5, ("b", day): 4.0}
    assert await store.seconds_since(date(2026, 11, 23)) == {}


async def test_an_event_that_comes_twice_counts_once_and_a_later_generation_again(ledger: Ledger):
    event = ended(1.5)
    for number in (1, 2):
        await ledger.record([event], stream="s", old=START if number == 1 else "1-0", new=f"{number}-0")
    again = Recorded(replace(event.job, generation=1))
    await ledger.record([again], stream="s", old="2-0", new="3-0")
    assert list((await UsageStore(ledger.database).seconds_since(date(2026, 1, 1))).values()) == [3.0]
