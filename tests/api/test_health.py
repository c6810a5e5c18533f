"""Probes, health, metrics, status and models: with everything there, and with Redis or SQL away."""

import asyncio
from pathlib import Path
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from inferq import errors
from inferq.config import Settings
from queues.connection import connect
from queues.presence import NodeInfo, Presence, ReplicaInfo
from tests.api.stack import CHAT, Replica, Stack, serving, settings_for

REPLICA = ReplicaInfo(
    name="demo-chat@cuda:0.host",
    model="demo-chat",
    device="cuda:0",
    node="host",
    pid=1,
    state="ready",
    since=1.0,
    slots=8,
    busy=2,
    memory_bytes=1000,
    load_seconds=1.5,
)
NODE = NodeInfo(
    name="host",
    pid=1,
    seen_at=1.0,
    cpu_percent=50.0,
    memory_total=100,
    memory_used=10,
    devices=[{"name": "cuda:0", "kind": "cuda", "memory_total": 64, "memory_free": 32, "product": "X"}],
)


async def show(settings: Settings) -> None:
    """Let a node and a ready replica be there."""
    client = connect(settings)
    presence = Presence(client, settings.queue.prefix)
    await presence.show_replica(REPLICA)
    await presence.show_node(NODE)
    await client.aclose()


async def test_health_has_the_documented_fields(stack: Stack, settings: Settings) -> None:
    await show(settings)
    await stack.get("/v1/nothing-here")
    response = await stack.get("/health", None)
    assert response.status_code == 200
    body = response.json()
    assert body["status"] == "healthy"
    assert body["service_uptime"] >= 0
    assert body["timestamp"] > 1_700_000_000
    assert (body["model_loaded"], body["models"], body["gpu_available"]) == (True, ["demo-chat"], True)
    assert set(body["system_resources"]) == {"memory_used", "memory_total", "memory_percent"}
    assert body["requests"] == {"total": 0, "failed": 0, "success_rate": 100.0}
    await stack.get("/v1/models")
    assert (await stack.get("/health", None)).json()["requests"]["total"] == 1


async def test_without_redis_all_that_looks_still_answers(tmp_path: Path, template: Path) -> None:
    settings = settings_for(tmp_path / "home", f"unix://{tmp_path}/none.sock")
    async with serving(settings, template) as stack:
        health = await stack.get("/health", None)
        assert (health.status_code, health.json()["status"]) == (503, "unhealthy")
        ready = await stack.get("/readyz", None)
        assert ready.status_code == 503
        assert ready.json()["redis"]["ok"] is False
        assert ready.json()["database"] == {"ok": True}
        assert (await stack.get("/livez", None)).status_code == 200
        status = (await stack.get("/status")).json()
        assert (status["redis"]["ok"], status["replicas"], status["queues"]) == (False, None, None)
        assert status["models"][0]["info"]["state"] == "unknown"
        assert (await stack.get("/v1/models")).status_code == 200
        assert (await stack.get("/", None)).status_code == 200
        assert 'inferq_component_up{component="redis"} 0.0' in (await stack.get("/metrics", None)).text
        assert (await stack.get("/v1/running_models")).status_code == 503


async def test_without_sql_interactive_calls_go_on(stack: Stack, replica: Replica, monkeypatch: Any) -> None:
    async def away(*_: Any, **__: Any) -> None:
        raise errors.StoreUnavailable("the database is away")

    assert (await stack.get("/v1/models")).status_code == 200
    for name in ("ping", "get", "accept", "list_jobs", "counts"):
        monkeypatch.setattr(type(stack.context.storage.ledger), name, away)
    health = await stack.get("/health", None)
    assert (health.status_code, health.json()["status"]) == (200, "degraded")
    assert (await stack.get("/readyz", None)).status_code == 503
    assert (await stack.get("/metrics", None)).status_code == 200
    assert (await stack.get("/status")).json()["database"] == {"ok": False, "error": "the database is away"}
    listed = await stack.get("/v1/jobs")
    assert (listed.status_code, listed.json()["error"]["code"]) == (503, "store_unavailable")
    assert (await stack.post("/v1/jobs", CHAT)).status_code == 503
    call = asyncio.create_task(stack.post("/v1/chat/completions", CHAT))
    await replica.answer_one()
    assert (await call).status_code == 200


async def test_models_and_replicas_are_listed(stack: Stack, settings: Settings) -> None:
    await show(settings)
    await stack.submit()
    models = {model["id"]: model for model in (await stack.get("/openai/v1/models")).json()["data"]}
    assert set(models) == {"demo-chat", "demo-embed", "demo-draw"}
    info = models["demo-chat"]["info"]
    assert (info["state"], info["type"], info["aliases"]) == ("ready", "chat", ["gpt-4o-mini"])
    assert info["waiting"] == {"high": 0, "medium": 1, "low": 0}
    assert models["demo-embed"]["info"]["state"] == "stopped"
    assert (await stack.get("/v1/models/gpt-4o-mini")).json()["id"] == "demo-chat"
    unknown = await stack.get("/v1/models/none")
    assert (unknown.status_code, unknown.json()["error"]["code"]) == (404, "model_not_found")
    (replica,) = (await stack.get("/v1/running_models")).json()
    assert (replica["name"], replica["busy"], replica["slots"]) == (REPLICA.name, 2, 8)


async def test_status_is_the_whole_picture(stack: Stack, settings: Settings) -> None:
    await show(settings)
    await stack.submit(priority="high")
    status = (await stack.get("/status", "readonly")).json()
    assert status["home"] == str(settings.home)
    assert status["queues"]["demo-chat"] == {"high": 1, "medium": 0, "low": 0}
    assert [replica["name"] for replica in status["replicas"]] == [REPLICA.name]
    assert status["nodes"][0]["devices"] == NODE.devices
    assert (status["redis"], status["database"]) == ({"ok": True}, {"ok": True})


def samples(text: str) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


async def test_metrics_count_calls_jobs_and_what_is_there(
    stack: Stack, replica: Replica, settings: Settings
) -> None:
    await show(settings)
    call = asyncio.create_task(stack.post("/v1/chat/completions", CHAT))
    await replica.answer_one()
    await call
    await stack.submit(priority="low")
    await stack.http.get("/v1/models")
    await stack.get("/v1/jobs/some-id-that-is-not-there")
    await stack.get("/secret-path")
    text = (await stack.get("/metrics", None)).text
    found = samples(text)

    def value(name: str, **labels: str) -> float | None:
        return found.get((f"inferq_{name}", tuple(sorted(labels.items()))))

    assert value("http_requests_total", handler="/v1/chat/completions", method="POST", status="200") == 1
    assert value("http_requests_total", handler="/v1/jobs/{job_id}", method="GET", status="404") == 1
    assert value("http_requests_total", handler="unmatched", method="any", status="404") == 1
    assert value("jobs_accepted_total", model="demo-chat", lane="medium", kind="interactive") == 1
    assert value("jobs_finished_total", model="demo-chat", outcome="succeeded") == 1
    assert value("auth_failures_total", reason="missing") == 1
    assert value("queue_jobs", model="demo-chat", lane="low") == 1
    assert value("replicas", model="demo-chat", device="cuda:0", state="ready") == 1
    assert value("replica_busy_slots", replica=REPLICA.name, model="demo-chat") == 2
    assert value("device_memory_bytes", node="host", device="cuda:0", kind="free") == 32
    assert value("node_cpu_ratio", node="host") == 0.5
    assert value("jobs", model="demo-chat", state="queued") == 1
    assert value("component_up", component="redis") == 1
    assert value("process_resident_memory_bytes")
    assert "secret-path" not in text
    assert "some-id" not in text


async def test_metrics_can_be_switched_off(tmp_path: Path, redis_url: str, template: Path) -> None:
    settings = settings_for(tmp_path / "home", redis_url, monitoring={"enabled": False})
    async with serving(settings, template) as stack:
        assert (await stack.get("/metrics", None)).status_code == 404
