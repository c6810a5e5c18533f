"""A lane as vLLM's priority: only where the engine is configured for it, and the body stays what it was."""

import json
from pathlib import Path

import pytest

from inferq.config import ModelSettings
from inferq.job import JobState
from inferq.lanes import Lane
from tests.workers.engine_stub import answered
from tests.workers.runner_site import runner_site
from workers.lane_priority import passes_lanes, with_priority


def model(**options: object) -> ModelSettings:
    return ModelSettings(engine="vllm", source="x", options=options)


def test_only_an_engine_that_orders_by_priority_is_told():
    assert passes_lanes(model(scheduling_policy="priority"))
    assert not passes_lanes(model(scheduling_policy="fcfs"))
    assert not passes_lanes(model())


@pytest.mark.parametrize(("lane", "priority"), [(Lane.HIGH, -1), (Lane.MEDIUM, None), (Lane.LOW, 1)])
@pytest.mark.parametrize("body", [b'{"a": [1], "b": "}"}', b"{}", b" { } "])
def test_the_body_is_what_it_was_but_for_the_priority(lane: Lane, priority: int | None, body: bytes):
    found = json.loads(with_priority(body, lane))
    assert found.pop("priority", None) == priority
    assert found == json.loads(body)


@pytest.mark.parametrize("passes", [True, False])
async def test_the_engine_gets_the_lane(redis_url: str, short_dir: Path, passes: bool):
    async with runner_site(redis_url, short_dir) as site:
        site.runner._passes_lanes = passes
        job = await site.run(answered(b"{}"), lane=Lane.HIGH)
        assert job.state is JobState.SUCCEEDED
        assert json.loads(site.stub.bodies[-1]).get("priority") == (-1 if passes else None)
