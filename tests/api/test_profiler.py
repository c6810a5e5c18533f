"""Nodes and the profiler: what is told of hosts, and of how fast models are."""

import asyncio
import time
from pathlib import Path
from typing import Any, get_args

import pytest

from api import profiler
from api.profiler import UNITS
from inferq.config import Settings
from inferq.config.settings import ModelType
from inferq.job import JobState
from storage.ledger import Span
from tests.api.stack import ANSWER, CHAT, Replica, Stack, recorded, serving, settings_for
from tests.api.test_health import NODE, REPLICA, show

USAGE = b',"usage":{"prompt_tokens":3,"completion_tokens":40,"total_tokens":43}}'
EMPTY = {"p50": None, "p95": None}


async def of(stack: Stack, model: str = "demo-chat", query: str = "") -> dict[str, Any]:
    response = await stack.get(f"/openai/v1/profiler{query}", "readonly")
    assert response.status_code == 200, response.text
    found = {each["model"]: each for each in response.json()["data"]}
    assert set(found) == {"demo-chat", "demo-embed", "demo-draw"}
    return dict(found[model])


async def test_nodes_with_their_devices_and_replicas(stack: Stack, settings: Settings) -> None:
    await show(settings)
    (node,) = (await stack.get("/v1/nodes", "readonly")).json()["data"]
    assert (node["id"], node["object"], node["memory_total"]) == ("host", "node", 100)
    assert node["devices"] == NODE.devices
    (replica,) = node["replicas"]
    assert (replica["name"], replica["model"], replica["busy"]) == (REPLICA.name, "demo-chat", 2)


async def test_a_model_that_nobody_has_called(stack: Stack) -> None:
    assert await of(stack, "demo-draw") == {
        "model": "demo-draw",
        "state": "stopped",
        "replicas": 0,
        "load_seconds": None,
        "requests": 0,
        "failed": 0,
        "success_rate": None,
        "queued_seconds": EMPTY,
        "running_seconds": EMPTY,
        "unit": "megapixel-steps",
        "units_per_second": None,
        "tokens_per_second": None,
    }


async def test_what_has_run_is_told(stack: Stack, replica: Replica, settings: Settings) -> None:
    await show(settings)
    began = time.perf_counter()
    call = asyncio.create_task(stack.post("/v1/chat/completions", CHAT))
    await replica.answer_one(ANSWER[:-1] + USAGE)
    assert (await call).status_code == 200
    took = time.perf_counter() - began
    await stack.submit()
    await replica.fail(await replica.claim())
    await recorded(settings, stack.context)
    found = await of(stack)
    assert (found["state"], found["replicas"], found["load_seconds"]) == ("ready", 1, 1.5)
    assert (found["requests"], found["failed"], found["success_rate"]) == (2, 1, 50.0)
    for name in ("queued_seconds", "running_seconds"):
        assert 0 <= found[name]["p50"] <= found[name]["p95"] < 10
    # The replica said that its answer took 0.1 s of the device.
    (job,) = (await stack.get("/v1/jobs?state=succeeded", "admin")).json()["data"]
    units = (await stack.context.storage.ledger.get(job["id"])).spec.units  # type: ignore[union-attr]
    assert found["units_per_second"] == pytest.approx(units / 0.1)
    assert found["tokens_per_second"] >= 40 / took
    assert (await of(stack, query="?window=86400"))["requests"] == 2


def test_percentiles_are_times_that_were_taken() -> None:
    def span(state: JobState, queued: float | None, started: float | None, finished: float) -> Span:
        return Span("m", state, queued, started, finished)

    runs = [span(JobState.SUCCEEDED, 0.0, 1.0 + each, 1.0 + 2 * each) for each in range(1, 21)]
    idle = [span(JobState.CANCELLED, 5.0, None, 6.0), span(JobState.FAILED, None, None, 6.0)]
    found = profiler._times([*runs, *idle])
    assert found["running_seconds"] == {"p50": 10.0, "p95": 19.0}
    assert found["queued_seconds"] == {"p50": 11.0, "p95": 20.0}
    assert (found["requests"], found["failed"], found["success_rate"]) == (22, 1, 95.24)


@pytest.mark.parametrize("window", ["0", "86401", "-1", "1.5", "all", "", "9" * 40, "000000001" + "9" * 5000])
async def test_a_window_that_is_none(stack: Stack, window: str) -> None:
    response = await stack.get(f"/v1/profiler?window={window}")
    assert (response.status_code, response.json()["error"]["param"]) == (400, "window")


async def test_with_redis_away_the_profiler_tells_what_it_knows(tmp_path: Path, template: Path) -> None:
    settings = settings_for(tmp_path / "home", f"unix://{tmp_path}/none.sock")
    async with serving(settings, template) as stack:
        found = await of(stack)
        assert (found["state"], found["replicas"], found["requests"]) == ("unknown", None, 0)
        assert (await stack.get("/v1/nodes")).status_code == 503


def test_every_type_of_model_has_a_unit() -> None:
    assert set(UNITS) == set(get_args(ModelType))
