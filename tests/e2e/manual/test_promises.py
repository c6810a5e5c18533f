"""What is promised of jobs, kept with an engine of every kind: cancels, engines that die, and what cannot fit."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import psutil
import pytest

from tests.e2e.contract import said
from tests.e2e.manual.conftest import recording
from tests.e2e.manual.names import EMBEDDER, FILMER, LISTENER, PAINTER, RERANKER, SPEAKER, VISION
from tests.e2e.stack import Stack, attempt
from tests.e2e.waiting import until

Body = dict[str, Any]
SOON = 3.0
"""Seconds until a slot that was given up is used again."""


@dataclass(frozen=True)
class Kind:
    """Bodies for one model: done in a moment, running for long, and too much for it, with the field that says so."""

    model: str
    short: Body
    long: Body
    too_much: Callable[[], Body]
    param: str
    endpoint: str = "chat/completions"


def talk(text: str, **more: Any) -> Body:
    return {"messages": said(text), "temperature": 0, **more}


WORDS = "a b c d e f g h " * 6
FILM = {"prompt": "a red cat", "duration": 1, "resolution": "64x64", "steps": 1}
PICTURE = {"prompt": "red", "size": "64x64", "steps": 1}
KINDS = {
    "text": Kind(
        model="demo-chat",
        short=talk("Say hello."),
        long=talk("Tell me a story.", ignore_eos=True, max_tokens=800),
        too_much=lambda: talk("one two three four five " * 1000),
        param="messages",
    ),
    "vision": Kind(
        model=VISION,
        short=talk("Say hello."),
        long=talk("Say hello.", ignore_eos=True, max_tokens=500),
        too_much=lambda: talk("one two three four five " * 1000),
        param="messages",
    ),
    "embed": Kind(
        model=EMBEDDER,
        endpoint="embeddings",
        short={"input": "hello"},
        long={"input": [f"{number} {WORDS}" for number in range(2048)]},
        too_much=lambda: {"input": ["hello", "one two three " * 400]},
        param="input[1]",
    ),
    "rerank": Kind(
        model=RERANKER,
        endpoint="rerank",
        short={"query": "hello", "documents": ["hello"]},
        long={"query": "a b c", "documents": [f"{number} {WORDS}" for number in range(5000)]},
        too_much=lambda: {"query": "hello", "documents": ["hello"] * 20_001},
        param="documents",
    ),
    "image": Kind(
        model=PAINTER,
        endpoint="images/generations",
        short=PICTURE,
        long=PICTURE | {"size": "96x96", "steps": 150},
        too_much=lambda: PICTURE | {"size": "512x512"},
        param="size",
    ),
    "video": Kind(
        model=FILMER,
        endpoint="video/generations",
        short=FILM,
        long=FILM | {"steps": 120},
        too_much=lambda: FILM | {"duration": 60},
        param="duration",
    ),
    "asr": Kind(
        model=LISTENER,
        endpoint="audio/transcriptions",
        short={"file": recording(1)},
        long={"file": recording(1500, noise=True)},
        too_much=lambda: {"file": recording(1801)},
        param="file",
    ),
    "speech": Kind(
        model=SPEAKER,
        endpoint="audio/speech",
        short={"input": "Hello."},
        long={"input": "This is one of many sentences. " * 400},
        too_much=lambda: {"input": "a" * 200_001},
        param="input",
    ),
}
each_kind = pytest.mark.parametrize("kind", KINDS.values(), ids=list(KINDS))


def submitted(stack: Stack, kind: Kind, body: Body) -> str:
    response = stack.post("/v1/jobs", {"model": kind.model, "body": body})
    assert response.status_code == 202, response.text
    assert response.json()["endpoint"] == kind.endpoint
    return str(response.json()["id"])


def running(stack: Stack, kind: Kind) -> str:
    """A long job that its engine is at work on."""
    job_id = submitted(stack, kind, kind.long)
    until(
        lambda: attempt(lambda: stack.engine_health(kind.model)["running"] == 1),
        f"the engine of {kind.model} runs the job",
        within=180,
    )
    return job_id


def cancel(stack: Stack, job_id: str) -> None:
    assert stack.post(f"/v1/jobs/{job_id}/cancel").json()["state"] == "cancelled"


@each_kind
def test_a_cancelled_job_makes_room_for_the_next(stack: Stack, kind: Kind) -> None:
    """One runs and two wait. The first and the second are cancelled; the third runs at once."""
    held = running(stack, kind)
    waiting, following = submitted(stack, kind, kind.short), submitted(stack, kind, kind.short)
    assert [stack.job(each)["position"] for each in (waiting, following)] == [1, 2]
    cancel(stack, waiting)
    assert stack.job(following)["position"] == 1
    cancelled_at = time.time()
    cancel(stack, held)
    job = stack.ended(following)
    assert (job["state"], job["attempt"]) == ("succeeded", 1), job["error"]
    assert job["started_at"] - cancelled_at < SOON
    assert (stack.job(waiting)["state"], stack.job(waiting)["attempt"]) == ("cancelled", 0)
    assert stack.job(held)["state"] == "cancelled"
    assert stack.engine_health(kind.model)["running"] == 0


@pytest.fixture(scope="module")
def killed(manual_stack: Stack) -> dict[str, tuple[str, psutil.Process]]:
    """By kind: a job whose engine was killed in the middle of it, and that engine. Their successors load together."""
    found = {}
    for name, kind in KINDS.items():
        job_id = running(manual_stack, kind)
        engine = manual_stack.engine(kind.model)
        engine.kill()
        found[name] = job_id, engine
    return found


@pytest.mark.parametrize("name", KINDS)
def test_a_job_whose_engine_was_killed_runs_again(
    stack: Stack, killed: dict[str, tuple[str, psutil.Process]], name: str
) -> None:
    (job_id, engine), model = killed[name], KINDS[name].model
    job = stack.ended(job_id, within=240)
    assert (job["state"], job["attempt"]) == ("succeeded", 2), job["error"]
    assert job["artifact"] or job["result"]
    assert stack.engine(model).pid != engine.pid
    assert stack.replicas()[model]["restarts"] >= 1
    assert stack.ended(submitted(stack, KINDS[name], KINDS[name].short))["state"] == "succeeded"


@each_kind
def test_what_cannot_fit_is_refused_before_it_waits(stack: Stack, kind: Kind) -> None:
    """By the job route and by the endpoint itself; no job is made of it."""

    def newest() -> Any:
        listed = stack.get("/v1/jobs", params={"model": kind.model, "limit": 1}).json()["data"]
        return [job["id"] for job in listed]

    before, body = newest(), kind.too_much()
    for path, sent in (
        ("/v1/jobs", {"model": kind.model, "body": body}),
        (f"/openai/v1/{kind.endpoint}", body | {"model": kind.model}),
    ):
        response = stack.post(path, sent)
        assert response.status_code == 400, response.text
        assert response.json()["error"]["param"] == kind.param
        assert "X-Job-Id" not in response.headers
    assert newest() == before
