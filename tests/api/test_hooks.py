"""Hooks at the gateway: they change requests, refuse them, and hear of jobs."""

import asyncio
import json
from pathlib import Path

from inferq.config import Settings
from inferq.hooks import Hooks
from queues.connection import connect
from queues.recorder import Recorder
from tests.api.stack import CHAT, Replica, serving, settings_for
from tests.hooks.conftest import Install, install, seen
from tests.queues.builders import eventually

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
        recorder = Recorder(client, stack.context.storage.ledger, settings, Hooks(settings.hooks))
        await recorder.run_once(block_ms=1)
        await eventually(lambda: ("succeeded", attempt.id) in seen("guard"))
        await client.aclose()
        assert (await stack.get(f"/v1/jobs/{attempt.id}")).json()["metadata"] == {"checked": "yes"}
