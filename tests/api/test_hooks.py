"""Hooks at the gateway: they change requests, refuse them, and hear of jobs."""

import asyncio
import json
import time
from pathlib import Path

import pytest

from inferq import errors
from inferq.config import Settings
from inferq.hooks import Hooks
from inferq.job import JobState
from queues.connection import connect
from queues.hook_counts import HookReport, hook_counts
from queues.recorder import Recorder
from queues.scheduler import Scheduler
from storage import open_storage
from tests.api.stack import CHAT, Replica, serving, settings_for
from tests.hooks.conftest import Install, install, seen
from tests.queues.builders import PREFIX, Server, eventually, spec

__all__ = ["install"]

GUARD = """
def before_accept(self, request):
    text = request.body["messages"][-1]["content"]
    if "secret" in text: raise Refused("that word is not let in", param="messages")
    if "bad" in text: request.body["temperature"] = "hot"
    request.body["temperature"] = request.body.get("temperature", 0.25)
    request.metadata["checked"] = "yes"
def after_accept(self, job): self.seen.append(("accepted", job.id))
def after_finish(self, job): self.seen.append((job.state, job.id))
"""


def saying(text: str) -> dict[str, object]:
    return {**CHAT, "messages": [{"role": "user", "content": text}]}


async def test_a_hook_around_a_job(
    install: Install, tmp_path: Path, redis_url: str, template: Path, replica: Replica
) -> None:
    install("guard", GUARD)
    settings: Settings = settings_for(tmp_path / "home", redis_url, hooks={"enabled": ["guard"]})
    async with serving(settings, template) as stack:
        refused = await stack.post("/v1/chat/completions", saying("a secret"))
        assert (refused.status_code, refused.json()["error"]["code"]) == (403, "refused_by_hook")
        assert refused.json()["error"]["param"] == "messages"
        wrong = await stack.post("/v1/chat/completions", saying("bad"))
        assert (wrong.status_code, wrong.json()["error"]["param"]) == (400, "temperature")
        call = asyncio.create_task(stack.post("/v1/chat/completions", CHAT))
        attempt = await replica.answer_one()
        assert (await call).status_code == 200
        assert json.loads(attempt.job.spec.body) == {**CHAT, "temperature": 0.25}
        assert attempt.job.spec.metadata == {"checked": "yes"}
        await eventually(lambda: ("accepted", attempt.id) in seen("guard"))
        client = connect(settings)
        recorder = Recorder(client, stack.context.storage.ledger, settings)
        await recorder.run_once(block_ms=1)
        await eventually(lambda: ("succeeded", attempt.id) in seen("guard"))
        await client.aclose()
        assert (await stack.get(f"/v1/jobs/{attempt.id}")).json()["metadata"] == {"checked": "yes"}


JOB = {"model": "demo-chat", "body": {"messages": CHAT["messages"]}}


async def test_jobs_that_end_before_they_are_queued_are_told_of(
    install: Install, tmp_path: Path, redis_url: str, template: Path
) -> None:
    install("guard", GUARD)
    settings = settings_for(tmp_path / "home", redis_url, hooks={"enabled": ["guard"]})
    async with serving(settings, template) as stack:
        late = (await stack.post("/v1/jobs", {**JOB, "run_at": time.time() + 3600})).json()["id"]
        waits = (await stack.post("/v1/jobs", {**JOB, "depends_on": [late]})).json()["id"]
        assert (await stack.post(f"/v1/jobs/{late}/cancel")).json()["state"] == "cancelled"
        await eventually(lambda: {("cancelled", late), ("failed", waits)} <= set(seen("guard")))


async def test_a_recurring_job_meets_the_hooks_and_all_calls_are_counted(
    install: Install, tmp_path: Path, redis_url: str, template: Path
) -> None:
    install("guard", GUARD)
    settings = settings_for(tmp_path / "home", redis_url, hooks={"enabled": ["guard"]})
    async with serving(settings, template) as stack:
        timing = {"cron": "0 0 1 1 *", "timezone": "UTC"}
        made = await stack.post("/v1/schedules", {"name": "good", **timing, "job": JOB})
        bad = {**JOB, "body": {"messages": [{"role": "user", "content": "a wish"}]}}
        other = await stack.post("/v1/schedules", {"name": "other", **timing, "job": bad})
        seen("guard").clear()
        late = spec(durable=True, model="demo-chat", due_at=time.time() + 3600, expires_at=1.0)
        await stack.context.storage.ledger.accept(late, state=JobState.SCHEDULED)
        refused = json.dumps(bad).replace("a wish", "a secret").encode()
        for answer, changes in ((made, {}), (other, {"request": refused})):
            store = stack.context.storage.schedules
            await store.change(answer.json()["id"], {"next_at": time.time() - 1, **changes})
        storage, stopping = await open_storage(settings), asyncio.Event()
        running = asyncio.create_task(Scheduler(settings, storage).run(stopping))

        async def fired() -> str | None:
            shown = (await stack.get("/v1/schedules/good")).json()["last_job"]
            return str(shown) if shown else None

        job_id = await eventually(fired)
        await eventually(lambda: {("accepted", job_id), ("expired", late.id)} <= set(seen("guard")))
        assert (await stack.get(f"/v1/jobs/{job_id}")).json()["metadata"] == {"checked": "yes"}

        async def left_out() -> bool:
            shown = (await stack.get("/v1/schedules/other")).json()
            return shown["last_job"] is None and shown["last_error"] == "that word is not let in"

        await eventually(left_out)
        accepted = 'inferq_hook_calls_total{function="after_accept",hook="guard",outcome="ok"} 1.0'
        refusal = 'inferq_hook_calls_total{function="before_accept",hook="guard",outcome="refused"} 1.0'

        async def counted() -> bool:
            page = (await stack.get("/metrics", "admin")).text
            return accepted in page and refusal in page

        await eventually(counted)
        stopping.set()
        await asyncio.wait_for(running, 20)
        await storage.close()


async def test_processes_add_up_their_calls_and_lose_none_while_redis_is_away(
    install: Install, tmp_path: Path, short_dir: Path
) -> None:
    install("guard", GUARD)
    with Server(short_dir) as server:
        settings = settings_for(tmp_path / "home", server.url, hooks={"enabled": ["guard"]})
        client = connect(settings)
        one, other = Hooks(settings.hooks), Hooks(settings.hooks)
        reports = [HookReport(hooks, client, PREFIX) for hooks in (one, other)]
        one.after_accept(spec())
        other.after_accept(spec())
        await eventually(lambda: one.counts and other.counts)
        for report in [*reports, *reports]:
            await report.run_once()
        assert await hook_counts(client, PREFIX) == {("guard", "after_accept", "ok"): 2}
        one.after_accept(spec())
        await eventually(lambda: sum(one.counts.values()) == 2)
        server.kill()
        with pytest.raises(errors.QueueUnavailable):
            await reports[0].run_once()
        server.start()
        key = ("guard", "after_accept", "ok")
        before = (await hook_counts(client, PREFIX))[key]
        await reports[0].run_once()
        assert (await hook_counts(client, PREFIX))[key] == before + 1
        await client.aclose()
