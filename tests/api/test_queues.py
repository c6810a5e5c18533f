"""Queues over HTTP: what waits and runs, pauses and drains, another priority for a waiting job, lanes of keys."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from inferq.config import Settings
from inferq.job import new_job_id
from inferq.lanes import Lane
from queues.presence import NodeInfo, Presence
from storage.keys import Role
from tests.api.stack import CHAT, Replica, Stack, recorded, serving, settings_for


async def pauses(stack: Stack) -> list[tuple[str, str, str | None]]:
    found = (await stack.get("/v1/queues")).json()["pauses"]
    return [(pause["kind"], pause["name"], pause["reason"]) for pause in found]


async def stop(stack: Stack, kind: str, name: str, **more: Any) -> Any:
    return await stack.post("/v1/queues/pauses", {"kind": kind, "name": name, **more}, "admin")


async def test_what_waits_and_runs_is_listed(stack: Stack, replica: Replica) -> None:
    await stack.submit(priority="high")
    await replica.claim()
    await stack.submit(priority="low")
    await stack.submit("other", priority="low")
    listed = (await stack.get("/v1/queues", "readonly")).json()
    queue = next(queue for queue in listed["data"] if queue["model"] == "demo-chat")
    assert queue["waiting"] == {"high": 0, "medium": 0, "low": 2}
    assert queue["running"] == {"high": 1, "medium": 0, "low": 0}
    assert queue["bytes"] > 0
    assert [(t["name"], t["waiting"], t["running"]) for t in queue["tenants"]] == [
        ("other", 1, 0),
        ("user", 1, 1),
    ]
    assert not queue["paused"]


async def test_a_user_sees_no_other_tenant(stack: Stack) -> None:
    await stack.submit("other")
    (queue,) = [q for q in (await stack.get("/v1/queues")).json()["data"] if q["model"] == "demo-chat"]
    assert queue["tenants"] == []
    assert queue["waiting"]["medium"] == 1


async def test_a_user_sees_no_other_tenants_pauses_and_limits(
    tmp_path: Path, redis_url: str, template: Path
) -> None:
    bounds = {"*": {"max_running": 9}, "user": {"max_running": 2}, "other": {"max_running": 1}}
    async with serving(settings_for(tmp_path / "home", redis_url, tenants=bounds), template) as stack:
        await stop(stack, "tenant", "other", reason="has not paid")
        await stop(stack, "tenant", "user", reason="asked for it")
        await stop(stack, "lane", "low")
        own = (await stack.get("/v1/queues")).json()
        assert [pause["name"] for pause in own["pauses"]] == ["user", "low"]
        assert own["limits"] == {"running:tenants": 9, "running:tenant:user": 2}
        assert (await stack.get("/status")).json()["pauses"] == own["pauses"]
        everything = (await stack.get("/v1/queues", "readonly")).json()
        assert [pause["name"] for pause in everything["pauses"]] == ["other", "user", "low"]
        assert everything["limits"]["running:tenant:other"] == 1


async def test_one_key_cannot_fill_the_queue_for_another(
    tmp_path: Path, redis_url: str, template: Path
) -> None:
    settings = settings_for(tmp_path / "home", redis_url, queue={"max_queue_size": 4})
    async with serving(settings, template) as stack:
        answers = [await stack.post("/v1/jobs", CHAT) for _ in range(4)]
        assert [answer.status_code for answer in answers] == [202, 202, 429, 429]
        assert "max_tenant_jobs" in answers[2].json()["error"]["message"]
        assert (await stack.post("/v1/chat/completions", CHAT)).status_code == 429
        await stack.submit("other")
        await stack.submit("other")


async def test_a_model_is_paused_by_its_alias_and_resumed(stack: Stack, replica: Replica) -> None:
    answer = await stop(stack, "model", "gpt-4o-mini", reason="new weights")
    assert answer.status_code == 200
    assert answer.json() == {**answer.json(), "name": "demo-chat", "action": "pause", "in_force": True}
    job_id = await stack.submit()
    assert await replica.attempts.claim() is None
    assert await pauses(stack) == [("model", "demo-chat", "new weights")]
    resumed = await stack.http.delete("/v1/queues/pauses/model/demo-chat", headers=stack.headers("admin"))
    assert resumed.json()["in_force"] is True
    assert (await replica.claim()).id == job_id
    assert await pauses(stack) == []


async def test_only_what_exists_is_drained(stack: Stack, settings: Settings) -> None:
    refused = await stop(stack, "node", "gpu-2")
    assert refused.status_code == 404
    assert "There is no node 'gpu-2'" in refused.json()["error"]["message"]
    presence = Presence(stack.context.gateway.queue.redis, settings.queue.prefix)
    await presence.show_node(NodeInfo(name="gpu-2", pid=1, seen_at=1.0))
    assert (await stop(stack, "node", "gpu-2")).json()["action"] == "drain"


async def resume(stack: Stack, kind: str, name: str) -> Any:
    return await stack.http.delete(f"/v1/queues/pauses/{kind}/{name}", headers=stack.headers("admin"))


async def test_a_resume_says_whether_it_was_stopped(stack: Stack) -> None:
    await stop(stack, "model", "demo-chat")
    first, second = [(await resume(stack, "model", "gpt-4o-mini")).json() for _ in range(2)]
    assert (first["name"], first["was_stopped"]) == ("demo-chat", True)
    assert (second["name"], second["was_stopped"], second["in_force"]) == ("demo-chat", False, True)


@pytest.mark.parametrize("kind", ["model", "tenant", "lane", "replica", "node"])
async def test_what_does_not_exist_is_not_resumed(stack: Stack, kind: str) -> None:
    assert (await resume(stack, kind, "demo-caht")).status_code in (400, 404)


async def test_what_is_gone_by_now_can_be_resumed(stack: Stack) -> None:
    await stack.context.storage.pauses.put("node", "gpu-2", None)
    assert (await resume(stack, "node", "gpu-2")).json()["was_stopped"] is True
    assert await pauses(stack) == []


async def test_only_a_tenant_that_is_known_is_paused(tmp_path: Path, redis_url: str, template: Path) -> None:
    settings = settings_for(tmp_path / "home", redis_url, tenants={"*": {"max_jobs": 9}, "bounded": {}})
    async with serving(settings, template) as stack:
        await stack.submit("other")
        await stack.http.delete("/v1/keys/other", headers=stack.headers("admin"))
        for name in ("bounded", "user", "other", "files"):
            assert (await stop(stack, "tenant", name)).status_code == 200
        for name in ("usr", "*"):
            assert (await stop(stack, "tenant", name)).status_code == 404
        assert "Did you mean 'user'?" in (await stop(stack, "tenant", "usr")).json()["error"]["message"]


async def test_the_status_names_what_is_stopped(stack: Stack) -> None:
    await stop(stack, "lane", "low", reason="night")
    (pause,) = (await stack.get("/status", "readonly")).json()["pauses"]
    assert (pause["kind"], pause["name"], pause["action"], pause["reason"]) == (
        "lane",
        "low",
        "pause",
        "night",
    )


async def test_legal_values_are_plain_words(stack: Stack) -> None:
    message = (await stop(stack, "modle", "x")).json()["error"]["message"]
    assert message.endswith("Legal values: 'model', 'tenant', 'lane', 'replica', 'node'.")


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"kind": "device", "name": "x"}, "kind"),
        ({"kind": "model"}, "name"),
        ({"kind": "lane", "name": "urgent"}, "name"),
        ({"kind": "model", "name": "nobody"}, "model"),
        ({"kind": "tenant", "name": "x" * 300}, "name"),
        ({"kind": "tenant", "name": "a", "reason": "x" * 501}, "reason"),
        ({"kind": "tenant", "name": "a", "why": "x"}, "why"),
    ],
)
async def test_a_bad_pause_is_refused_by_name(stack: Stack, body: dict[str, Any], param: str) -> None:
    answer = await stack.post("/v1/queues/pauses", body, "admin")
    assert answer.status_code in (400, 404)
    assert answer.json()["error"]["param"] == param
    assert await pauses(stack) == []


@pytest.mark.parametrize("who", ["user", "readonly"])
async def test_only_administrators_pause(stack: Stack, who: str) -> None:
    body = {"kind": "lane", "name": "low"}
    assert (await stack.post("/v1/queues/pauses", body, who)).status_code == 403
    resumed = await stack.http.delete("/v1/queues/pauses/lane/low", headers=stack.headers(who))
    assert resumed.status_code == 403


async def test_a_waiting_job_gets_another_priority(stack: Stack, replica: Replica) -> None:
    first = await stack.submit()
    second = await stack.submit()
    answer = await stack.http.patch(
        f"/v1/jobs/{second}", json={"priority": "high"}, headers=stack.headers("user")
    )
    assert answer.status_code == 200
    assert (answer.json()["lane"], answer.json()["position"]) == ("high", 1)
    assert (await stack.context.storage.ledger.get(second)).spec.lane is Lane.HIGH
    assert (await replica.claim()).id == second
    assert (await replica.claim()).id == first


async def test_a_job_that_waits_no_more_keeps_its_priority(
    stack: Stack, replica: Replica, settings: Settings
) -> None:
    job_id = await stack.submit()
    attempt = await replica.claim()

    async def moved() -> tuple[int, str]:
        answer = await stack.http.patch(
            f"/v1/jobs/{job_id}", json={"priority": 9}, headers=stack.headers("user")
        )
        return answer.status_code, answer.json()["error"]["message"]

    assert (await moved()) == (409, f"job {job_id} is running and waits no more")
    await replica.result(attempt)
    await recorded(settings, stack.context)
    assert (await moved()) == (409, f"job {job_id} is succeeded and waits no more")
    assert (await stack.context.storage.ledger.get(job_id)).spec.lane is Lane.MEDIUM


async def test_a_change_of_priority_is_checked(stack: Stack) -> None:
    job_id = await stack.submit()
    for body in ({}, {"priority": "urgent"}, {"priority": "low", "model": "x"}):
        answer = await stack.http.patch(f"/v1/jobs/{job_id}", json=body, headers=stack.headers("user"))
        assert answer.status_code == 400
    foreign = await stack.http.patch(
        f"/v1/jobs/{job_id}", json={"priority": "low"}, headers=stack.headers("other")
    )
    unknown = await stack.http.patch(
        f"/v1/jobs/{new_job_id()}", json={"priority": "low"}, headers=stack.headers("user")
    )
    assert (foreign.status_code, unknown.status_code) == (404, 404)


async def test_a_key_uses_no_lane_above_its_own(stack: Stack, replica: Replica) -> None:
    made = await stack.post("/v1/keys", {"name": "bulk", "role": "user", "lane": "low"}, "admin")
    assert made.json()["lane"] == "low"
    stack.keys["bulk"] = made.json()["key"]
    job_id = await stack.submit("bulk", priority="high")
    assert (await stack.get(f"/v1/jobs/{job_id}", "bulk")).json()["lane"] == "low"
    moved = await stack.http.patch(
        f"/v1/jobs/{job_id}", json={"priority": "high"}, headers=stack.headers("bulk")
    )
    assert moved.json()["lane"] == "low"
    assert (await replica.claim()).job.spec.lane is Lane.LOW


async def test_a_lane_of_a_key_is_one(stack: Stack) -> None:
    refused = await stack.post("/v1/keys", {"name": "x", "role": Role.USER, "lane": "urgent"}, "admin")
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "lane")


async def test_an_interactive_call_waits_out_a_pause(stack: Stack, replica: Replica) -> None:
    await stop(stack, "lane", "medium")
    call = asyncio.create_task(stack.post("/v1/chat/completions", CHAT))
    assert await replica.attempts.claim() is None
    await stack.http.delete("/v1/queues/pauses/lane/medium", headers=stack.headers("admin"))
    await replica.answer_one()
    assert (await call).status_code == 200
