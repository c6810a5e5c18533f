"""The life of a prompt of the ComfyUI engine: ended early, failed, lost, and with the server gone."""

import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from threading import Thread
from typing import Any

import httpx2
import pytest

from tests.engines.comfyui_bench import Comfy, bench, picture_of
from tests.engines.process import EngineProcess, eventually, running, spawn

PATH = "/v1/images/generations"
SMALL: dict[str, Any] = {"prompt": "a lighthouse", "size": "64x64", "steps": 2}
LONG = SMALL | {"steps": 150}


@pytest.fixture
def comfy() -> Iterator[Comfy]:
    """One for each test: they stop it, and restart it."""
    with bench() as found:
        yield found
        if found.double:
            assert found.double.violations == []


@pytest.fixture
def engine(comfy: Comfy, socket_dir: Path) -> Iterator[EngineProcess]:
    with running("comfyui", socket_dir, options=comfy.options(), slots=2) as process:
        yield process


@pytest.fixture
def name() -> str:
    return str(uuid.uuid4())


class Asked(Thread):
    """A request whose answer is waited for elsewhere."""

    def __init__(self, engine: EngineProcess, body: dict[str, Any], name: str | None = None) -> None:
        super().__init__(daemon=True)
        self.engine, self.body, self.headers = engine, body, {"x-request-id": name} if name else {}
        self.start()

    def run(self) -> None:
        self.response = self.engine.post(PATH, self.body, self.headers)

    def answer(self) -> httpx2.Response:
        self.join(40)
        return self.response


def code_of(response: httpx2.Response) -> tuple[int, str]:
    return response.status_code, response.json()["error"]["code"]


def paints(engine: EngineProcess, name: str) -> bool:
    runs = engine.get("/runs").json()["runs"]
    return any(run["id"] == name and run["done"] >= 2 for run in runs)


@pytest.mark.parametrize("new", [True, False])
def test_a_caller_who_leaves_ends_his_prompt_and_no_other(
    comfy: Comfy, engine: EngineProcess, name: str, new: bool
) -> None:
    if comfy.double:
        comfy.double.cancels_jobs = new
    with engine.sent(PATH, LONG, name):
        eventually(lambda: paints(engine, name), "under way")
        other = comfy.somebody_elses(30)
        assert (comfy.place(name), comfy.place(other)) == ("running", "pending")
    eventually(lambda: not engine.running(), "released", 1.0)
    assert comfy.place(name) == "error"
    eventually(lambda: comfy.place(other) == "success", "somebody else's")
    assert engine.post(PATH, SMALL).status_code == 200


@pytest.mark.parametrize("new", [True, False])
def test_a_prompt_that_still_waits_is_taken_out_of_the_queue(
    comfy: Comfy, engine: EngineProcess, name: str, new: bool
) -> None:
    if comfy.double:
        comfy.double.cancels_jobs = new
    other = comfy.somebody_elses(100)
    eventually(lambda: comfy.place(other) == "running", "somebody else's under way")
    with engine.sent(PATH, LONG, name):
        eventually(lambda: comfy.place(name) == "pending", "queued")
        (run,) = engine.get("/runs").json()["runs"]
        assert (run["stage"], run["done"], run["total"]) == ("waiting", 0, 150)
    eventually(lambda: not engine.running(), "released", 1.0)
    assert (comfy.place(name), comfy.place(other)) == ("unknown", "running")
    eventually(lambda: comfy.place(other) == "success", "somebody else's")


def test_leaving_a_stream_ends_its_prompt(comfy: Comfy, engine: EngineProcess, name: str) -> None:
    body = LONG | {"stream": True, "partial_images": 3}
    headers = {"x-request-id": name}
    with engine.client() as client, client.stream("POST", PATH, json=body, headers=headers) as response:
        pieces = response.iter_bytes()
        assert b"partial_image" in next(pieces)
        assert comfy.place(name) == "running"
    eventually(lambda: not engine.running(), "released", 1.0)
    assert comfy.place(name) == "error"


def test_what_an_earlier_attempt_left_behind_is_ended_first(
    comfy: Comfy, engine: EngineProcess, socket_dir: Path, name: str
) -> None:
    """The engine was killed, and the job is tried again under the same id."""
    with engine.sent(PATH, LONG, name):
        eventually(lambda: paints(engine, name), "under way")
        engine.process.kill()
        engine.process.wait()
    assert comfy.place(name) == "running"
    with running("comfyui", socket_dir, options=comfy.options()) as again:
        answer = again.post(PATH, SMALL, {"x-request-id": name})
    assert answer.status_code == 200, answer.text
    assert picture_of(answer.json()["data"][0]["b64_json"]).size == (64, 64)
    assert comfy.place(name) == "success"


def test_two_requests_at_once_wait_for_each_other(comfy: Comfy, engine: EngineProcess) -> None:
    asked = [Asked(engine, SMALL | {"steps": 20, "seed": seed}) for seed in (1, 2)]
    answers = [each.answer().json()["data"][0] for each in asked]
    assert [each["seed"] for each in answers] == [1, 2]
    assert answers[0]["b64_json"] != answers[1]["b64_json"]


def test_a_websocket_that_drops_is_connected_again(comfy: Comfy, engine: EngineProcess, name: str) -> None:
    double = comfy.faulty()
    asked = Asked(engine, LONG, name)
    eventually(lambda: paints(engine, name), "under way")
    double.drop_sockets()
    eventually(lambda: double.sockets, "connected again")
    (before,) = engine.get("/runs").json()["runs"]
    eventually(lambda: engine.get("/runs").json()["runs"][0]["done"] > before["done"] + 5, "progress again")
    assert asked.answer().status_code == 200


@pytest.mark.parametrize("how", ["deaf", "mute"])
def test_without_a_websocket_the_history_is_asked(
    comfy: Comfy, engine: EngineProcess, name: str, how: str
) -> None:
    """It does not come back, or it does and says nothing: a ComfyUI may forget whom to tell after a reconnection."""
    double = comfy.faulty()
    asked = Asked(engine, SMALL | {"steps": 60}, name)
    eventually(lambda: paints(engine, name), "under way")
    setattr(double, how, True)
    double.drop_sockets()
    eventually(lambda: comfy.place(name) == "success", "done")
    asked.join(5)
    assert asked.response.status_code == 200


def test_a_restart_loses_the_prompt_and_the_job_is_tried_again(
    comfy: Comfy, engine: EngineProcess, name: str
) -> None:
    double = comfy.faulty()
    asked = Asked(engine, LONG, name)
    eventually(lambda: paints(engine, name), "under way")
    double.restart()
    assert code_of(asked.answer()) == (502, "comfyui_lost_prompt")
    assert engine.post(PATH, SMALL, {"x-request-id": name}).status_code == 200


def test_a_server_that_is_gone_makes_the_engine_unready(
    comfy: Comfy, engine: EngineProcess, name: str
) -> None:
    double = comfy.faulty()
    asked = Asked(engine, LONG, name)
    eventually(lambda: paints(engine, name), "under way")
    double.stop()
    eventually(lambda: engine.get("/health").status_code == 503, "unready")
    assert engine.health()["status"] == "unreachable"
    assert code_of(engine.post(PATH, SMALL)) == (503, "engine_not_ready")
    assert code_of(asked.answer()) == (502, "comfyui_error")
    double.start()
    eventually(lambda: engine.get("/health").status_code == 200, "ready again")
    assert engine.post(PATH, SMALL).status_code == 200


def test_loading_waits_for_the_server(comfy: Comfy, socket_dir: Path) -> None:
    double = comfy.faulty()
    double.stop()
    with spawn("comfyui", socket_dir, options=comfy.options()) as engine:
        eventually(engine.listens, "listening")
        time.sleep(1)
        assert engine.get("/health").status_code == 503
        double.start()
        eventually(engine.ready, "ready")
        assert engine.post(PATH, SMALL).status_code == 200


def test_a_failure_of_a_node_names_it(comfy: Comfy, engine: EngineProcess) -> None:
    comfy.faulty().failing = {"VAEDecode"}
    answer = engine.post(PATH, SMALL)
    assert code_of(answer) == (502, "comfyui_execution_error")
    message = answer.json()["error"]["message"]
    assert "node decode (VAEDecode): RuntimeError: CUDA out of memory" in message
    comfy.faulty().failing = set()
    assert engine.post(PATH, SMALL).status_code == 200


def test_a_failure_after_a_preview_ends_the_stream_with_an_error(comfy: Comfy, engine: EngineProcess) -> None:
    comfy.faulty().failing = {"VAEDecode"}
    with engine.client() as client:
        text = client.post(PATH, json=SMALL | {"steps": 5, "stream": True, "partial_images": 1}).text
    first, last, _ = text.split("\n\n")
    assert first.startswith("event: image_generation.partial_image")
    assert last.startswith('data: {"error":')


def test_a_prompt_that_somebody_else_interrupts_is_tried_again(
    comfy: Comfy, engine: EngineProcess, name: str
) -> None:
    asked = Asked(engine, LONG, name)
    eventually(lambda: paints(engine, name), "under way")
    comfy.ask("POST", f"/api/jobs/{name}/cancel")
    assert code_of(asked.answer()) == (502, "comfyui_interrupted")


def test_a_server_that_fails_to_take_a_prompt(comfy: Comfy, engine: EngineProcess) -> None:
    comfy.faulty().refuses = True
    answer = engine.post(PATH, SMALL)
    assert code_of(answer) == (502, "comfyui_error")
    assert "status 500" in answer.json()["error"]["message"]


def test_a_server_too_old_to_take_ids_is_told_so(comfy: Comfy, engine: EngineProcess) -> None:
    comfy.faulty().ignores_ids = True
    answer = engine.post(PATH, SMALL)
    assert (answer.status_code, "too old" in answer.json()["error"]["message"]) == (502, True)
    eventually(lambda: comfy.ask("GET", "/queue") == {"queue_running": [], "queue_pending": []}, "ended")


def test_a_prompt_that_tells_nothing_for_too_long_is_ended(comfy: Comfy, socket_dir: Path) -> None:
    """But one that waits behind somebody else's is not silent."""
    double = comfy.faulty()
    with running("comfyui", socket_dir, options=comfy.options(timeout_s=3)) as engine:
        double.step_s = 0.02
        other = comfy.somebody_elses(200)
        assert engine.post(PATH, SMALL).status_code == 200
        assert comfy.place(other) == "success"
        double.step_s = 12.0
        answer = Asked(engine, SMALL | {"seed": 99}).answer()
        assert (answer.status_code, "told nothing" in answer.json()["error"]["message"]) == (502, True)


def test_the_memory_is_given_back_at_the_end(comfy: Comfy, socket_dir: Path) -> None:
    double = comfy.faulty()
    for free in (True, False):
        with running("comfyui", socket_dir, options=comfy.options(free_on_unload=free)) as engine:
            engine.process.terminate()
            assert engine.process.wait(10) == 0
        assert double.freed == [{"unload_models": True, "free_memory": True}]
