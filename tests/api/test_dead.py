"""Dead letters over HTTP: listed, grouped, looked at, requeued and purged, by whom it may be."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import redis.exceptions

from inferq.config import Settings
from inferq.job import Failure, new_job_id
from tests.api.stack import ANSWER, BROKEN, CHAT, Replica, Stack, recorded, serving, settings_for

Bury = Callable[..., Awaitable[str]]


class Away:
    """A pool whose Redis is away."""

    def __getattr__(self, name: str) -> Any:
        raise redis.exceptions.ConnectionError("away")


@pytest.fixture
def bury(stack: Stack, replica: Replica, settings: Settings) -> Bury:
    """Submits a job that fails; its id when it is a dead letter."""

    async def made(who: str = "user", failure: Failure = BROKEN, **changes: Any) -> str:
        job_id = await stack.submit(who, **changes)
        await replica.fail(await replica.claim(), failure)
        await recorded(settings, stack.context)
        return job_id

    return made


async def dead(stack: Stack, query: str = "", who: str = "user") -> list[str]:
    response = await stack.get(f"/v1/dead{query}", who)
    assert response.status_code == 200, response.text
    return [job["id"] for job in response.json()["data"]]


async def requeue(stack: Stack, who: str = "user", **wanted: Any) -> dict[str, Any]:
    response = await stack.post("/v1/dead/requeue", wanted, who)
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


async def purge(stack: Stack, **wanted: Any) -> dict[str, Any]:
    response = await stack.post("/v1/dead/purge", wanted, "admin")
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


async def test_dead_letters_are_listed_and_paged(stack: Stack, bury: Bury) -> None:
    buried = [await bury() for _ in range(3)]
    await stack.submit()
    page = (await stack.get("/v1/dead?limit=2")).json()
    assert [job["id"] for job in page["data"]] == [buried[2], buried[1]]
    assert page["data"][0]["error"] == BROKEN.as_dict()
    assert page["has_more"]
    assert await dead(stack, f"?limit=2&cursor={page['next_cursor']}") == [buried[0]]


async def test_filters_select(stack: Stack, bury: Bury) -> None:
    plain = await bury()
    other = await bury(failure=Failure(code="oops", message="m"), priority="low")
    assert await dead(stack, "?code=oops") == await dead(stack, "?lane=low") == [other]
    assert await dead(stack, "?code=engine_error&model=demo-chat&source=api") == [plain]
    assert await dead(stack, "?since=1h") == [other, plain]
    assert await dead(stack, "?until=1h") == await dead(stack, "?since=4000000000") == []


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ("?colour=red", "colour"),
        ("?lane=top", "lane"),
        ("?since=never", "since"),
        ("?limit=0", "limit"),
        ("?cursor=x", "cursor"),
        (f"?model={'m' * 300}", "model"),
        ("?code=%00", "code"),
    ],
)
async def test_a_wrong_query_is_refused(stack: Stack, query: str, param: str) -> None:
    for path in ("/v1/dead", "/v1/dead/groups"):
        response = await stack.get(path + query)
        assert response.status_code == 400
        assert response.json()["error"]["param"] == param


async def test_causes(stack: Stack, bury: Bury) -> None:
    for number in range(2):
        last = await bury(failure=Failure(code="engine_error", message=f"no file /tmp/x/{number}"))
    await bury("other", failure=Failure(code="oops", message="m"))
    groups = (await stack.get("/v1/dead/groups", "admin")).json()
    assert (groups["looked_at"], groups["complete"]) == (3, True)
    first, second = groups["data"]
    assert first == {
        **first,
        "model": "demo-chat",
        "code": "engine_error",
        "pattern": "no file <path>",
        "count": 2,
        "example": last,
    }
    assert first["first_at"] < first["last_at"] < second["first_at"]
    mine = (await stack.get("/v1/dead/groups")).json()["data"]
    assert [group["code"] for group in mine] == ["engine_error"]


async def test_a_dead_letter_shows_its_request(stack: Stack, bury: Bury) -> None:
    job_id = await bury(temperature=1)
    shown = (await stack.get(f"/v1/dead/{job_id}")).json()
    assert (shown["id"], shown["state"], shown["body"]) == (job_id, "failed", {**CHAT, "temperature": 1})
    assert (await stack.get(f"/v1/dead/{job_id}", "other")).status_code == 404
    assert (await stack.get(f"/v1/dead/{new_job_id()}")).status_code == 404
    assert (await stack.get(f"/v1/dead/{await stack.submit()}")).status_code == 409


async def test_users_have_their_own_tenants_only(stack: Stack, bury: Bury) -> None:
    mine, theirs = await bury("user"), await bury("other")
    assert await dead(stack) == await dead(stack, "?tenant=other") == [mine]
    assert await dead(stack, who="admin") == await dead(stack, who="readonly") == [theirs, mine]
    assert await dead(stack, "?tenant=other", who="admin") == [theirs]
    assert (await requeue(stack, ids=[theirs]))["matched"] == 0
    assert (await requeue(stack, all=True))["ids"] == [mine]
    assert (await requeue(stack, "admin", all=True))["ids"] == [theirs]


async def test_requeued_jobs_run_again(
    stack: Stack, bury: Bury, replica: Replica, settings: Settings
) -> None:
    buried = [await bury() for _ in range(3)]
    answer = await requeue(stack, filter={"code": "engine_error"})
    assert answer == {
        **answer,
        "object": "dead.requeue",
        "dry_run": False,
        "matched": 3,
        "requeued": 3,
        "waiting": 0,
        "refused": 0,
        "ids": buried,
        "refusals": [],
        "has_more": False,
        "next_cursor": None,
    }
    assert await dead(stack) == []
    for job_id in buried:
        assert (await replica.answer_one()).id == job_id
    await recorded(settings, stack.context)
    job = (await stack.get(f"/v1/jobs/{buried[0]}")).json()
    assert (job["state"], job["generation"], job["attempt"]) == ("succeeded", 1, 1)
    assert job["result"] == json.loads(ANSWER)


async def test_an_interactive_failure_can_be_requeued_too(
    stack: Stack, replica: Replica, settings: Settings
) -> None:
    call = asyncio.create_task(stack.post("/v1/chat/completions", CHAT))
    attempt = await replica.claim()
    assert not attempt.job.spec.durable
    await replica.fail(attempt)
    assert (await call).status_code == 500
    await recorded(settings, stack.context)
    assert await dead(stack) == [attempt.id]
    assert (await requeue(stack, ids=[attempt.id]))["requeued"] == 1
    again = await replica.claim()
    assert (again.id, again.job.spec.durable, again.job.spec.body) == (
        attempt.id,
        True,
        attempt.job.spec.body,
    )


async def test_edits_change_each_job(stack: Stack, bury: Bury, replica: Replica) -> None:
    buried = [await bury(temperature=value, stop="x", priority="low") for value in (0.5, 1)]
    edits = {"body": {"stop": None, "max_tokens": 5}, "priority": "high", "metadata": {"again": "yes"}}
    assert (await requeue(stack, ids=buried, edits=edits))["requeued"] == 2
    for value in (0.5, 1):
        spec = (await replica.claim()).job.spec
        assert json.loads(spec.body) == {**CHAT, "temperature": value, "max_tokens": 5}
        assert (spec.lane, spec.metadata) == ("high", {"again": "yes"})


async def test_what_cannot_run_stays_and_says_why(stack: Stack, bury: Bury) -> None:
    good, bad = await bury(), await bury(messages=[{"role": "user", "content": "x" * 30}])
    edits = {"body": {"messages": [{"role": "user", "content": "y " * 30_000}]}}
    answer = await requeue(stack, ids=[bad], edits=edits)
    assert (answer["matched"], answer["requeued"], answer["refused"]) == (1, 0, 1)
    (refusal,) = answer["refusals"]
    assert (refusal["id"], refusal["code"]) == (bad, "context_length_exceeded")
    answer = await requeue(stack, ids=[bad], edits={"model": "demo-embed"})
    assert answer["refusals"][0]["param"] == "model"
    assert await dead(stack) == [bad, good]


async def test_a_dry_run_changes_nothing(stack: Stack, bury: Bury) -> None:
    buried = [await bury() for _ in range(2)]
    answer = await requeue(stack, all=True, dry_run=True)
    assert (answer["dry_run"], answer["ids"]) == (True, buried)
    answer = await requeue(stack, all=True, dry_run=True, edits={"model": "nobody"})
    assert (answer["requeued"], answer["refused"]) == (0, 2)
    answer = await purge(stack, all=True, dry_run=True)
    assert (answer["dry_run"], answer["purged"], answer["has_more"]) == (True, 2, False)
    answer = await purge(stack, all=True, dry_run=True, limit=1)
    assert (answer["purged"], answer["has_more"]) == (1, True)
    assert await dead(stack) == buried[::-1]


async def test_many_are_requeued_call_by_call(stack: Stack, bury: Bury, replica: Replica) -> None:
    """What is refused does not stand in the way, and what fails again meanwhile is not met again."""
    buried = [await bury() for _ in range(5)]
    first = await requeue(stack, all=True, limit=2, edits={"model": "nobody"})
    assert (first["refused"], first["has_more"]) == (2, True)
    second = await requeue(stack, all=True, limit=2, cursor=first["next_cursor"])
    assert second["ids"] == buried[2:4]
    attempt = await replica.claim()
    await replica.fail(attempt)
    last = await requeue(stack, all=True, limit=200, cursor=second["next_cursor"])
    assert (last["ids"], last["has_more"], last["next_cursor"]) == (buried[4:], False, None)


async def test_what_fails_again_is_in_no_call_of_the_same_run(
    stack: Stack, bury: Bury, replica: Replica, settings: Settings
) -> None:
    buried = [await bury() for _ in range(3)]
    answer = await requeue(stack, all=True, limit=1)
    await replica.fail(await replica.claim())
    await recorded(settings, stack.context)
    seen = []
    while answer["next_cursor"]:
        answer = await requeue(stack, all=True, limit=1, cursor=answer["next_cursor"])
        seen += answer["ids"]
    assert seen == buried[1:]
    assert await dead(stack) == buried[:1]


async def test_with_redis_away_they_wait_for_the_reconciler(
    stack: Stack, bury: Bury, monkeypatch: pytest.MonkeyPatch
) -> None:
    buried = [await bury() for _ in range(2)]
    monkeypatch.setattr(stack.context.gateway.queue.redis, "connection_pool", Away())
    answer = await requeue(stack, all=True)
    assert (answer["ids"], answer["waiting"]) == (buried, 2)
    monkeypatch.undo()
    unfinished = await stack.context.storage.ledger.unfinished()
    assert [(job.id, job.in_queue, job.generation) for job in unfinished] == [
        (each, False, 1) for each in buried
    ]
    jobs = await stack.context.storage.ledger.unfinished_among(buried)
    assert [(job.id, job.state) for job in jobs] == [(each, "queued") for each in buried]


async def test_a_full_queue_is_told_and_keeps_them(tmp_path: Path, redis_url: str, template: Path) -> None:
    settings = settings_for(tmp_path / "home", redis_url, queue={"max_queue_size": 1})
    replica = Replica(settings)
    async with serving(settings, template) as stack:
        job_id = await stack.submit()
        await replica.fail(await replica.claim())
        await recorded(settings, stack.context)
        await stack.submit()
        answer = await requeue(stack, all=True)
        assert [each["code"] for each in answer["refusals"]] == ["queue_full"]
        assert await dead(stack) == [job_id]
        await replica.answer_one()
        assert (await requeue(stack, all=True))["ids"] == [job_id]
    await replica.close()


async def test_no_more_are_requeued_than_there_is_room_for(
    tmp_path: Path, redis_url: str, template: Path
) -> None:
    settings = settings_for(tmp_path / "home", redis_url, queue={"max_queue_size": 3, "max_tenant_jobs": 3})
    replica = Replica(settings)
    async with serving(settings, template) as stack:
        buried = []
        for _ in range(5):
            buried.append(await stack.submit())
            await replica.fail(await replica.claim())
        await recorded(settings, stack.context)
        answer = await requeue(stack, all=True)
        assert (answer["ids"], answer["waiting"]) == (buried[:3], 0)
        assert [each["id"] for each in answer["refusals"]] == buried[3:]
        assert sorted(await dead(stack)) == buried[3:]
        await replica.answer_one()
        assert (await requeue(stack, all=True))["ids"] == [buried[3]], "the places are not kept twice"
    await replica.close()


async def test_purged_jobs_are_gone(stack: Stack, bury: Bury) -> None:
    first, second = await bury(), await bury(failure=Failure(code="oops", message="m"))
    answer = await purge(stack, filter={"code": "oops"})
    assert (answer["purged"], answer["has_more"]) == (1, False)
    assert await dead(stack) == [first]
    assert (await stack.get(f"/v1/jobs/{second}")).status_code == 404
    assert (await purge(stack, older_than="1h"))["purged"] == 0
    assert (await purge(stack, older_than=0))["purged"] == 1


async def test_purge_goes_on_call_by_call(stack: Stack, bury: Bury) -> None:
    for _ in range(3):
        await bury()
    answers = [await purge(stack, all=True, limit=2) for _ in range(2)]
    assert [(answer["purged"], answer["has_more"]) for answer in answers] == [(2, True), (1, False)]


@pytest.mark.parametrize("path", ["/v1/dead/requeue", "/v1/dead/purge"])
@pytest.mark.parametrize(
    ("wanted", "param"),
    [
        ({}, "filter"),
        ({"filter": {}}, "filter"),
        ({"filter": {"model": None}}, "filter"),
        ({"all": False}, "filter"),
        ({"all": "yes"}, "all"),
        ({"ids": []}, "ids"),
        ({"ids": ["x"]}, "ids[0]"),
        ({"ids": [5]}, "ids[0]"),
        ({"filter": {"colour": "red"}}, "colour"),
        ({"filter": {"since": "never"}}, "since"),
        ({"all": True, "limit": 1001}, "limit"),
        ({"everything": True}, "everything"),
    ],
)
async def test_a_wrong_body_is_refused(stack: Stack, path: str, wanted: dict[str, Any], param: str) -> None:
    response = await stack.post(path, wanted, "admin")
    assert response.status_code == 400, response.text
    assert response.json()["error"]["param"] == param


@pytest.mark.parametrize(
    ("path", "wanted", "param"),
    [
        ("requeue", {"all": True, "cursor": "x"}, "cursor"),
        ("requeue", {"all": True, "edits": {"colour": 1}}, "colour"),
        ("requeue", {"all": True, "edits": {"priority": "top"}}, "priority"),
        ("purge", {"older_than": "long"}, "older_than"),
        ("purge", {"older_than": -1}, "older_than"),
        ("purge", {"older_than": 1e300}, "older_than"),
        ("purge", {"older_than": "1d", "filter": {"until": "1d"}}, "older_than"),
        ("purge", {"all": True, "edits": {}}, "edits"),
    ],
)
async def test_a_wrong_choice_is_refused(stack: Stack, path: str, wanted: dict[str, Any], param: str) -> None:
    response = await stack.post(f"/v1/dead/{path}", wanted, "admin")
    assert response.status_code == 400, response.text
    assert response.json()["error"]["param"] == param


async def test_only_administrators_purge(stack: Stack, bury: Bury) -> None:
    job_id = await bury()
    for who in ("user", "readonly"):
        assert (await stack.post("/v1/dead/purge", {"ids": [job_id]}, who)).status_code == 403
    assert (await stack.post("/v1/dead/requeue", {"ids": [job_id]}, "readonly")).status_code == 403
    assert await dead(stack) == [job_id]


async def test_a_job_that_waited_for_another_waits_for_it_again(
    stack: Stack, bury: Bury, replica: Replica, settings: Settings
) -> None:
    first = await stack.submit()
    text = [{"role": "user", "content": "{{jobs.0.choices.0.message.content}}"}]
    second = await stack.submit(messages=text, depends_on=[first])
    await replica.fail(await replica.claim())
    await recorded(settings, stack.context)
    assert await dead(stack) == [second, first]
    refused = await requeue(stack, ids=[second], edits={"body": {"max_tokens": 5}})
    assert [each["code"] for each in refused["refusals"]] == ["conflict"]
    answer = await requeue(stack, ids=[first, second])
    assert (answer["requeued"], answer["refused"], answer["waiting"]) == (2, 0, 0)
    states = [(await stack.get(f"/v1/jobs/{each}")).json()["state"] for each in (first, second)]
    assert states == ["queued", "scheduled"]
    assert (await replica.claim()).id == first
    assert await replica.attempts.claim() is None


async def test_what_it_waited_for_was_purged(
    stack: Stack, bury: Bury, replica: Replica, settings: Settings
) -> None:
    """It stays a dead letter, and does not hold up the others."""
    good, first = await bury(), await stack.submit()
    text = [{"role": "user", "content": "{{jobs.0.choices.0.message.content}}"}]
    second = await stack.submit(messages=text, depends_on=[first])
    await replica.fail(await replica.claim())
    await recorded(settings, stack.context)
    assert (await purge(stack, ids=[first]))["purged"] == 1
    answer = await requeue(stack, all=True)
    assert (answer["ids"], [each["id"] for each in answer["refusals"]]) == ([good], [second])
    assert answer["refusals"][0]["code"] == "job_not_found"
    assert await dead(stack) == [second]
    queue = stack.context.gateway.queue
    assert await queue.redis.zcard(f"{queue.prefix}held:demo-chat") == 0, "what does not wait keeps no place"
