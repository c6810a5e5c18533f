"""Bringing a model to a running stack: killed in the middle, cancelled, and asked for from the command line."""

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import noop, sections, stack_of
from tests.e2e.stack import Stack
from tests.e2e.waiting import until
from tests.engines import hub as hubs
from tests.engines.hub import Hub
from tests.engines.process import ROOT
from tests.modelscan.test_scan import LM

REPO = "acme/tiny"
WEIGHTS = os.urandom(12 * 2**20)
FILES = {"config.json": json.dumps(LM).encode(), "model.bin": WEIGHTS}
TOTAL = sum(map(len, FILES.values()))


@pytest.fixture(scope="module")
def hub() -> Iterator[Hub]:
    with hubs.serving({REPO: FILES}) as serving:
        yield serving


@pytest.fixture(scope="module")
def pull_stack(hub: Hub) -> Iterator[Stack]:
    tree = sections() | {
        "models": {"fast": noop(warm=True)},
        "hub": {"huggingface": hub.url, "reserve_bytes": 0},
    }
    with tempfile.TemporaryDirectory(prefix="iq-e2e-") as name, stack_of(tree, Path(name)) as stack:
        yield stack


def pull(stack: Stack, **body: Any) -> str:
    response = stack.post("/v1/models/pull", {"source": REPO, **body})
    assert response.status_code == 202, response.text
    return str(response.json()["id"])


def arrived(stack: Stack, name: str) -> dict[str, bytes]:
    folder = stack.home / "models" / name
    return {path: (folder / path).read_bytes() for path in FILES} if folder.exists() else {}


def test_a_pull_whose_engine_is_killed_goes_on(pull_stack: Stack, hub: Hub) -> None:
    hub.served.clear()
    hub.pause_s = 0.2
    job_id = pull(pull_stack)
    until(lambda: hub.downloads() > TOTAL / 3, "a third has come")
    until(lambda: pull_stack.job(job_id)["progress"], "its progress is shown")
    pull_stack.engine("inferq-pull").kill()
    assert arrived(pull_stack, "tiny") == {}
    hub.pause_s = 0.0
    job = pull_stack.ended(job_id)
    assert (job["state"], job["attempt"]) == ("succeeded", 2), job
    assert job["result"]["folder"] == "models/tiny"
    assert arrived(pull_stack, "tiny") == FILES
    assert TOTAL <= hub.downloads() < 1.6 * TOTAL


def test_what_was_pulled_is_offered_and_inferqs_own_model_is_not(pull_stack: Stack) -> None:
    pull_stack.ended(pull(pull_stack))
    listed = {model["id"] for model in pull_stack.get("/v1/models").json()["data"]}
    assert listed == {"fast"}
    local = {model["id"]: model["info"] for model in pull_stack.get("/v1/models?local=true").json()["data"]}
    assert set(local) == {"fast", "tiny"}
    assert local["tiny"]["state"] == "not_configured"
    assert "source: models/tiny" in local["tiny"]["suggestion"]


def test_a_pull_that_is_cancelled_stops_and_leaves_nothing_to_be_seen(pull_stack: Stack, hub: Hub) -> None:
    hub.served.clear()
    hub.pause_s = 0.5
    job_id = pull(pull_stack, name="other")
    until(lambda: hub.downloads() > 2**18, "some has come")
    pull_stack.post(f"/v1/jobs/{job_id}/cancel", None)
    assert pull_stack.ended(job_id)["state"] == "cancelled"
    until(lambda: not pull_stack.engine_health("inferq-pull")["running"], "the engine has let go of it")
    hub.pause_s = 0.0
    assert arrived(pull_stack, "other") == {}
    assert hub.downloads() < TOTAL


def test_a_pull_that_cannot_be_is_failed_once(pull_stack: Stack) -> None:
    job = pull_stack.ended(pull(pull_stack, source="acme/none"))
    assert (job["state"], job["attempt"], job["error"]["code"]) == ("failed", 1, "source_not_found")


def test_a_model_shows_what_was_learnt_of_it(pull_stack: Stack) -> None:
    pull_stack.until_ready("fast")
    info = pull_stack.get("/v1/models/fast").json()["info"]
    assert info["facts"] == {"tokens": 4}
    assert info["load_seconds"] > 0
    assert info["memory_bytes"] > 10_000_000
    assert info["devices"] == ["cpu:0"]


def environment(stack: Stack) -> dict[str, str]:
    return {**stack.environ, "INFERQ_URL": stack.url, "INFERQ_API_KEY": stack.key, "TERM": "dumb"}


def command(stack: Stack, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "inferq", "models", *arguments],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=environment(stack),
        timeout=120,
        check=False,
    )


def test_ctrl_c_ends_the_waiting_and_not_the_pull(pull_stack: Stack, hub: Hub) -> None:
    hub.served.clear()
    hub.pause_s = 0.5
    waiting = subprocess.Popen(
        [sys.executable, "-m", "inferq", "models", "pull", REPO, "--name", "patient", "--exclude", "*.json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env=environment(pull_stack),
        # What a shell starts in the background ignores SIGINT, and so would all that these tests start.
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509 - no threads are started before
    )
    until(lambda: hub.downloads() > 2**18, "some has come")
    waiting.send_signal(signal.SIGINT)
    _, said = waiting.communicate(timeout=60)
    assert waiting.returncode == 130, said
    assert "the pull goes on; inferq jobs watch " in said
    job_id = said.split("inferq jobs watch ")[1].split(",")[0]
    assert pull_stack.job(job_id)["state"] == "running"
    hub.pause_s = 0.0
    assert pull_stack.ended(job_id)["state"] == "succeeded"


def test_the_command_line_pulls_lists_shows_and_scans(pull_stack: Stack) -> None:
    done = command(pull_stack, "pull", REPO, "--name", "cli", "--exclude", "*.json", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["result"]["files"] == 1
    again = command(pull_stack, "pull", REPO)
    assert again.stdout.startswith("models/tiny "), again.stderr
    assert "source: models/tiny" in again.stderr
    assert command(pull_stack, "pull", "acme/none").returncode == 10
    assert [each["id"] for each in json.loads(command(pull_stack, "--json").stdout)] == ["fast"]
    assert [each["id"] for each in json.loads(command(pull_stack, "list", "--json").stdout)] == ["fast"]
    assert json.loads(command(pull_stack, "show", "fast", "--json").stdout)["id"] == "fast"
    assert "tokens" in command(pull_stack, "show", "fast").stdout
    assert [each["id"] for each in json.loads(command(pull_stack, "scan", "--json").stdout)] == ["tiny"]
    assert "source: models/tiny" in command(pull_stack, "scan", "--yaml").stdout
