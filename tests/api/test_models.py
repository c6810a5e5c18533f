"""The catalogue: what a model shows of itself, loaded or not; models that lie here; and who may bring more."""

from dataclasses import asdict, replace
from typing import Any

import orjson
import pytest
import yaml

from inferq.config import Settings
from inferq.config.settings import PULL_MODEL
from queues.connection import connect
from queues.presence import Learnt, Presence, ReplicaInfo, loaded_as
from tests.api.stack import MODELS, Replica, Stack
from tests.modelscan.test_scan import LM, put, weights

FACTS = {"context": 1000, "voices": ["a"]}
PULL = {"source": "acme/tiny"}


async def show(settings: Settings, **changes: Any) -> None:
    """Let a replica of the chat model be there."""
    info = ReplicaInfo(
        name="r", model="demo-chat", device="cuda:1", node="n", pid=1, state="ready", since=1.0, slots=2
    )
    client = connect(settings)
    await Presence(client, settings.queue.prefix).show_replica(replace(info, **changes))
    await client.aclose()


async def learn(settings: Settings, model: str, **changes: Any) -> None:
    learnt = Learnt(
        source=loaded_as(settings.models[model]),
        device="cpu:0",
        at=1.0,
        load_seconds=2.5,
        memory_bytes=77,
        facts=FACTS,
    )
    client = connect(settings)
    await Presence(client, settings.queue.prefix).learn(model, replace(learnt, **changes))
    await client.aclose()


async def info_of(stack: Stack, model: str) -> dict[str, Any]:
    answer = await stack.get(f"/v1/models/{model}")
    assert answer.status_code == 200, answer.text
    return dict(answer.json()["info"])


async def test_a_model_never_loaded_shows_what_is_configured(stack: Stack) -> None:
    info = await info_of(stack, "demo-chat")
    assert info == {
        "type": "chat",
        "engine": "text",
        "state": "stopped",
        "circuit": "closed",
        "device": "auto",
        "devices": [],
        "endpoints": ["/v1/chat/completions", "/v1/completions"],
        "limits": {},
        "slots": 8,
        "warm": False,
        "aliases": ["gpt-4o-mini"],
        "description": "A <small> model.",
        "waiting": {"high": 0, "medium": 0, "low": 0},
        "load_seconds": None,
        "memory_bytes": None,
        "context": 1024,
        "facts": {},
    }


async def test_a_loaded_model_shows_its_replica(stack: Stack, settings: Settings) -> None:
    await learn(settings, "demo-chat")
    await show(settings, facts={"context": 5}, load_seconds=1.5, memory_bytes=1000)
    info = await info_of(stack, "demo-chat")
    assert (info["state"], info["devices"], info["facts"]) == ("ready", ["cuda:1"], {"context": 5})
    assert (info["load_seconds"], info["memory_bytes"]) == (1.5, 1000)


async def test_what_was_learnt_survives_the_unload(stack: Stack, settings: Settings) -> None:
    await learn(settings, "demo-embed")
    listed = {model["id"]: model["info"] for model in (await stack.get("/v1/models")).json()["data"]}
    info = listed["demo-embed"]
    assert (info["state"], info["devices"], info["facts"]) == ("stopped", [], FACTS)
    assert (info["load_seconds"], info["memory_bytes"], info["context"]) == (2.5, 77, 1000)
    assert listed["demo-chat"]["facts"] == {}


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        (["completions"], ["/v1/completions"]),
        (["completions", "audio/speech"], ["/v1/completions"]),
        ("completions", ["/v1/chat/completions", "/v1/completions"]),
    ],
    ids=["fewer", "others", "nonsense"],
)
async def test_endpoints_that_a_model_does_not_serve_are_not_listed(
    stack: Stack, settings: Settings, said: Any, shown: list[str]
) -> None:
    await learn(settings, "demo-chat", facts={"endpoints": said})
    assert (await info_of(stack, "demo-chat"))["endpoints"] == shown


async def test_what_was_learnt_of_another_source_says_nothing(stack: Stack, settings: Settings) -> None:
    await learn(settings, "demo-embed", source="embed models/before")
    assert (await info_of(stack, "demo-embed"))["load_seconds"] is None


async def test_records_of_other_versions_are_read(stack: Stack, settings: Settings) -> None:
    client = connect(settings)
    learnt = asdict(Learnt(source=loaded_as(settings.models["demo-embed"]), device="cpu:0", at=1.0))
    record = {name: orjson.dumps(value) for name, value in {**learnt, "invented_later": 1}.items()}
    await client.hset(f"{settings.queue.prefix}learnt:demo-embed", mapping=record)
    await client.aclose()
    assert (await info_of(stack, "demo-embed"))["facts"] == {}


async def test_models_that_lie_here_are_listed_when_asked_for(stack: Stack, settings: Settings) -> None:
    put(weights(settings.models_dir / "found"), config__json=LM)
    put(weights(settings.models_dir / "demo-chat"), config__json=LM)
    plain = {model["id"] for model in (await stack.get("/v1/models")).json()["data"]}
    assert plain == set(MODELS)
    data = (await stack.get("/v1/models?local=true")).json()["data"]
    assert {model["id"] for model in data} == plain | {"found"}
    info = data[-1]["info"]
    assert (info["state"], info["type"], info["parameters"]) == ("not_configured", "completion", 107)
    said = Settings.model_validate(yaml.safe_load(info["suggestion"]))
    assert said.models["found"].engine == "text"
    assert (await stack.get("/v1/models?local=perhaps")).status_code == 400


async def test_an_administrator_pulls(stack: Stack, settings: Settings) -> None:
    answer = await stack.post("/v1/models/pull", {**PULL, "name": "mine", "priority": "high"}, "admin")
    assert answer.status_code == 202, answer.text
    job = answer.json()
    assert (job["model"], job["endpoint"], job["lane"]) == (PULL_MODEL, "models/pull", "high")
    assert answer.headers["location"] == f"/v1/jobs/{job['id']}"
    replica = Replica(settings, PULL_MODEL)
    attempt = await replica.claim()
    assert orjson.loads(attempt.job.spec.body) == {**PULL, "name": "mine", "model": PULL_MODEL}
    assert attempt.job.spec.run_timeout == settings.hub.timeout
    await replica.result(attempt, b'{"name":"mine"}')
    await replica.close()


async def test_nobody_else_does(stack: Stack, settings: Settings) -> None:
    for who in ("user", "readonly"):
        answer = await stack.post("/v1/models/pull", PULL, who)
        assert (answer.status_code, answer.json()["error"]["code"]) == (403, "permission_denied")
    for endpoint in ("models/pull", "v1/models/pull", None):
        envelope = {"endpoint": endpoint, "model": PULL_MODEL, "body": PULL}
        assert (await stack.post("/v1/jobs", envelope, "user")).status_code in (400, 404)
        assert (await stack.post("/v1/jobs", envelope, "admin")).status_code in (400, 404)


async def test_a_user_of_the_same_tenant_does_not_run_it_again(stack: Stack) -> None:
    """Requeueing takes a new body, so it is as good as a pull."""
    _, key = await stack.context.storage.keys.create("mate", _role("USER"), tenant="team")
    _, boss = await stack.context.storage.keys.create("boss", _role("ADMIN"), tenant="team")
    stack.keys |= {"mate": key, "boss": boss}
    job = (await stack.post("/v1/models/pull", PULL, "boss")).json()
    assert (await stack.get(f"/v1/jobs/{job['id']}", "mate")).status_code == 200
    await stack.post(f"/v1/jobs/{job['id']}/cancel", None, "boss")
    again = {"body": {"source": "/etc"}}
    assert (await stack.post(f"/v1/jobs/{job['id']}/requeue", again, "mate")).status_code == 403
    assert (await stack.post(f"/v1/jobs/{job['id']}/retry", None, "mate")).status_code == 403
    assert (await stack.post(f"/v1/jobs/{job['id']}/retry", None, "boss")).status_code == 202


def _role(name: str) -> Any:
    from storage.keys import Role

    return Role[name]


async def test_inferqs_own_model_is_no_callers_model(stack: Stack) -> None:
    assert (await stack.get(f"/v1/models/{PULL_MODEL}")).status_code == 404
    body = {"model": PULL_MODEL, "messages": [{"role": "user", "content": "x"}]}
    assert (await stack.post("/v1/chat/completions", body)).status_code == 404


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "source"),
        ({"source": "nonsense"}, "source"),
        ({"source": "acme/tiny", "name": "../x"}, "name"),
        ({"source": "acme/tiny", "sha256": "short"}, "sha256"),
        ({"source": "acme/tiny", "sha256": {"a": 7}}, "sha256"),
        ({"source": "acme/tiny", "include": []}, "include"),
        ({"source": "acme/tiny", "exclude": [7]}, "exclude[0]"),
        ({"source": "acme/tiny", "revision": "a b"}, "revision"),
        ({"source": "acme/tiny", "fancy": 1}, "fancy"),
    ],
)
async def test_a_wrong_pull_is_refused_before_it_waits(
    stack: Stack, body: dict[str, Any], param: str
) -> None:
    answer = await stack.post("/v1/models/pull", body, "admin")
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)


def test_the_name_of_inferqs_own_model_is_taken() -> None:
    for models in (
        {PULL_MODEL: {"engine": "noop", "source": "x"}},
        {"m": {"engine": "noop", "source": "x", "aliases": [PULL_MODEL]}},
    ):
        with pytest.raises(ValueError, match=PULL_MODEL):
            Settings.model_validate({"models": models})
